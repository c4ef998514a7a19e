"""Folds side by side, each in a process of its own that ends with this one; or one after the other in this process.

A process gets its job as a line of JSON and tells its news as lines of JSON. As long as it works, the other end of its
standard input stays open here: when this process is killed, it closes, and the fold ends at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import IO

import torch

from wsi_attention.errors import InputError, WsiAttentionError
from wsi_attention.json_values import parse as parse_json
from wsi_attention.options import parse
from wsi_attention.study.fold import FoldJob, do_fold
from wsi_attention.training.listener import Listener

MODULE = "wsi_attention.study.side_by_side"
FAILED = 2
"""Exit status of a process whose fold failed for a reason that it has told."""
INTERRUPTED = 130
MOST = 64
"""Processes that make sense on one machine."""


class Called:
    """A listener that puts the name of a fold before what it passes on.

    Args:
        listener: is told.
        name: of the fold.
    """

    def __init__(self, listener: Listener, name: str) -> None:
        self._listener, self._name = listener, name

    def line(self, text: str) -> None:
        """Pass on a line."""
        self._listener.line(f"fold {self._name}: {text}")

    def progress(self, stage: str, done: int, total: int) -> None:
        """Pass on how far a stage has come."""
        self._listener.progress(f"fold {self._name}: {stage}", done, total)


def do_folds(jobs: Sequence[FoldJob], processes: int, listener: Listener) -> None:
    """Do all folds; where one fails, those under way end first, and the rest is not begun.

    Args:
        jobs: what there is to do; `device` of each may name several, with commas, one for each process.
        processes: how many at a time.
        listener: told how each goes.

    Raises:
        WsiAttentionError: a fold failed; the first one's reason.
    """
    if not 1 <= processes <= MOST:
        raise InputError(f"{processes} folds at a time; 1 to {MOST} are possible")
    devices = jobs[0].device.split(",") if jobs else []
    processes = min(max(processes, len(devices)), len(jobs))
    if processes <= 1:
        for job in jobs:
            listener.line(f"fold {job.name} begins")
            do_fold(job, Called(listener, job.name))
        return
    threads = max(1, torch.get_num_threads() // processes)
    _Crew(jobs, [devices[i % len(devices)] for i in range(processes)], threads, listener).run()


class _Crew:
    """Processes at work: one for each place; a place that is free takes the next job."""

    def __init__(self, jobs: Sequence[FoldJob], places: Sequence[str], threads: int, listener: Listener) -> None:
        self._waiting = [replace(job, threads=threads) for job in jobs]
        self._free = list(places)
        self._listener = listener
        self._news: SimpleQueue[tuple[str, dict[str, str]]] = SimpleQueue()
        self._running: dict[str, tuple[subprocess.Popen[str], str]] = {}
        self._error = ""

    def run(self) -> None:
        try:
            while self._running or (self._waiting and not self._error):
                while self._free and self._waiting and not self._error:
                    self._start(replace(self._waiting.pop(0), device=self._free.pop(0)))
                self._hear()
        finally:
            for process, _ in self._running.values():
                with process:
                    process.kill()
        if self._error:
            raise WsiAttentionError(self._error)

    def _start(self, job: FoldJob) -> None:
        self._listener.line(f"fold {job.name} begins")
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._running[job.name] = process, job.device
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(job.as_dict()) + "\n")
        process.stdin.flush()
        threading.Thread(target=self._listen, args=(job.name, process.stdout), daemon=True).start()

    def _listen(self, name: str, lines: IO[str]) -> None:
        try:
            for said in filter(None, map(_news_in, lines)):
                self._news.put((name, said))
        finally:
            self._news.put((name, {}))

    def _hear(self) -> None:
        try:
            name, said = self._news.get(timeout=1.0)
        except Empty:
            return
        called = Called(self._listener, name)
        if "line" in said:
            called.line(said["line"])
        elif "progress" in said:
            called.progress(said["progress"], int(said["done"]), int(said["total"]))
        elif "error" in said:
            self._error = self._error or said["error"]
        else:
            self._end(name)

    def _end(self, name: str) -> None:
        process, device = self._running.pop(name)
        self._free.append(device)
        with process:
            status = process.wait()
        if status and not self._error:
            self._error = (
                f"fold {name}: its process ended with status {status} and said no reason; what it printed says"
            )


def _news_in(line: str) -> dict[str, str]:
    """Return the news of a line, nothing of one that is no news, such as what a library printed."""
    try:
        said = dict(parse_json(line))
    except (ValueError, TypeError):
        return {}
    return said if said.keys() & {"line", "progress", "error"} else {}


class _Told:
    """A listener whose news goes to the parent, a line of JSON each."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    def line(self, text: str) -> None:
        self._say(line=text)

    def progress(self, stage: str, done: int, total: int) -> None:
        self._say(progress=stage, done=str(done), total=str(total))

    def error(self, text: str) -> None:
        self._say(error=text)

    def _say(self, **said: str) -> None:
        self._out.write(json.dumps(said) + "\n")
        self._out.flush()


@contextmanager
def _own_output() -> Iterator[IO[str]]:
    """Yield standard output for news alone; what libraries print goes to standard error instead."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        yield out


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(FAILED)


def main() -> None:
    """Do the fold that standard input names, in a process of its own."""
    job = parse(FoldJob, parse_json(sys.stdin.readline()), "the job")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with _own_output() as out:
        told = _Told(out)
        try:
            do_fold(job, told)
        except (WsiAttentionError, OSError) as error:
            told.error(" ".join(str(error).split()))
            os._exit(FAILED)
        except KeyboardInterrupt:
            os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
