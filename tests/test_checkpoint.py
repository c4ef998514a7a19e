"""Model folders: there and back, never half, and one clear line for each way they can be wrong."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from wsi_attention import checkpoint
from wsi_attention.checkpoint import (
    CONFIG,
    README,
    WEIGHTS,
    Classifier,
    build_model,
    load_model,
    save_model,
    shipped_models,
)
from wsi_attention.errors import InputError, ModelError
from wsi_attention.model_card import ModelCard
from wsi_attention.tiles.tensors import TensorSource

ARGUMENTS: dict[str, Any] = {
    "tile_size": 32,
    "tile_mpp": 1.0,
    "overview_mpp": 4.0,
    "draws": 4,
    "encoder_widths": (8, 16),
    "features": 16,
    "attention_widths": (8, 8),
}
CARD = ModelCard(
    method="ats",
    arguments=ARGUMENTS,
    classes=("benign", "lesion"),
    recipe={"epochs": 3, "seed": 0},
    metrics={"val_auroc": 0.987654, "val_f1": float("nan"), "slides": 12},
    data_fingerprint="cd" * 32,
    command="wsi-attention train -l labels.csv -i slides/ -o model/",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_model(tmp_path / "models" / "mine", build_model("ats", 2, **ARGUMENTS), CARD)
    return tmp_path / "models" / "mine"


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / CONFIG).read_text()) | values
    (folder / CONFIG).write_text(json.dumps(config))


def refusal(path: Path | str) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_there_and_back(folder: Path) -> None:
    torch.manual_seed(0)
    model = build_model("ats", 2, **ARGUMENTS).eval()
    loaded = load_model(folder)
    assert isinstance(loaded, Classifier)
    assert loaded.classes == ("benign", "lesion")
    assert loaded.name == "mine"
    assert not any(module.training for module in loaded.model.modules())
    images = torch.rand(1, 3, 100, 120)
    with torch.no_grad():
        one, other = model(TensorSource(images)), loaded.model(TensorSource(images))
    assert bool((one.logits == other.logits).all())


def test_configuration(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    assert config == load_model(folder).config
    assert config["format"] == 2
    assert config["method"] == "ats"
    assert config["options"]["encoder"]["widths"] == [8, 16]
    assert config["options"]["estimator"] == "normalised-threshold"
    assert config["mean"] == config["options"]["mean"]
    assert config["mpp"] == 1.0
    assert config["metrics"] == {"val_auroc": 0.987654, "val_f1": None, "slides": 12}
    assert config["data_fingerprint"] == "cd" * 32
    assert len(config["weights_sha256"]) == 64
    assert sorted(entry.name for entry in folder.iterdir()) == sorted((CONFIG, WEIGHTS, README))


def test_same_weights_same_bytes(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_model(tmp_path / "again", build_model("ats", 2, **ARGUMENTS), CARD)
    for name in (CONFIG, WEIGHTS, README):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_model_card(folder: Path) -> None:
    text = (folder / README).read_text()
    for part in ("benign", "lesion", "0.9877", "1 µm/px", "cd" * 32, CARD.command, "Research use only", '"epochs": 3'):
        assert part in text
    save_model(folder, load_model(folder).model, ModelCard("ats", ARGUMENTS, ("a", "b"), page="# Own words\n"))
    assert (folder / README).read_text() == "# Own words\n"


def test_a_folder_keeps_its_other_files(folder: Path) -> None:
    (folder / "training").mkdir()
    (folder / "training" / "metrics.csv").write_text("epoch\n")
    torch.manual_seed(1)
    new = save_model(folder, build_model("ats", 2, **ARGUMENTS), CARD)
    assert load_model(folder).weights_sha256 == new
    assert (folder / "training" / "metrics.csv").exists()
    assert [entry.name for entry in folder.parent.iterdir()] == ["mine"]


def test_what_a_kill_left_goes_with_the_next_write(folder: Path) -> None:
    half = folder.parent / ".mine.tmp"
    half.mkdir()
    (half / WEIGHTS).write_bytes(b"half")
    save_model(folder, build_model("ats", 2, **ARGUMENTS), CARD)
    assert [entry.name for entry in folder.parent.iterdir()] == ["mine"]


def test_a_failed_write_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_model(folder).weights_sha256

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for target in (folder, folder.parent / "new"):
        with pytest.raises(ModelError, match=r"cannot be written: No space left"):
            save_model(target, build_model("ats", 2, **ARGUMENTS), CARD)
    assert [entry.name for entry in folder.parent.iterdir()] == ["mine"]
    assert load_model(folder).weights_sha256 == before


def test_pickles_as_its_folder(folder: Path) -> None:
    loaded = load_model(folder)
    raw = pickle.dumps(loaded)
    assert len(raw) < 1000
    again = pickle.loads(raw)
    assert again.weights_sha256 == loaded.weights_sha256
    save_model(folder, build_model("ats", 2, **ARGUMENTS), CARD)
    with pytest.raises(ModelError, match="has changed since"):
        pickle.loads(raw)


def test_other_rules_for_the_same_weights_are_another_model(folder: Path) -> None:
    raw = pickle.dumps(loaded := load_model(folder))
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(dict(reversed(config.items()))))
    assert pickle.loads(raw).config_sha256 == loaded.config_sha256
    (folder / CONFIG).write_text(json.dumps(config | {"classes": config["classes"][::-1]}))
    assert load_model(folder).weights_sha256 == loaded.weights_sha256
    with pytest.raises(ModelError, match="has changed since"):
        pickle.loads(raw)


def test_survives_a_new_process_elsewhere(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    (tmp_path / "it").write_bytes(pickle.dumps(load_model("mine")))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).classes)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "it")], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "('benign', 'lesion')", done.stderr


def test_a_model_in_memory_does_not_pickle() -> None:
    with pytest.raises(ModelError, match="save it first"):
        pickle.dumps(Classifier(torch.nn.Identity(), ("a",), {}, "", "tiny"))


def test_shipped_names(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checkpoint, "SHIPPED", folder.parent)
    monkeypatch.chdir(tmp_path)
    assert shipped_models() == ("mine",)
    assert load_model("mine").name == "mine"
    (tmp_path / "mine").mkdir()
    assert load_model("mine").folder == folder.resolve()
    assert "shipped models: mine" in refusal("other")


def test_missing_and_foreign_folders(tmp_path: Path) -> None:
    assert "no model folder" in refusal(tmp_path / "gone")
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "a.svs").touch()
    text = refusal(tmp_path / "slides")
    assert "is no model folder" in text
    assert "a.svs" in text
    assert "is a file" in refusal(tmp_path / "slides" / "a.svs")


def test_broken_configurations(folder: Path) -> None:
    good = (folder / CONFIG).read_text()
    change(folder, format=3, package_version="9.0")
    assert "format 3, written by wsi-attention 9.0" in refusal(folder)
    (folder / CONFIG).write_text(good[:40])
    assert "is no JSON" in refusal(folder)
    (folder / CONFIG).write_bytes(b"\xff\xfe\x00")
    assert "is no JSON" in refusal(folder)
    for text in ("[1]", "{}"):
        (folder / CONFIG).write_text(text)
        assert "names no format" in refusal(folder)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"method": "magic"}, "no model named 'magic'; installed: ats"),
        ({"method": 3}, "'method' is missing or of the wrong kind, found 3"),
        ({"options": None}, "'options' is missing or of the wrong kind"),
        ({"options": {"classes": 2}}, "unknown key 'classes'"),
        ({"options": {"colour": 1}}, "unknown key 'colour'"),
        ({"options": {**ARGUMENTS, "estimator": "magic"}}, "estimator is 'magic'; possible: "),
        ({"options": {**ARGUMENTS, "features": "many"}}, "features must be a whole number, not 'many'"),
        ({"options": {**ARGUMENTS, "encoder_widths": []}}, "cannot be built with"),
        ({"classes": []}, "'classes' must be different names"),
        ({"classes": ["a", "a"]}, "'classes' must be different names"),
        ({"classes": ["a", 2]}, "'classes' must be different names"),
        ({"classes": ["a", "b", "c"]}, "has shape (2,), the model has (3,); copy the whole folder"),
        ({"options": {**ARGUMENTS, "attention_widths": [8, 8, 8]}}, "it lacks attention.trunk.6.weight"),
        ({"options": {**ARGUMENTS, "attention_widths": [8]}}, "attention.trunk.3"),
    ],
)
def test_configurations_that_do_not_fit(folder: Path, values: dict[str, Any], text: str) -> None:
    change(folder, **values)
    assert text in refusal(folder)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"mpp": 0}, "'mpp' is 0, but its options make a model for 1 µm/px"),
        ({"mpp": 99.0}, "'mpp' is 99, but its options make a model for 1 µm/px"),
        ({"mpp": math.nan}, "'mpp' is nan, but its options"),
        ({"options": {"tile_mpp": 0}}, "tile_mpp is 0; it must lie between 0.02 and 50"),
        ({"options": {"tile_mpp": 99}}, "tile_mpp is 99; it must lie between"),
        ({"options": {"overview_mpp": math.nan}}, "overview_mpp is nan; it must lie between"),
        ({"options": {"tile_size": 1_000_000}}, "tile_size is 1e+06; it must lie between 1 and 8192"),
        ({"options": {"tile_size": -64}}, "tile_size is -64; it must lie between"),
        ({"options": {"encoder_widths": [8, -16]}}, "widths is -16; it must lie between"),
        ({"options": {"encoder_widths": [10**9]}}, "widths is 1e+09; it must lie between"),
        ({"options": {"draws": 10**8}}, "draws is 1e+08; it must lie between"),
        ({"options": {"std": [1, 1, 0]}}, "std is 0; it must lie between"),
        ({"options": {"floor": math.inf}}, "floor is inf; it must lie between"),
        ({"classes": [f"c{k}" for k in range(20_000)]}, "20000 classes; 1 to 10000 are possible"),
    ],
)
def test_numbers_out_of_all_proportion(folder: Path, values: dict[str, Any], text: str) -> None:
    options = json.loads((folder / CONFIG).read_text())["options"]
    change(folder, **values | {"options": options | values.get("options", {})})
    assert text in refusal(folder)


def test_a_configuration_nested_too_deeply(folder: Path) -> None:
    (folder / CONFIG).write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ModelError, match=r"config.json is no JSON: it is nested too deeply"):
        load_model(folder)


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_of_another_kind(folder: Path, kind: torch.dtype) -> None:
    exchange(folder, lambda tensor: tensor.to(kind))
    with pytest.raises(ModelError, match=rf"holds {str(kind).removeprefix('torch.')}, the model has float32; copy"):
        load_model(folder)


def test_weights_in_half_precision_are_taken(folder: Path) -> None:
    exchange(folder, lambda tensor: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor)
    assert next(load_model(folder).model.parameters()).dtype == torch.float32


def exchange(folder: Path, other: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Changes every tensor of a model folder, whose configuration still fits."""
    tensors = {name: other(tensor) for name, tensor in load_tensors((folder / WEIGHTS).read_bytes()).items()}
    raw = save_tensors(tensors)
    (folder / WEIGHTS).write_bytes(raw)
    change(folder, weights_sha256=hashlib.sha256(raw).hexdigest())


