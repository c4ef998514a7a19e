"""`wsi-attention doctor`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from wsi_attention.cli import doctor as module

app = typer.Typer()
app.command()(module.doctor)


def broken(folder: Path) -> str:
    raise OSError("no libopenslide here")


def test_what_works_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_classify", lambda folder: "works")
    ran = CliRunner().invoke(app)
    assert ran.exit_code == 0, ran.output
    assert "readers: openslide, tiff, tiffslide, zarr work" in ran.output
    assert "devices: cpu" in ran.output
    assert "encoders: small, resnet18, vit work; " in ran.output


def test_what_does_not_work_is_named_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_readers", broken)
    monkeypatch.setattr(module, "_classify", lambda folder: "works (3 tiles)")
    ran = CliRunner().invoke(app)
    assert ran.exit_code == 1
    readers, encoders, classify = ran.output.splitlines()[-3:]
    assert readers == "readers: FAILED, OSError: no libopenslide here"
    assert encoders.startswith("encoders: small")
    assert classify == "classify: works (3 tiles)"


@pytest.mark.parametrize(
    ("cuda", "hip", "answers", "said"),
    [
        (None, None, False, "built without CUDA, for CPUs"),
        ("13.0", None, True, "built for CUDA 13.0"),
        ("13.0", None, False, "built for CUDA 13.0, but no GPU answers"),
        (None, "7.1", True, "built for ROCm 7.1"),
    ],
)
def test_the_build_of_torch_is_named(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, hip: str | None, answers: bool, said: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: answers)
    assert module._build().startswith(said)
    assert ("download.pytorch.org/whl/cpu" in module._build()) is (bool(cuda) and not answers)
