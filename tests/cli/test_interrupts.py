"""Ctrl-C at moments at which Python would lose it."""

from __future__ import annotations

import signal
import sys
import time

import pytest

from wsi_attention.cli.interrupts import noted


class Interrupted:
    """Something during whose end Ctrl-C comes."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_while_an_object_is_taken_away_still_interrupts() -> None:
    hook = sys.unraisablehook
    with noted() as came, pytest.raises(KeyboardInterrupt):
        one = Interrupted()
        del one
        end = time.monotonic() + 30
        while time.monotonic() < end:
            time.sleep(0.01)
    assert came == [signal.SIGINT] * 2
    assert sys.unraisablehook is hook


def test_other_errors_that_nobody_can_catch_are_told_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: told.append(lost.exc_type))

    class Broken:
        def __del__(self) -> None:
            raise ValueError("at the end")

    with noted() as came:
        one = Broken()
        del one
    assert told == [ValueError] and not came
