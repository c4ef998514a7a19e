"""The commands under one name, and how their errors end."""

from __future__ import annotations

import sys

import pytest

from wsi_attention import __version__, cli
from wsi_attention.cli import app as module
from wsi_attention.cli.interrupts import resumable
from wsi_attention.files import KEPT


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["wsi-attention", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def test_version_and_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip() == __version__
    assert ended(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    for command in ("classify", "train", "evaluate", "info", "export", "validate", "methods", "doctor"):
        assert f"  {command} " in shown


@pytest.mark.parametrize("error", [RuntimeError("two\nlines"), KeyError("x")])
def test_what_nobody_expected_is_one_line_and_status_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail(*given: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(module, "app", fail)
    assert ended(monkeypatch, "doctor") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and f"unexpected {type(error).__name__}" in lines[0] and "--debug" in lines[0]
    assert ended(monkeypatch, "doctor", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_status_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "app", stop)
    assert ended(monkeypatch, "doctor") == 130
    assert capsys.readouterr().err == "wsi-attention: interrupted\n"


def test_a_command_that_goes_on_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), resumable():
        raise KeyboardInterrupt
    assert capsys.readouterr().err == f"{KEPT}\n"


def test_numbers_after_gpus_are_one_value() -> None:
    assert cli.gpus_joined(["classify", "--gpus", "0", "1", "-i", "2"]) == ["classify", "--gpus", "0,1", "-i", "2"]
    assert cli.gpus_joined(["classify", "--gpus", "all", "1.svs"]) == ["classify", "--gpus", "all", "1.svs"]
    assert cli.gpus_joined(["classify", "-i", "0", "1"]) == ["classify", "-i", "0", "1"]
    assert cli.gpus_joined(["train", "--gpus"]) == ["train", "--gpus"]
