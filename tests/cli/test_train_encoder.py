"""`train` with an encoder from elsewhere: its weights, its colours, and another file of the same name."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from wsi_attention.checkpoint import load_model
from wsi_attention.cli.app import app
from wsi_attention.encoders.encoder_weights import save_encoder
from wsi_attention.errors import InputError, MissingExtraError
from wsi_attention.nn.encoders import TileEncoder
from wsi_attention.nn.timm_encoder import timm_state
from wsi_attention.testing.slides import SlideSpec, write_slide

RECIPE = """
method = "ats"
epochs = 1
batch = 2
validation_share = 0.5
statistics = "encoder"
[model]
draws = 2
tile_size = 64
tile_mpp = 1.0
overview_mpp = 8.0
encoder_frozen = true
attention_widths = [8, 8]
context = 3
"""
SMALL = "encoder_widths = [8, 16]\nfeatures = 16\n"
COLOURS = {"mean": (0.7, 0.5, 0.6), "std": (0.2, 0.25, 0.15)}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("slide", "label"))
        for seed in range(4):
            label = ("benign", "lesion")[seed % 2]
            write_slide(folder / f"s{seed}.svs", SlideSpec(size=(768, 768), seed=seed, label=label, lesion_scale=8))
            rows.writerow((f"s{seed}", label))
    return folder


def arguments(slides: Path, output: Path, model: str, *more: str) -> list[str]:
    recipe = output.with_suffix(".toml")
    recipe.write_text(RECIPE + model)
    given = {"-l": slides / "labels.csv", "-i": slides, "-o": output, "--config": recipe}
    return ["train", *(str(part) for pair in given.items() for part in pair), "--device", "cpu", *more]


def encoder_file(path: Path, seed: int, **colours: tuple[float, ...]) -> str:
    torch.manual_seed(seed)
    save_encoder(path, TileEncoder(name="small", widths=(8, 16), features=16).build(), **colours)
    return str(path)


def test_the_model_has_the_encoders_weights_and_colours_and_another_file_is_another_run(
    slides: Path, tmp_path: Path
) -> None:
    file, output = encoder_file(tmp_path / "e.safetensors", 0, **COLOURS), tmp_path / "model"
    call = arguments(slides, output, SMALL, "--encoder-start", file)
    ran = CliRunner().invoke(app, call)
    assert ran.exit_code == 0, ran.output
    config = json.loads((output / "config.json").read_text())
    assert (config["mean"], config["std"]) == (list(COLOURS["mean"]), list(COLOURS["std"]))
    assert config["recipe"]["encoder_start"] == file
    weights = load_model(output).model.encoder.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in load_file(file).items())
    assert "finished already" in CliRunner().invoke(app, call).output
    encoder_file(tmp_path / "e.safetensors", 1, **COLOURS)
    refused = CliRunner().invoke(app, call)
    assert isinstance(refused.exception, InputError)
    assert "a training with a different encoder_start" in str(refused.exception)


def test_unknown_colours_and_random_frozen_weights_are_said(slides: Path, tmp_path: Path) -> None:
    file = encoder_file(tmp_path / "e.safetensors", 0)
    ran = CliRunner().invoke(app, arguments(slides, tmp_path / "model", SMALL, "--encoder-start", file))
    assert isinstance(ran.exception, InputError)
    assert "nothing says which colours" in str(ran.exception)
    assert "frozen with random weights" not in ran.output
    without = CliRunner().invoke(app, arguments(slides, tmp_path / "model", SMALL))
    assert "note: the encoder is frozen with random weights" in without.output
    assert not (tmp_path / "model").exists()


def test_an_encoder_of_timm_trains_and_classifies(slides: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    ran = CliRunner().invoke(app, arguments(slides, output, 'encoder = "timm:test_resnet"\n'))
    if "works" not in timm_state():
        assert isinstance(ran.exception, MissingExtraError)
        assert not output.exists()
        pytest.skip(timm_state())
    assert ran.exit_code == 0, ran.output
    config = json.loads((output / "config.json").read_text())
    assert (config["mean"], config["std"]) == ([0.5] * 3, [0.5] * 3)
    out = ["classify", "-i", str(slides / "s0.svs"), "-o", str(tmp_path / "results"), "-m", str(output)]
    assert CliRunner().invoke(app, out).exit_code == 0
