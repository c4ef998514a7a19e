"""One slide and one model."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wsi_attention.checkpoint import Classifier, build_model, load_model, save_model
from wsi_attention.devices import precision_on
from wsi_attention.errors import InputError, MissingMppError, ModelError, NoTissueError, TileReadError
from wsi_attention.geometry import OVERVIEW_PIXELS, Box
from wsi_attention.inference.predict import look, overview_of, predict, prepare, seed_of, shown_of
from wsi_attention.methods import overview
from wsi_attention.model_card import ModelCard
from wsi_attention.slide.readers.array import ArrayLevels
from wsi_attention.slide.slide import open_slide
from wsi_attention.structures import Prediction, TileBatch, TileSet, TissueMask
from wsi_attention.tiles.source import SlideSource


def exactly(prediction: Prediction) -> tuple[object, ...]:
    (glimpse,) = prediction.glimpses
    (found,) = prediction.maps
    arrays = (prediction.probabilities, glimpse.tiles.locations, glimpse.weights, found.values)
    return (prediction.label, prediction.spread, *(array.tobytes() for array in arrays))


def test_a_prediction_says_where_it_comes_from(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    with open_slide(write_slide(tmp_path / "x.tif")) as slide:
        prediction = predict(slide, tiny)
        fingerprint = slide.fingerprint
    assert prediction.probabilities.dtype == np.float64
    assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-12)
    assert (prediction.extent, prediction.mpp, prediction.status) == ((768, 768), pytest.approx(0.5), "done")
    known = {
        "fingerprint": fingerprint,
        "weights_sha256": tiny.weights_sha256,
        "precision": precision_on(torch.device("cpu"), "auto"),
        "reader": "tiff",
    }
    assert known.items() <= prediction.provenance.items()
    assert prediction.provenance["seed"] == seed_of(fingerprint, tiny.weights_sha256)
    assert {"wsi-attention", "torch", "openslide-bin"} <= prediction.provenance["versions"].keys()
    assert prediction.counters.tiles == 8
    assert prediction.overview_pixels == 96 * 96
    assert "bounds" not in prediction.provenance


def test_a_prediction_knows_the_bounds_of_its_slide(tiny: Classifier) -> None:
    pixels = np.full((512, 640, 3), (200, 150, 190), np.uint8)
    bounds = Box(64, 32, 500, 400)
    with open_slide(ArrayLevels((pixels,), bounds=bounds), mpp=0.5) as slide:
        prediction = predict(slide, tiny)
    assert prediction.bounds == (64, 32)
    assert prediction.provenance["bounds"] == [64, 32, 500, 400]


def test_seed_is_the_head_of_a_hash() -> None:
    digest = hashlib.sha256(b"ab" + b"cd").hexdigest()
    assert seed_of("ab", "cd") == int(digest[:16], 16)
    assert torch.Generator().manual_seed(2**64 - 1).initial_seed() == 2**64 - 1


def test_same_slide_same_prediction(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    write_slide(tmp_path / "x.tif")
    seen = set()
    for batch in (32, 3, 1):
        torch.manual_seed(batch)
        with open_slide(tmp_path / "x.tif") as slide:
            seen.add(exactly(predict(slide, tiny, batch=batch)))
    assert len(seen) == 1
    with open_slide(tmp_path / "x.tif") as slide:
        assert exactly(predict(slide, replace(tiny, weights_sha256="cd" * 32))) not in seen


def test_a_mask_confines_attention(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    mask = np.zeros((12, 12), bool)
    mask[5:8, 5:8] = True
    with open_slide(write_slide(tmp_path / "x.tif")) as slide:
        prediction = predict(slide, tiny, tissue=TissueMask(mask, 64.0, "mine.png"))
        centres = prediction.glimpses[0].tiles.locations[0] + 16
        assert prediction.tissue.source == "mine.png"
        with pytest.raises(NoTissueError, match=r"x\.tif: no tissue"):
            predict(slide, tiny, tissue=TissueMask(np.zeros((12, 12), bool), 64.0))
    assert (centres >= 5 * 64).all()
    assert (centres <= 8 * 64).all()


def test_slides_without_tissue_or_mpp_are_errors(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    with open_slide(write_slide(tmp_path / "white.tif", tissue=False)) as slide, pytest.raises(NoTissueError):
        predict(slide, tiny)
    with open_slide(write_slide(tmp_path / "silent.tif", mpp=None)) as slide, pytest.raises(MissingMppError):
        predict(slide, tiny)
    with open_slide(tmp_path / "silent.tif", mpp=0.5) as slide:
        assert predict(slide, tiny).provenance["mpp_source"] == "given"


@pytest.mark.parametrize("broken", [1, 4, 5])
def test_unreadable_tiles_leave_the_bag(
    tmp_path: Path, write_slide, tiny: Classifier, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    with open_slide(write_slide(tmp_path / "x.tif")) as slide:
        source = prepare(slide, tiny)
        read = source.read

        def damaged(tiles: TileSet) -> TileBatch:
            batch = read(tiles)
            valid = batch.valid.clone()
            valid[:, :broken] = False
            source.failures.append("tile at (3, 4): broken JPEG")
            return replace(batch, valid=valid)

        monkeypatch.setattr(source, "read", damaged)
        text = f"{broken} of 8 tiles could not be read: tile at \\(3, 4\\): broken JPEG"
        if broken > 4:
            with pytest.raises(TileReadError, match=rf"x\.tif: {text}"):
                look(slide, source, tiny)
            return
        prediction = look(slide, source, tiny)
    assert prediction.status == "partial"
    assert text.replace("\\", "") in prediction.shortfalls
    assert (prediction.glimpses[0].weights[:broken] == 0).all()


def test_wrong_weights_and_devices(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    class Broken(torch.nn.Module):
        tile_mpp, overview_mpp, overview_pixels = 0.5, tiny.model.overview_mpp, OVERVIEW_PIXELS
        map_stride, encoder, preprocess = 1, None, torch.nn.Identity()

        def forward(self, source: object, generator: object) -> object:
            output = tiny.model(source, generator)
            return replace(output, logits=output.logits * torch.nan)

    with open_slide(write_slide(tmp_path / "x.tif")) as slide:
        with pytest.raises(ModelError, match="logits are not finite"):
            predict(slide, replace(tiny, model=Broken()))
        with pytest.raises(InputError, match=r"no device 'abacus' here; found: cpu"):
            predict(slide, tiny, device="abacus")
        with pytest.raises(InputError, match="no precision '8'; possible: auto, 32, bf16"):
            predict(slide, tiny, precision="8")  # type: ignore[arg-type]


def test_bf16_is_used_where_asked_for(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    with open_slide(write_slide(tmp_path / "x.tif")) as slide:
        rough, exact = predict(slide, tiny, precision="bf16"), predict(slide, tiny, precision="32")
    assert rough.provenance["precision"] == "bf16"
    assert rough.probabilities == pytest.approx(exact.probabilities, abs=0.05)


def test_an_overview_beyond_what_is_held_whole_is_seen_in_strips(
    tmp_path: Path, write_slide, small_model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same tiles, same label, no note that the view was coarser, and nothing large in memory."""
    classifier = small_model("ats")
    with open_slide(write_slide(tmp_path / "x.tif")) as slide:
        source = prepare(slide, classifier)
        whole = look(slide, source, classifier)
        monkeypatch.setattr(overview, "BLOCK_PIXELS", 2_000)
        split = SlideSource(slide, tissue=source.tissue_mask, whole=3_000)
        strips = look(slide, split, classifier)
    assert strips.remarks == ()
    assert strips.overview_pixels == whole.overview_pixels == 96 * 96
    np.testing.assert_array_equal(strips.glimpses[0].tiles.locations, whole.glimpses[0].tiles.locations)
    np.testing.assert_allclose(strips.probabilities, whole.probabilities, atol=1e-6)
    assert overview_of(split, classifier).size / 3 <= 3_000


