"""Features of tiles outside a prediction are those the prediction was made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from wsi_attention.checkpoint import Classifier
from wsi_attention.errors import InputError, TileReadError
from wsi_attention.inference import features
from wsi_attention.inference.features import has_encoder, tile_features
from wsi_attention.inference.predict import predict
from wsi_attention.methods.method import build_model
from wsi_attention.slide.slide import open_slide
from wsi_attention.structures import TileSet


def test_weighted_features_give_the_label(tmp_path: Path, write_slide, tiny: Classifier, monkeypatch) -> None:
    monkeypatch.setattr(features, "PART", 3)
    with open_slide(write_slide(tmp_path / "x.tif")) as slide:
        prediction = predict(slide, tiny, precision="32")
        (glimpse,) = prediction.glimpses
        found, valid = tile_features(slide, tiny, glimpse.tiles, precision="32")
    assert valid.all()
    assert found.shape == (8, 16)
    mean = torch.from_numpy(glimpse.weights @ found).float()
    with torch.inference_mode():
        logits = tiny.model.classifier(mean)  # type: ignore[operator]
    np.testing.assert_allclose(torch.softmax(logits, -1), prediction.probabilities, atol=1e-5)


def test_tiles_that_cannot_be_read_are_zeros_and_said(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    tiles = TileSet(np.array([[64, 64], [384, 384], [300, 420]]), (32, 32), 1.0)
    with open_slide(write_slide(tmp_path / "x.tif")) as slide:
        whole, _ = tile_features(slide, tiny, tiles, precision="32")
    path = write_slide(tmp_path / "damaged.tif")
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        offset, count = page.dataoffsets[0], page.databytecounts[0]
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(bytes(count))
    with open_slide(path, reader="tiff") as slide:
        found, valid = tile_features(slide, tiny, tiles, precision="32")
    assert valid.tolist() == [False, True, True]
    assert not found[0].any()
    np.testing.assert_allclose(found[1:], whole[1:], atol=1e-6)


def test_no_tile_at_all(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    with open_slide(write_slide(tmp_path / "x.tif")) as slide:
        (glimpse,) = predict(slide, tiny).glimpses
        with pytest.raises(TileReadError, match=r"x\.tif: none of 0 tiles could be read"):
            tile_features(slide, tiny, glimpse.tiles.select(slice(0)))


def test_a_model_without_encoder_is_refused(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    bare = replace(tiny, model=build_model("oaa", 2), name="bare")
    assert has_encoder(tiny)
    assert not has_encoder(bare)
    with open_slide(write_slide(tmp_path / "x.tif")) as slide:
        (glimpse,) = predict(slide, tiny).glimpses
        with pytest.raises(InputError, match="model bare encodes no single tiles"):
            tile_features(slide, bare, glimpse.tiles)