def test_damaged_weights(folder: Path) -> None:
    weights = folder / WEIGHTS
    raw = weights.read_bytes()
    weights.write_bytes(raw[:-100])
    assert "damaged, cut short" in refusal(folder)
    weights.write_bytes(b"\x80\x04 no tensors")
    change(folder, weights_sha256=checkpoint.hashlib.sha256(weights.read_bytes()).hexdigest())
    assert "no safetensors file" in refusal(folder)
    weights.unlink()
    assert "No such file" in refusal(folder)


def test_weights_that_are_no_numbers(folder: Path) -> None:
    model = load_model(folder).model
    torch.nn.init.constant_(model.get_parameter("classifier.bias"), float("nan"))
    save_model(folder, model, CARD)
    assert "classifier.bias holds values that are not finite" in refusal(folder)


def test_unknown_device(folder: Path) -> None:
    with pytest.raises(ModelError, match="'warp'"):
        load_model(folder, "warp")


def test_build_model_refuses() -> None:
    with pytest.raises(InputError, match="no model named 'nothing'"):
        build_model("nothing", 2)
    with pytest.raises(InputError, match=r"method ats: unknown key 'drawz'; did you mean 'draws'\?"):
        build_model("ats", 2, drawz=3)
    with pytest.raises(InputError, match="draws is 0"):
        build_model("ats", 2, draws=0)


