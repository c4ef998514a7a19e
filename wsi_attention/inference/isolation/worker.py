"""What runs in a worker process: one slide at a time, from a task that comes in to an outcome that goes out."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Semaphore, Thread
from typing import IO

import torch

from wsi_attention.devices import Precision, Used, device_of, placed
from wsi_attention.errors import WsiAttentionError
from wsi_attention.inference.batch.job import classify_slide
from wsi_attention.inference.cluster.worker import ModelSource, Task, keep
from wsi_attention.inference.engine import used_by_all
from wsi_attention.inference.isolation.channel import Channel
from wsi_attention.tiles.reading import share_cores

LOGGER = "wsi_attention"
"""The log whose records a worker hands on to the process that started it."""


@dataclass(frozen=True)
class Setup:
    """What a worker is told first: where it is, and what it will compute with.

    Attributes:
        path: `sys.path`.
        environment: the variables of the process that starts it.
        folder: the working directory.
        model: where the model is found.
        handed: the model itself, as `remote.handed` packs it, where it has no folder.
        device: as in `batch.classify`.
        precision: as in `batch.classify`.
        threads: torch's number of threads.
        processes: how many compute side by side, of which each reads with its share of the cores.
        results: the results folder.
    """

    path: tuple[str, ...]
    environment: dict[str, str]
    folder: str
    model: ModelSource
    handed: bytes | None
    device: str
    precision: Precision
    threads: int
    processes: int
    results: Path


@dataclass(frozen=True)
class Ready:
    """A worker's answer to `Setup`: the device and the precision that it computes in."""

    device: str
    precision: Used


@dataclass(frozen=True)
class Refusal:
    """The other answer to `Setup`: why it cannot work."""

    error: WsiAttentionError


@dataclass(frozen=True)
class Ask:
    """A worker is about to compute and waits for its turn."""


@dataclass(frozen=True)
class Turn:
    """The answer to `Ask`: the worker may compute now."""


@dataclass(frozen=True)
class Over:
    """The worker has computed; another may."""


@dataclass(frozen=True)
class Log:
    """A record of this package's log."""

    name: str
    level: int
    text: str


class _Turns:
    """A context that waits until the process that started this one grants a turn, and tells it when that is over."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.granted = Semaphore(0)

    def __enter__(self) -> None:
        self._channel.send(Ask())
        self.granted.acquire()

    def __exit__(self, *exception: object) -> None:
        self._channel.send(Over())


class _Forward(logging.Handler):
    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        self._channel.send(Log(record.name, record.levelno, record.getMessage()))


def work(reader: IO[bytes], writer: IO[bytes], words: int) -> None:
    """Do tasks until the other side is gone, then end this process, whatever still runs in it.

    Args:
        reader: where messages come from.
        writer: where answers go.
        words: a file descriptor for what libraries print and for the traceback of a crash.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    faulthandler.enable(words)
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, words)
    channel = Channel(reader, writer)
    try:
        _work(channel)
    except (EOFError, OSError):
        os._exit(0)


def _work(channel: Channel) -> None:
    setup = channel.receive()
    assert isinstance(setup, Setup)
    turns = _Turns(channel)
    device = setup.device
    try:
        ready = _set_up(setup, channel)
        device = ready.device
        channel.send(ready)
    except WsiAttentionError as error:
        channel.send(Refusal(error))
    while True:
        message = channel.receive()
        if isinstance(message, Task):
            task = replace(message, wishes=replace(message.wishes, device=device))
            Thread(target=_do, args=(task, setup, turns, channel), daemon=True).start()
        else:
            turns.granted.release()


def _set_up(setup: Setup, channel: Channel) -> Ready:
    sys.path[:] = setup.path
    os.environ.clear()
    os.environ.update(setup.environment)
    os.chdir(setup.folder)
    log = logging.getLogger(LOGGER)
    log.addHandler(_Forward(channel))
    log.setLevel(logging.INFO)
    torch.set_num_threads(setup.threads)
    share_cores(setup.processes)
    device = device_of(setup.device)
    if setup.handed is not None:
        keep(setup.model, setup.handed)
    classifier = setup.model.load()
    placed(classifier.model, device)
    return Ready(str(device), used_by_all(classifier, device, setup.precision))


def _do(task: Task, setup: Setup, turns: _Turns, channel: Channel) -> None:
    channel.send(classify_slide(task.job(setup.results), turns))


def main() -> None:
    """Run a worker over standard input and output, where processes cannot be forked."""
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    work(reader, writer, 2)
