"""Every method on slides that leave it little to look at: a label and whole records, or one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from wsi_attention import registry
from wsi_attention.errors import NoTissueError
from wsi_attention.inference.predict import predict
from wsi_attention.slide.slide import open_slide
from wsi_attention.structures import Prediction, TissueMask

METHODS = tuple(name for name in registry.names(registry.MODELS) if not name.endswith("-mnist"))
"""All but the one for images of digits."""


def check(prediction: Prediction) -> None:
    assert prediction.probabilities.sum() == pytest.approx(1)
    assert np.isfinite(prediction.probabilities).all()
    assert prediction.spread is None or np.isfinite(prediction.spread)
    for glimpse in prediction.glimpses:
        assert glimpse.weights.sum() == pytest.approx(1)
    shown = next(found for found in prediction.maps if found.name == "attention")
    assert np.nansum(shown.values) == pytest.approx(1, abs=1e-4)


def one_level(path: Path, pixels: np.ndarray) -> Path:
    with tifffile.TiffWriter(path) as writer:
        scale = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
        writer.write(pixels, tile=(64, 64), photometric="rgb", compression="zlib", **scale)
    return path


def looked(path: Path, classifier: Any, tissue: TissueMask | None = None) -> Prediction:
    with open_slide(str(path)) as slide:
        return predict(slide, classifier, tissue=tissue)


@pytest.mark.parametrize("method", METHODS)
def test_one_level_and_smaller_than_a_tile(method: str, tmp_path: Path, small_model) -> None:
    pixels = np.random.default_rng(0).integers(80, 200, (20, 13, 3)).astype(np.uint8)
    check(looked(one_level(tmp_path / "x.tif", pixels), small_model(method), TissueMask(np.ones((20, 13), bool), 1.0)))


@pytest.mark.parametrize("method", METHODS)
def test_one_level_of_many_tiles(method: str, tmp_path: Path, small_model) -> None:
    pixels = np.full((400, 300, 3), 243, np.uint8)
    noise = np.random.default_rng(0).integers(-30, 30, (280, 210, 1))
    pixels[60:340, 50:260] = np.array([200, 110, 160]) + noise
    check(looked(one_level(tmp_path / "x.tif", pixels), small_model(method)))


@pytest.mark.parametrize("method", METHODS)
def test_one_cell_of_tissue(method: str, tmp_path: Path, write_slide, small_model) -> None:
    mask = np.zeros((512, 512), bool)
    mask[250:258, 250:258] = True
    prediction = looked(write_slide(tmp_path / "x.tif", side=512), small_model(method), TissueMask(mask, 1.0))
    check(prediction)
    for found in prediction.maps:
        assert np.isfinite(found.values).sum() <= 4


@pytest.mark.parametrize("method", METHODS)
def test_flat_colour_gives_a_flat_map(method: str, tmp_path: Path, small_model) -> None:
    path = one_level(tmp_path / "x.tif", np.full((384, 384, 3), (200, 120, 170), np.uint8))
    check(looked(path, small_model(method), TissueMask(np.ones((384, 384), bool), 1.0)))


@pytest.mark.parametrize("method", METHODS)
def test_no_tissue_is_one_clear_line(method: str, tmp_path: Path, write_slide, small_model) -> None:
    with pytest.raises(NoTissueError, match=r"x\.tif: no tissue found"):
        looked(write_slide(tmp_path / "x.tif", side=512, tissue=False), small_model(method))
