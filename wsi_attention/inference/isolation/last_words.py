"""What a worker process left behind when it died, in one line: its signal or exit status, and where it was."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

FATAL = "Fatal Python error:"
SLIDE_THREAD = "time_limit.py"
"""A file that only the thread of a slide's step has in its traceback."""
LISTENER = "channel.py"
"""A file that only the traceback of the thread that waits for messages has."""
FRAMES = 3
"""How many of the innermost frames are reported."""
OUR_OWN = re.compile(r"^(Extension modules:|Current thread |Thread |  File |Stack \(most recent)")
_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<name>.*)$', re.MULTILINE)
_THREAD = re.compile(r"^(?:Current thread|Thread) .*$", re.MULTILINE)


@dataclass(frozen=True)
class Ending:
    """How a worker process ended.

    Attributes:
        status: its exit status, negative the number of the signal that killed it; None where it is unknown.
        peak: the most memory it used, in bytes; 0 where it is unknown.
        words: the end of what it and the libraries in it wrote to its standard output and error.
    """

    status: int | None = None
    peak: int = 0
    words: str = ""

    @property
    def killed(self) -> bool:
        """Whether it was killed from outside, as by the system when memory runs out."""
        return self.status is None or (hasattr(signal, "SIGKILL") and self.status == -signal.SIGKILL)

    def describe(self) -> str:
        """Say in a few words what happened: killed, crashed with a signal, or ended by itself."""
        if self.status is None:
            return "its worker process was lost"
        if self.killed:
            used = f" (it used {self.peak / 1e9:.1f} GB)" if self.peak else ""
            return f"its worker process was killed (SIGKILL){used}, most likely because memory ran out"
        if self.status < 0:
            return f"its worker process crashed with {_signal_name(-self.status)}{self._details()}"
        return f"a library ended its worker process with exit status {self.status}{self._details()}"

    def advise(self) -> str:
        """Say what may help."""
        if self.killed:
            return "use fewer workers, or a machine with more memory"
        return "the file or its reader is broken: copy the file again, or leave it out"

    def where(self) -> str:
        """Return the innermost Python frames of what failed, " in name (file:line) < …"; empty where unknown."""
        told = " < ".join(
            f"{found['name']} ({Path(found['file']).name}:{found['line']})" for found in _frames(self.words)
        )
        return f" in {told}" if told else ""

    def _details(self) -> str:
        said = _said_before(self.words)
        return self.where() + (f", last words: {said}" if said else "")


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name} ({signal.strsignal(number)})" if signal.strsignal(number) else name


def _frames(words: str) -> list[re.Match[str]]:
    """Return the innermost frames of the thread that crashed; of the slide's thread where another one crashed."""
    crashed = FATAL in words
    text = words[words.rindex(FATAL) :] if crashed else words
    heads = list(_THREAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    blocks = [(head.group(), text[head.end() : end]) for head, end in zip(heads, ends, strict=False)]
    current = [block for head, block in blocks if head.startswith("Current") and LISTENER not in block]
    slide = [block for _, block in blocks if SLIDE_THREAD in block]
    found = [match for block in (current if crashed else []) + slide for match in _FRAME.finditer(block)]
    return found[:FRAMES]


def _said_before(words: str) -> str:
    """Return the last line that a library wrote before the traceback, such as "free(): invalid pointer"."""
    before = words.partition(FATAL)[0] if FATAL in words else words
    lines = [line.strip() for line in before.splitlines() if line.strip() and not OUR_OWN.match(line)]
    return lines[-1][:120] if lines else ""
