"""bfloat16: the same on every run, in any order, with any workers; what is drawn and classified stays in float32."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from wsi_attention import registry
from wsi_attention.checkpoint import Classifier
from wsi_attention.inference.batch.classify import classify
from wsi_attention.inference.predict import predict
from wsi_attention.slide.slide import open_slide
from wsi_attention.structures import Prediction
from wsi_attention.tiles.source import SlideSource

METHODS = tuple(name for name in registry.names(registry.MODELS) if not name.endswith("-mnist"))
"""All but the one for images of digits."""


def numbers(prediction: Prediction) -> bytes:
    arrays = [prediction.probabilities, np.float64(prediction.spread)]
    for glimpse in prediction.glimpses:
        arrays += [glimpse.tiles.locations, glimpse.weights, glimpse.attention, glimpse.valid]
    return b"".join(np.ascontiguousarray(one).tobytes() for one in (*arrays, *(one.values for one in prediction.maps)))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_the_same_on_every_run_and_for_any_batch(method: str, tmp_path: Path, write_slide, small_model):
    write_slide(tmp_path / "x.tif", side=512)
    classifier, seen = small_model(method), set()
    for batch in (32, 3, 32):
        torch.manual_seed(batch)
        with open_slide(tmp_path / "x.tif") as slide:
            seen.add(numbers(predict(slide, classifier, batch=batch, precision="bf16")))
    assert len(seen) == 1


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_come_from_float32_logits(method: str, tmp_path: Path, write_slide, small_model) -> None:
    write_slide(tmp_path / "x.tif", side=512)
    model = small_model(method).model
    with open_slide(tmp_path / "x.tif") as slide, torch.inference_mode():
        exact = model(SlideSource(slide), torch.Generator().manual_seed(0))
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(SlideSource(slide), torch.Generator().manual_seed(0))
    assert rough.logits.dtype == rough.spread.dtype == torch.float32
    assert not torch.equal(rough.logits, exact.logits), "something does compute in bfloat16"
    assert not torch.equal(rough.logits, rough.logits.bfloat16().float()), "and rounds no logit to eight bits"
    torch.testing.assert_close(rough.logits.softmax(-1), exact.logits.softmax(-1), atol=0.02, rtol=0)


@pytest.mark.parametrize("method", ["ats", "zoom-in", "trt"])
def test_what_is_read_does_not_depend_on_the_precision(method: str, tmp_path: Path, write_slide, small_model) -> None:
    write_slide(tmp_path / "x.tif", side=768)
    classifier, found = small_model(method), []
    for precision in ("32", "bf16"):
        with open_slide(tmp_path / "x.tif") as slide:
            found.append(predict(slide, classifier, precision=precision))  # type: ignore[arg-type]
    exact, rough = found
    assert np.array_equal(exact.maps[0].values, rough.maps[0].values, equal_nan=True)
    for one, other in zip(exact.glimpses, rough.glimpses, strict=True):
        assert np.array_equal(one.tiles.locations, other.tiles.locations)
        assert method == "trt" or np.array_equal(one.weights, other.weights), "only TRT weighs by features"


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("run_")]
    kinds = ("geojson", "tiles", "heatmaps")
    kept = [path for path in files if path.relative_to(folder).parts[0] in kinds]
    assert kept
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def test_workers_batch_and_order_change_no_byte(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    slides = [write_slide(tmp_path / "in" / f"{name}.tif", seed=seed) for seed, name in enumerate("abc")]
    seen = []
    for workers, batch, order in ((1, 32, 1), (3, 5, -1), (2, 1, 1)):
        out = tmp_path / f"out-{workers}"
        report = classify(slides[::order], out, tiny, workers=workers, batch=batch, precision="bf16")
        assert report.statuses == {"done": 3}, report.failures
        seen.append(contents(out))
    assert seen[0] == seen[1] == seen[2]
