"""How classify tells that it goes on: a bar on a terminal, lines with -v, nothing with -q or into a file."""

from __future__ import annotations

import io
import sys

import pytest

from wsi_attention.cli.pace import Pace
from wsi_attention.cli.progress import watching
from wsi_attention.cli.voice import Voice, voice_of
from wsi_attention.errors import InputError
from wsi_attention.inference.batch.listener import News
from wsi_attention.inference.results.state import RunKey, SlideKey, State
from wsi_attention.plain_text import lasting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def news(name: str, done: int, status: str = "done", kept: bool = False, failed: int = 0) -> News:
    row = {"label": "tumor", "prob_tumor": "0.9312"} if status == "done" else {}
    reason = "" if status == "done" else "damaged"
    state = State(name, f"/{name}.svs", status, reason, RunKey("m", "0", {}), SlideKey(), row, 3.14)
    return News(state, kept, done, failed, 3)


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, voice: Voice) -> str:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys, "stderr", stream)
    with watching(voice) as listener:
        if listener is not None:
            listener.stage("looking for slides")
            listener.slide(news("a/[bold]x", 1))
            listener.slide(news("kept", 2, kept=True))
            listener.slide(news("bad", 3, "failed", failed=1))
    return stream.getvalue()


def test_a_terminal_shows_the_stage_then_slides_by_name_whatever_they_are_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = shown(monkeypatch, Terminal(), Voice.USUAL)
    assert text.index("looking for slides") < text.index("1 of 3")
    assert "a/[bold]x: tumor 0.93" in text
    assert "1 failed" in text and "bad: failed" in text
    assert "wsi-attention:" not in text
    assert "wsi-attention: 2 of 3: kept" in shown(monkeypatch, Terminal(), Voice.VERBOSE)


def test_lines_say_what_each_slide_took_and_why_one_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, io.StringIO(), Voice.VERBOSE).splitlines()
    assert lines[0] == "wsi-attention: looking for slides"
    assert lines[1] == "wsi-attention: 1 of 3: a/[bold]x: tumor 0.93 (3.1 s)"
    assert lines[2] == "wsi-attention: 2 of 3: kept: tumor 0.93 (finished by an earlier run)"
    assert lines[3].startswith("wsi-attention: 3 of 3: bad: failed (3.1 s): damaged; 1 failed")


@pytest.mark.parametrize(("stream", "voice"), [(io.StringIO(), Voice.USUAL), (Terminal(), Voice.QUIET)])
def test_a_file_and_quiet_show_nothing(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, voice: Voice) -> None:
    assert shown(monkeypatch, stream, voice) == ""


def test_quiet_and_verbose_contradict_each_other() -> None:
    assert (voice_of(True, False), voice_of(False, True), voice_of(False, False)) == (
        Voice.QUIET, Voice.VERBOSE, Voice.USUAL,
    )  # fmt: skip
    with pytest.raises(InputError, match="-q and -v contradict each other"):
        voice_of(True, True)


def test_the_pace_leaves_the_start_of_the_workers_out() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    for second in (60, 64, 68):  # a minute until the workers are there, then four seconds a slide
        now[0] = second
        pace.add()
    assert pace.words(45) == "900 slides/h, 3 min left"
    assert pace.words(0) == "900 slides/h"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3.14, "3.1 s"), (45.2, "45 s"), (720, "12 min"), (11100, "3 h 05 min"), (187200, "2 d 4 h")],
)
def test_times_are_as_people_say_them(seconds: float, words: str) -> None:
    assert lasting(seconds) == words
