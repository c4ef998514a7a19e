"""Training sees a tile in one turn, prediction in as many as the recipe says; a feature store keeps the two apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from wsi_attention.checkpoint import load_model
from wsi_attention.config import parse_recipe
from wsi_attention.inference.predict import predict
from wsi_attention.testing.slides import SlideSpec, write_slide
from wsi_attention.training.run import train

MODEL: dict[str, Any] = {"tile_size": 32, "tile_mpp": 0.5, "overview_mpp": 8.0, "draws": 6, "attention_widths": [8, 8]}
MODEL |= {"encoder_widths": [8, 16], "features": 16, "encoder_frozen": True}
TURNS = (1, 8)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides, and a model for each number of turns, trained alike with one feature store."""
    folder = tmp_path_factory.mktemp("turns")
    rows = ["slide,label"]
    for seed in range(4):
        label = ("benign", "lesion")[seed % 2]
        spec = SlideSpec(size=(640, 512), seed=seed, label=label, lesion_scale=8)
        write_slide(folder / "slides" / f"s{seed}.svs", spec)
        rows.append(f"s{seed},{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    for turns in TURNS:
        told = {"method": "grow", "epochs": 2, "batch": 2, "validation_share": 0.5}
        told |= {"augmentation": {"stain": 0.0, "brightness": 0.0}}  # features of turned slides are kept too
        recipe = parse_recipe({**told, "model": {**MODEL, "encoder_turns": turns}}, "recipe")
        about = {"device": "cpu", "feature_store": folder / "f"}
        train(folder / "labels.csv", folder / "slides", folder / f"model-{turns}", recipe, **about)
    return folder


def kinds(folder: Path) -> list[Any]:
    return sorted(json.loads(path.read_text()).get("turns", 1) for path in folder.glob("*/about.json"))


def test_what_is_learnt_is_learnt_from_single_turns(place: Path) -> None:
    one, eight = (load_file(place / f"model-{turns}" / "model.safetensors") for turns in TURNS)
    assert one.keys() == eight.keys()
    assert all(one[name].numpy().tobytes() == eight[name].numpy().tobytes() for name in one)
    assert kinds(place / "f") == [1]


def test_prediction_sees_all_turns(place: Path, tmp_path: Path) -> None:
    models = [load_model(place / f"model-{turns}") for turns in TURNS]
    assert [model.config["options"]["encoder"]["turns"] for model in models] == list(TURNS)
    kept = {"device": "cpu", "feature_store": tmp_path / "f"}
    found = [predict(place / "slides" / "s1.svs", model, **kept) for model in models]  # type: ignore[arg-type]
    assert found[0].counters.tiles == found[1].counters.tiles
    assert not np.allclose(found[0].probabilities, found[1].probabilities, rtol=1e-6, atol=0)
    assert kinds(tmp_path / "f") == [1, 8]
    again = predict(place / "slides" / "s1.svs", models[1], **kept)  # type: ignore[arg-type]
    assert again.counters.tiles == 0 and again.probabilities.tobytes() == found[1].probabilities.tobytes()