def test_a_folder_of_format_1_reads_as_before(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    encoder = config["options"].pop("encoder")
    flat = {"encoder": encoder["name"], "encoder_widths": encoder["widths"], "encoder_frozen": encoder["frozen"]}
    flat |= {"features": encoder["features"], "pool": encoder["pool"]}
    earlier = {**config, "format": 1, "arguments": config["options"] | flat}
    del earlier["options"]
    (folder / CONFIG).write_text(json.dumps(earlier))
    read = load_model(folder)
    assert read.weights_sha256 == config["weights_sha256"]
    save_model(folder, read.model, replace(CARD, arguments=read.config["options"]))
    assert json.loads((folder / CONFIG).read_text())["options"] == config["options"] | {"encoder": encoder}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"recipe": "x"}, "'recipe' must be a table, found 'x'"),
        ({"learnt_from": {"slides": {"train": 5}}}, "'learnt_from' of the model is damaged: slides.train is no list"),
        ({"mpp": 10**400}, "'mpp' must be a number that can"),
        ({"members": [{"options": {}}] * 9}, "names 9 members, model.safetensors holds those of 0"),
        ({"target": {"kind": []}, "format": 3}, "which this version does not know"),
        ({"calibration": {"kind": "platt", "scale": 1e308, "bias": [0, 0], "patients": 9, "slides": 9}}, "larger than"),
        ({"conformal": {"alpha": 0.1, "thresholds": [10**400], "patients": [9]}}, "made of finite numbers"),
        (
            {
                "target": {"kind": "ordinal", "order": ["benign", "lesion"], "columns": ["label"]},
                "format": 3,
                "conformal": {"alpha": 0.1, "thresholds": [1.0], "patients": [9]},
            },
            "for one label a slide",
        ),
    ],
)
def test_entries_that_would_break_what_reads_them(folder: Path, values: dict[str, Any], words: str) -> None:
    arguments = {**ARGUMENTS}
    if "order" in str(values):
        save_model(folder, build_model("ats", 1, **arguments), CARD)
    change(folder, **values)
    assert words in refusal(folder)
