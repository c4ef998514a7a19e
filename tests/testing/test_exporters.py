from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsi_attention import registry
from wsi_attention.defaults import EXPORTS
from wsi_attention.errors import InputError
from wsi_attention.export.chosen import exporter_of, name_of
from wsi_attention.protocols import Exporter
from wsi_attention.structures import Prediction
from wsi_attention.testing.exporters import EXAMPLES, ExporterContract, example_prediction


class Sound:
    suffix = "labels/{slide}.txt"

    def __call__(self, prediction: Prediction, path: Path) -> None:
        path.write_text(f"{prediction.slide} {prediction.label}\n")


class TestSoundExporter(ExporterContract):
    exporter = Sound()


class Random(Sound):
    def __call__(self, prediction: Prediction, path: Path) -> None:
        path.write_bytes(np.random.default_rng().bytes(16))


class Beside(Sound):
    def __call__(self, prediction: Prediction, path: Path) -> None:
        super().__call__(prediction, path)
        path.with_suffix(".extra").write_text("x")


class Appending(Sound):
    def __call__(self, prediction: Prediction, path: Path) -> None:
        with path.open("a") as file:
            file.write(prediction.slide)


class Meddling(Sound):
    def __call__(self, prediction: Prediction, path: Path) -> None:
        super().__call__(prediction, path)
        prediction.probabilities[:] = 0.5


class Outside(Sound):
    suffix = "../{slide}.txt"


class OneForAll(Sound):
    suffix = "labels/all.txt"


@pytest.mark.parametrize(
    ("bad", "test"),
    [
        (Random(), "test_same_prediction_gives_same_bytes"),
        (Beside(), "test_writes_every_kind_of_prediction_and_nothing_beside"),
        (Appending(), "test_writes_over_what_an_interrupted_run_left"),
        (Meddling(), "test_leaves_the_prediction_alone"),
    ],
)
def test_the_suite_finds_a_bad_exporter(bad: Exporter, test: str, tmp_path: Path) -> None:
    suite = type("Suite", (ExporterContract,), {"exporter": bad})()
    with pytest.raises(AssertionError):
        getattr(suite, test)(tmp_path)


@pytest.mark.parametrize("bad", [Outside(), OneForAll()])
def test_the_suite_finds_a_bad_suffix(bad: Exporter) -> None:
    suite = type("Suite", (ExporterContract,), {"exporter": bad})()
    with pytest.raises(AssertionError):
        suite.test_suffix_names_one_place_per_slide_inside_the_folder()


def test_built_in_exporters_are_registered() -> None:
    assert set(EXPORTS) <= set(registry.names(registry.EXPORTERS))
    for name in registry.names(registry.EXPORTERS):
        assert isinstance(exporter_of(name), Exporter)
        assert name_of(exporter_of(name)) == name


@pytest.mark.parametrize("name", EXPORTS)
def test_a_path_may_be_text(name: str, tmp_path: Path) -> None:
    exporter, prediction = exporter_of(name), example_prediction()
    exporter(prediction, tmp_path / "path")
    exporter(prediction, str(tmp_path / "text"))  # type: ignore[arg-type]
    for written in sorted((tmp_path / "path").rglob("*")) or [tmp_path / "path"]:
        twin = tmp_path / "text" / written.relative_to(tmp_path / "path")
        assert written.is_dir() or twin.read_bytes() == written.read_bytes()


def test_examples_have_what_exporters_get_wrong() -> None:
    usual = example_prediction()
    boxes, valid = usual.glimpses[0].tiles.boxes[0], usual.glimpses[0].valid
    assert usual.bounds != (0, 0)
    assert (boxes[:, 0] < 0).any() and (boxes[:, 0] + boxes[:, 2] > usual.extent[0]).any()
    assert (boxes[:, 1] + boxes[:, 3] > usual.extent[1]).any()
    assert valid.any() and not valid.all()
    assert len(np.unique(boxes, axis=0)) < len(boxes)
    assert np.isnan(usual.maps[0].values).any()
    assert np.nansum(usual.maps[0].values) == pytest.approx(1, rel=1e-5)
    assert example_prediction(kind="one_cell").maps[0].values.shape == (1, 1)
    assert example_prediction(kind="no_glimpses").glimpses == ()
    assert not example_prediction(kind="all_failed").glimpses[0].valid.any()
    for kind in EXAMPLES:
        weights = [glimpse.weights.sum() for glimpse in example_prediction(kind=kind).glimpses]
        assert all(total == pytest.approx(1) or total == 0 for total in weights)


def test_an_unknown_example_is_refused() -> None:
    with pytest.raises(InputError, match="possible: usual, wide"):
        example_prediction(kind="odd")
