"""A published encoder that is used in float32 is not computed in bfloat16 unnoticed, nor on request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch

from wsi_attention import Classifier, classify, load_model, predict, tile_features
from wsi_attention.checkpoint import save_model
from wsi_attention.encoders import table
from wsi_attention.encoders.origin import Origin
from wsi_attention.errors import InputError
from wsi_attention.inference import predict as predict_room
from wsi_attention.inference.exactness import precision_of, published_in
from wsi_attention.methods.method import build_model
from wsi_attention.model_card import ModelCard

SMALL = {"tile_size": 32, "overview_mpp": 4.0, "draws": 4, "attention_widths": [8, 8]}
MESSAGE = r"precision bf16 contradicts encoder '{}' of model .*, which is used in float32; give 32, or auto"


def saved(folder: Path, origin: Origin | None = None, **options: Any) -> Classifier:
    torch.manual_seed(0)
    options = {**SMALL, **options}
    card = ModelCard(method="ats", classes=("benign", "lesion"), arguments=options)
    save_model(folder, build_model("ats", 2, **options), replace(card, encoder=origin) if origin else card)
    return load_model(folder)


def of_precision(precision: str) -> table.Entry:
    return next(one for one in table.entries().values() if one.precision == precision)


@pytest.fixture
def bfloat16_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardware that multiplies in bfloat16, for which "auto" is bf16."""
    monkeypatch.setattr("wsi_attention.devices._multiplies_in_bfloat16", lambda device: True)


def test_a_model_that_points_to_such_weights(tmp_path: Path, write_slide: Any, bfloat16_here: None) -> None:
    slide, entry = write_slide(tmp_path / "a.tif"), of_precision("32")
    own = {"encoder": {"widths": [8, 8], "features": 8, "frozen": True}}
    model = saved(tmp_path / "points", Origin(entry.name, entry.repository, "", "MIT", True), **own)
    assert published_in(model) == entry and precision_of(model, "auto") == precision_of(model, "32") == "32"
    assert predict(slide, model, device="cpu").provenance["precision"] == "32"
    wishes: dict[str, Any] = {"what": "tiles", "device": "cpu", "in_process": True}
    report = classify(slide, tmp_path / "out", model, **wishes)
    assert report.statuses == {"done": 1}
    states = (tmp_path / "out/states/a.json").read_text()
    assert '"precision": "32"' in states and '"precision": "bf16"' not in states
    tiles = predict(slide, model, device="cpu").glimpses[0]
    for call in (
        lambda: predict(slide, model, device="cpu", precision="bf16"),
        lambda: classify(slide, tmp_path / "other", model, precision="bf16", **wishes),
        lambda: tile_features(slide, model, tiles, device="cpu", precision="bf16"),
    ):
        with pytest.raises(InputError, match=MESSAGE.format(entry.name)) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "other").exists()


def test_by_its_repository_or_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = of_precision("32")
    hub = Origin(f"hub:{entry.repository}", entry.repository, "", "MIT", True)
    own = {"encoder": {"widths": [8, 8], "features": 8, "frozen": True}}
    assert precision_of(saved(tmp_path / "hub", hub, **own), "auto") == "32"
    exact = replace(table.entry_of("efficientnet-lite0"), name="lite-exact", precision="32")
    known = MappingProxyType({**table.entries(), exact.name: exact})
    monkeypatch.setattr(table, "entries", lambda: known)
    options = build_options("lite-exact")
    model = Classifier(torch.nn.Identity(), ("a", "b"), {"method": "ats", "options": options}, "", "named")
    assert precision_of(model, "auto") == "32"
    with pytest.raises(InputError, match=MESSAGE.format("lite-exact")):
        precision_of(model, "bf16")


def build_options(name: str) -> dict[str, Any]:
    return {**SMALL, "encoder": {"name": name, "frozen": True}}


def test_all_others_compute_in_what_was_asked_for(
    tmp_path: Path, write_slide: Any, tiny: Classifier, bfloat16_here: None
) -> None:
    half = of_precision("16")
    own = {"encoder": {"widths": [8, 8], "features": 8, "frozen": True}}
    model = saved(tmp_path / "half", Origin(half.name, half.repository, "", "MIT", True), **own)
    for one in (tiny, model):
        assert [precision_of(one, wanted) for wanted in ("auto", "32", "bf16")] == ["auto", "32", "bf16"]
    slide = write_slide(tmp_path / "a.tif")
    assert predict_room.predict(slide, tiny, device="cpu").provenance["precision"] == "bf16"
