"""The progress bar of classify."""

from __future__ import annotations

import io
import sys

import pytest

from wsi_attention.cli.classify import watching


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_slides_by_name_whatever_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with watching() as watch:
        assert watch is not None
        watch("a/[bold]x", 1, 3)
    shown = sys.stderr.getvalue()
    assert "1/3" in shown and "a/[bold]x" in shown


def test_a_pipe_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with watching() as watch:
        assert watch is None
    assert sys.stderr.getvalue() == ""