@pytest.mark.parametrize("method", ["ats", "zoom-in"])
def test_the_recipe_says_how_large_the_overview_may_be(
    method: str, tmp_path: Path, write_slide, small_arguments
) -> None:
    arguments = {**small_arguments[method], "overview_pixels": 400}
    card = ModelCard(method=method, classes=("benign", "lesion"), arguments=arguments)
    save_model(tmp_path / "model", build_model(method, 2, **arguments), card)
    classifier = load_model(tmp_path / "model")
    assert classifier.config["options"]["overview_pixels"] == 400
    with open_slide(write_slide(tmp_path / "x.tif")) as slide:
        prediction = predict(slide, classifier)
    assert prediction.overview_pixels <= 400
    assert "would exceed 0.0004 Mpx" in prediction.shortfalls[0]


def test_a_target_whose_numbers_overflow_gives_no_result(tiny: Classifier) -> None:
    said = {"kind": "regression", "columns": ["age", "size"], "mean": [1e308, 0.0], "deviation": [1e308, 1.0]}
    wild = Classifier(tiny.model, ("age", "size"), {**tiny.config, "target": said}, "", "wild")
    with pytest.raises(ModelError, match=r"^x\.svs: the model's numbers are not finite"):
        shown_of(wild, torch.tensor([3.0, 0.0]), "x.svs")
