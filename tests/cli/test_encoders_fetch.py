"""`encoders convert` and `encoders fetch` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from wsi_attention.cli.app import app
from wsi_attention.encoders.encoder_weights import read_encoder
from wsi_attention.errors import InputError


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["encoders", *map(str, words)])


def refusal(*words: object) -> str:
    failed = call(*words)
    assert isinstance(failed.exception, InputError)
    assert "\n" not in str(failed.exception)
    return str(failed.exception)


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    torch.save({"teacher": {"backbone.w": torch.ones(2), "head.w": torch.ones(1)}}, tmp_path / "w.pth")
    return tmp_path / "w.pth"


def test_convert_says_what_it_did(pickled: Path, tmp_path: Path) -> None:
    ran = call("convert", pickled, "-o", tmp_path / "uni.safetensors", "--encoder", "uni2-h")
    assert ran.exit_code == 0, ran.output
    assert ran.output.splitlines() == [
        f"{tmp_path / 'uni.safetensors'}: 1 tensors, found under teacher > backbone.; left out 1: head.w",
        "origin: uni2-h, licence CC-BY-NC-ND-4.0, must not be given on",
        "colours: mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225",
    ]
    assert load_file(tmp_path / "uni.safetensors").keys() == {"w"}


@pytest.mark.usefixtures("warm_processes")
def test_convert_says_where_colours_are_missing_and_takes_them(pickled: Path) -> None:
    ran = call("convert", pickled)
    assert "origin: not known" in ran.output
    assert "nothing says which colours these weights were trained with; give --encoder NAME" in ran.output
    ran = call("convert", pickled, "--mean", "0.7,0.5,0.6", "--std", "0.2,0.3,0.1")
    assert "colours: mean 0.7, 0.5, 0.6, std 0.2, 0.3, 0.1" in ran.output
    assert read_encoder(pickled.with_suffix(".safetensors")).std == (0.2, 0.3, 0.1)


def test_slips_are_named(pickled: Path, tmp_path: Path) -> None:
    assert "--mean 0.7;0.5: give a number a channel" in refusal("convert", pickled, "--mean", "0.7;0.5")
    assert "mean has 1 values and std 0" in refusal("convert", pickled, "--mean", "0.7")
    assert "did you mean 'uni2-h'" in refusal("convert", pickled, "--encoder", "uni2h")
    assert "nowhere.pth does not exist" in refusal("convert", tmp_path / "nowhere.pth")
    assert "did you mean 'uni2-h'" in refusal("fetch", "uni2h")
