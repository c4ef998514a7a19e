"""int8 is used where it is asked for, only from the model's own folder, and results say which one it was."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from wsi_attention.checkpoint import Classifier, load_model
from wsi_attention.devices import openvino_version
from wsi_attention.errors import InputError
from wsi_attention.feature_store.kind import weights_sha256
from wsi_attention.files import write_folder
from wsi_attention.inference import engine, quantise
from wsi_attention.inference.batch.classify import run_key
from wsi_attention.inference.compiled import NotCompiledError, traced
from wsi_attention.inference.engine import engine_for, used_on
from wsi_attention.inference.predict import predict
from wsi_attention.inference.quantised import ABOUT, FOLDER, WEIGHTS, Quantised, named_with, quantised
from wsi_attention.nn.encoders import bare
from wsi_attention.protocols import contract_of

CPU = torch.device("cpu")
needs_openvino = pytest.mark.skipif(not openvino_version(), reason="openvino is not installed")
needs_nncf = pytest.mark.skipif(find_spec("nncf") is None or not openvino_version(), reason="nncf is not installed")


def encoder_of(model: Classifier) -> torch.nn.Module:
    encoder = contract_of(model.model).encoder
    assert encoder is not None
    return encoder


class Scaled(torch.nn.Module):
    """An encoder whose features are multiplied, so that they are told from its own."""

    def __init__(self, encoder: torch.nn.Module, factor: float) -> None:
        super().__init__()
        self.encoder, self.factor = encoder, factor

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.factor * self.encoder(tiles)
        return features


def written(model: Classifier, factor: float = 1.0) -> Quantised:
    """Put an encoder where an int8 one lies: in float32, its features multiplied."""
    encoder, side = encoder_of(model), model.config["options"]["tile_size"]
    layers, weights = quantise._written(traced(Scaled(encoder, factor).eval(), (3, side, side)))
    sha = weights_sha256(bare(encoder))
    made = Quantised(layers, weights, (3, side, side), sha, 20, 2, 0.999, openvino_version(), "1")
    assert model.folder is not None
    write_folder(model.folder / FOLDER, made.files())
    return made


@pytest.fixture
def saved(tiny: Classifier, tmp_path: Path) -> Classifier:
    assert tiny.folder is not None
    return load_model(shutil.copytree(tiny.folder, tmp_path / "model"))


@needs_openvino
def test_it_computes_only_where_it_is_asked_for_and_results_say_so(
    saved: Classifier, tmp_path: Path, write_slide: Callable[..., Any]
) -> None:
    made = written(saved, 2.0)
    assert used_on(saved, CPU, "auto")[0] != "int8"
    assert used_on(saved, CPU, "int8") == ("int8", made.why)
    assert engine.used_by_all(saved, CPU, "int8") == "int8"
    compute = engine_for(saved, "int8")
    assert compute is not None and engine_for(saved, "int8") is compute
    tiles = torch.rand(3, *made.shape)
    with torch.inference_mode():
        torch.testing.assert_close(
            compute(encoder_of(saved), tiles), 2 * encoder_of(saved)(tiles), rtol=1e-4, atol=1e-5
        )
    path = write_slide(tmp_path / "x.tif")
    found = predict(path, saved, device="cpu", precision="int8")
    assert found.provenance["precision"] == "int8"
    assert found.provenance["engine"] == {"openvino": openvino_version(), "why": made.why}
    assert run_key(saved, "int8").settings["int8_sha256"] == made.sha256
    assert "int8_sha256" not in run_key(saved, "openvino").settings
    assert named_with(saved, "int8") == f"int8 {made.sha256}" and named_with(saved, "32") == "32"


@needs_openvino
def test_another_one_in_the_folder_is_another_run(saved: Classifier) -> None:
    first, before = written(saved, 1.0), engine_for(saved, "int8")
    second = written(saved, 3.0)
    assert first.sha256 != second.sha256 == quantised(saved).sha256
    assert engine_for(saved, "int8") is not before
    with pytest.raises(NotCompiledError, match=r"takes tiles of 3 x"):
        second.compiled(encoder_of(saved), (3, 8, 8))


@needs_openvino
def test_what_is_missing_damaged_or_of_other_weights_is_refused(saved: Classifier) -> None:
    with pytest.raises(InputError, match=r"has no int8 encoder; make it with: wsi-attention quantise -m"):
        used_on(saved, CPU, "int8")
    assert saved.folder is not None
    written(saved)
    with torch.no_grad():
        next(encoder_of(saved).parameters()).add_(1.0)
    with pytest.raises(InputError, match="made from other weights"):
        quantised(saved)
    folder = saved.folder / FOLDER
    (folder / WEIGHTS).write_bytes(b"x")
    (folder / ABOUT).write_text((folder / ABOUT).read_text() + " ")
    with pytest.raises(InputError, match=r"int8 is damaged .*; remove it and make it with"):
        quantised(saved)
    with pytest.raises(InputError, match="has no folder"):
        quantised(replace(saved, folder=None))


def test_it_computes_on_the_processor_alone(saved: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="precision int8 computes on the CPU, and the device is cuda:1"):
        used_on(saved, torch.device("cuda:1"), "int8")
    monkeypatch.setattr(quantise, "openvino_version", lambda: "")
    with pytest.raises(InputError, match=r"pip install 'nncf>="):
        quantise.quantise(saved, ["x.tif"])


@needs_nncf
def test_a_model_is_quantised_with_tiles_of_slides(
    saved: Classifier, tmp_path: Path, write_slide: Callable[..., Any]
) -> None:
    path, said = write_slide(tmp_path / "x.tif"), list[tuple[int, int]]()
    folder = quantise.quantise(saved, [path], tiles=10, told=lambda done, of: said.append((done, of)))
    made = quantised(saved)
    assert saved.folder is not None and folder == saved.folder / FOLDER
    assert "openvino_telemetry" not in sys.modules  # nobody is told
    assert made.likeness > 0.98 and b"FakeQuantize" in made.model
    assert json.loads((folder / ABOUT).read_text())["slides"] == 1 and said == [(0, 1), (1, 1)]
    own = predict(path, saved, device="cpu", precision="int8"), predict(path, saved, device="cpu", precision="32")
    assert own[0].probabilities == pytest.approx(own[1].probabilities, abs=0.05)
