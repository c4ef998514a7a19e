"""A slide is compared with those of the training: in a table's row, in its notes, the same with a store of features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from wsi_attention import predict
from wsi_attention.certainty.familiar import Familiar, Group
from wsi_attention.certainty.fitted import Certainty
from wsi_attention.certainty.traits import Traits
from wsi_attention.checkpoint import Classifier
from wsi_attention.export.table import figures
from wsi_attention.inference import predict as predicting
from wsi_attention.structures import Prediction


def like(traits: Traits) -> Familiar:
    """What is usual: these traits, and not more than 0.3 off."""
    groups = {name: Group(values, np.eye(len(values)) / 0.3) for name, values in traits.items()}
    return Familiar(groups, 20, 20)


def look(path: Path, classifier: Classifier, **more: Any) -> Prediction:
    return predict(path, classifier, device="cpu", precision="32", **more)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Traits]:
    """The traits of every slide that is compared."""
    kept: list[Traits] = []
    plain = predicting.traits_of

    def keeping(*given: Any) -> Traits:
        kept.append(plain(*given))
        return kept[-1]

    monkeypatch.setattr(predicting, "traits_of", keeping)
    return kept


def test_a_row_tells_how_unlike_the_training_a_slide_is(
    tiny: Classifier, write_slide: Callable[..., Path], tmp_path: Path, seen: list[Traits]
) -> None:
    path = write_slide(tmp_path / "a.tiff", seed=1)
    plain = look(path, tiny)
    assert plain.unlike is None and figures(plain)["unlike_training"] == "" and not seen
    anything = like({"stain": np.zeros(6)})
    look(path, replace(tiny, certainty=Certainty(familiar=anything)))
    assert set(seen[0]) == {"stain", "structure", "detail", "features"}
    knowing = replace(tiny, certainty=Certainty(familiar=like(seen[0])))
    same = look(path, knowing)
    assert same.unlike == 0 and same.notes == plain.notes and figures(same)["unlike_training"] == "0.000"
    assert np.array_equal(same.probabilities, plain.probabilities) and same.counters.tiles == plain.counters.tiles
    other = look(write_slide(tmp_path / "b.tiff", seed=2), knowing)
    assert other.unlike is not None and 0 < other.unlike < 5


def test_other_stain_is_told_in_the_notes(
    tiny: Classifier, write_slide: Callable[..., Path], tmp_path: Path, seen: list[Traits]
) -> None:
    path = write_slide(tmp_path / "a.tiff", seed=1)
    look(path, replace(tiny, certainty=Certainty(familiar=like({"stain": np.zeros(6)}))))
    knowing = replace(tiny, certainty=Certainty(familiar=like({"stain": seen[0]["stain"]})))
    with tifffile.TiffFile(path) as file:
        levels = [255 - (255 - page.asarray() // 2 * 2) // 2 for page in file.pages]
    scale = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(tmp_path / "pale.tiff") as writer:
        for level in levels:
            writer.write(level.astype(np.uint8), tile=(128, 128), photometric="rgb", compression="zlib", **scale)
    pale = look(tmp_path / "pale.tiff", knowing)
    assert pale.unlike is not None and pale.unlike > 1
    assert "unlike the slides of the training by its colours" in pale.notes[-1]


@pytest.mark.parametrize("effort", [{"certify": "proof"}, {"exact": True}, {"tolerance": 0.2}])
def test_another_effort_is_compared_by_an_ordinary_look(
    tiny: Classifier, write_slide: Callable[..., Path], tmp_path: Path, seen: list[Traits], effort: dict[str, Any]
) -> None:
    path = write_slide(tmp_path / "a.tiff", seed=1)
    knowing = replace(tiny, certainty=Certainty(familiar=like({"detail": np.zeros(4), "features": np.zeros(8)})))
    plain, other = look(path, knowing, snap=False), look(path, knowing, snap=False, **effort)
    assert len(other.glimpses[-1].weights) != len(plain.glimpses[-1].weights)
    assert other.unlike == plain.unlike
    for name in ("detail", "features"):
        np.testing.assert_array_equal(seen[0][name], seen[1][name])
    assert np.array_equal(other.probabilities, look(path, tiny, snap=False, **effort).probabilities)


def test_a_store_of_features_changes_nothing(
    tiny: Classifier, write_slide: Callable[..., Path], tmp_path: Path, seen: list[Traits]
) -> None:
    path = write_slide(tmp_path / "a.tiff", seed=1)
    knowing = replace(tiny, certainty=Certainty(familiar=like({"detail": np.zeros(4), "stain": np.zeros(6)})))
    first, again = (look(path, knowing, feature_store=tmp_path / "store") for _ in range(2))
    assert again.unlike == first.unlike
    np.testing.assert_array_equal(seen[0]["detail"], seen[1]["detail"])
