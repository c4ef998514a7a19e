"""What `from wsi_attention import …` offers: which names, that each is documented, and the mistakes newcomers make."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wsi_attention
from wsi_attention import (
    Classifier,
    Prediction,
    classify,
    evaluate,
    export_results,
    load_model,
    open_slide,
    predict,
    registry,
    tile_features,
    train,
)
from wsi_attention.config import as_recipe, shipped_recipes
from wsi_attention.errors import InputError, ModelError, SlideOpenError
from wsi_attention.export import GeoJSONExporter
from wsi_attention.export.chosen import exporters_of
from wsi_attention.options import Options
from wsi_attention.testing import example_prediction

ROOT = Path(__file__).resolve().parent.parent
SLIDE = str(ROOT / "sample_slides" / "sample_01.svs")
NAMES = [
    "AttentionMap",
    "Classifier",
    "Counters",
    "Evaluation",
    "Glimpse",
    "Grid",
    "Prediction",
    "Recipe",
    "Report",
    "Slide",
    "SlideSource",
    "TensorSource",
    "TileSet",
    "TissueMask",
    "TrainingResult",
    "View",
    "WsiAttentionError",
    "classify",
    "evaluate",
    "export_results",
    "interval",
    "load_model",
    "open_cluster",
    "open_slide",
    "predict",
    "tile_features",
    "train",
]
"""A name leaves only after a release of DeprecationWarning."""
ANSWER = re.compile(r"(Return|Yield)s? |.*\n    (Returns|Yields):", re.DOTALL)


class Table:
    """What matters of a data frame here: its columns, and that it can be written."""

    columns = ("slide", "label")

    def to_csv(self, path: str) -> None:
        """Write the table."""

    def __iter__(self) -> Any:
        return iter(self.columns)


@pytest.fixture(scope="module")
def demo() -> Classifier:
    return load_model("demo")


@pytest.fixture(scope="module")
def prediction(demo: Classifier) -> Prediction:
    return predict(SLIDE, demo, device="cpu")


def test_inventory() -> None:
    assert sorted(wsi_attention.__all__) == NAMES
    assert dir(wsi_attention) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_documented(name: str) -> None:
    """Every parameter of a function, what it returns, and every attribute of a value stands in the docstring."""
    value = getattr(wsi_attention, name)
    text = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    assert text and text.strip(), f"{name} has no docstring"
    if inspect.isclass(value):
        missing = undocumented(text, [one.name for one in fields_of(value)])
    else:
        missing = undocumented(text, list(inspect.signature(value).parameters))
        assert ANSWER.match(text), f"{name} does not say what it returns"
    assert not missing, f"{name} does not say what {', '.join(missing)} is"


def fields_of(value: type) -> tuple[dataclasses.Field[Any], ...]:
    """The fields of a value; those of options are documented where they are declared."""
    if not dataclasses.is_dataclass(value):
        return ()
    fields = dataclasses.fields(value)
    if issubclass(value, Options):
        assert all(one.metadata for one in fields)
        return ()
    return fields


def undocumented(text: str, names: list[str]) -> list[str]:
    said = {word for line in re.findall(r"^ +([\w, ]+):", text, re.MULTILINE) for word in line.split(", ")}
    said |= set(re.findall(r"`(\w+)`", text))
    return [name for name in names if name not in said]


def test_the_test_itself_finds_what_is_undocumented() -> None:
    text = "Return a number.\n\n    Args:\n        one, two: numbers.\n"
    assert undocumented(text, ["one", "two", "three"]) == ["three"]
    assert not ANSWER.match("Do something.")


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = wsi_attention.nonsense


def test_every_name_comes_from_a_module_that_loads_on_first_use() -> None:
    code = (
        "import sys, wsi_attention as w; before = 'torch' in sys.modules; w.open_slide; w.interval; w.Prediction;"
        "light = 'torch' in sys.modules; w.predict; print(before, light, 'torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False", "True"]


@pytest.mark.parametrize("group", [registry.READERS, registry.MODELS, registry.EXPORTERS])
def test_built_ins_come_through_entry_points(group: str) -> None:
    assert registry.names(group)
    for name in registry.names(group):
        assert callable(registry.load(group, name)), name


def test_unknown_entry_names_what_there_is() -> None:
    with pytest.raises(InputError, match=r"no reader named 'nope'; installed: .*openslide"):
        registry.load(registry.READERS, "nope")


def nowhere() -> Classifier:
    return dataclasses.replace(load_model("demo"), folder=None, name="mine")


def test_a_path_and_a_name_will_do(demo: Classifier, prediction: Prediction) -> None:
    """The same prediction as from a slide and a model that were opened before, which stay open."""
    with open_slide(SLIDE) as slide:
        opened = predict(slide, demo, device="cpu")
        assert slide.read((0, 0), 2, (8, 8)).shape == (8, 8, 3)
    for found in (predict(Path(SLIDE), "demo", device="cpu"), prediction):
        assert np.array_equal(found.probabilities, opened.probabilities)
        assert np.array_equal(found.glimpses[0].tiles.boxes, opened.glimpses[0].tiles.boxes)


def test_pixels_will_do(demo: Classifier) -> None:
    with pytest.raises(ValueError, match=r"array: .*give µm per pixel"):
        predict(np.full((64, 64, 3), 240, np.uint8), demo)


def test_what_was_opened_is_closed(demo: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    original = wsi_attention.Slide.close
    monkeypatch.setattr(wsi_attention.Slide, "close", lambda self: (closed.append(self.path), original(self)))
    predict(SLIDE, demo, device="cpu")
    assert closed == [SLIDE]
    with pytest.raises(InputError, match="tolerance"):
        predict(SLIDE, demo, budget=3)
    assert closed == [SLIDE]


def test_features_of_a_path_and_a_glimpse(demo: Classifier, prediction: Prediction) -> None:
    tiles = prediction.glimpses[-1].tiles
    few = dataclasses.replace(tiles, locations=tiles.locations[:, :2])
    with open_slide(SLIDE) as slide:
        expected, valid = tile_features(slide, demo, few, device="cpu")
    glimpse = dataclasses.replace(prediction.glimpses[-1], tiles=few)
    found, there = tile_features(SLIDE, "demo", glimpse, device="cpu")
    assert np.array_equal(found, expected)
    assert valid.all()
    assert there.all()
    with pytest.raises(InputError, match=r"tiles must be a TileSet or a Glimpse, .*; got Prediction"):
        tile_features(SLIDE, demo, prediction)


def test_a_whole_batch_by_names(tmp_path: Path) -> None:
    """One path, one exporter, the model's name; then what the results folder is good for."""
    results = tmp_path / "results"
    report = classify(SLIDE, str(results), "demo", what="tiles", device="cpu", in_process=True)
    assert report.statuses == {"done": 1}
    assert [path.name for path in (results / "tiles").iterdir()] == ["sample_01.csv"]
    again = classify((path for path in [SLIDE]), results, "demo", what=GeoJSONExporter(top=2), in_process=True)
    assert again.statuses == {"done": 1}
    written = export_results(str(results), ["geojson", "tiles"], "sample_01")
    assert [path.relative_to(results).as_posix() for path in written] == [
        "geojson/sample_01.geojson",
        "tiles/sample_01.csv",
    ]
    assert all(path.is_file() for path in written)
    labels = tmp_path / "labels.csv"
    labels.write_text("slide,label\nsample_01,lesion\n", encoding="utf-8")
    for model in (None, "demo", load_model("demo")):
        assert evaluate(str(results), str(labels), model=model).scores.accuracy == 1.0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: open_slide(123), "a slide is a path, .*got int"),
        (lambda: predict(None, "demo"), "a slide is a path, .*got NoneType"),
        (lambda: predict("demo", SLIDE), r"sample_01.svs is a file; a model is a folder"),
        (lambda: predict(SLIDE, None), r"a model is a folder .*\(demo, lymph-node-mosaic\); got NoneType"),
        (lambda: load_model(3), r"a model is a folder that train wrote, or .*\(demo, lymph-node-mosaic\); got int"),
        (lambda: classify(None, "out", "demo"), "inputs must be the path of a slide, .*got NoneType"),
        (lambda: classify([1], "out", "demo"), "inputs must be the path of a slide, .*got int"),
        (lambda: classify(Table(), "out", "demo"), r"inputs must be .*got Table; write it to a file first: \.to_csv"),
        (lambda: classify(SLIDE, "out", "demo", slides_csv=Table()), r"slides_csv must be .*got Table; write it"),
        (lambda: classify(SLIDE, None, "demo"), "results must be the path of a folder, got NoneType"),
        (lambda: classify(SLIDE, "out", 5), "a model is a folder .*got int"),
        (lambda: classify(SLIDE, "out", "demo", what=7), "7 is no exporter"),
        (lambda: classify(SLIDE, "out", "demo", what="geojsn"), "no exporter named 'geojsn'; installed: .*geojson"),
        (lambda: export_results(None), "results must be the path of a folder that classify wrote, got NoneType"),
        (lambda: evaluate(Table(), "labels.csv"), r"predictions must be the path .*got Table; write it"),
        (lambda: evaluate("out", Table()), r"labels must be the path of a CSV, got Table; write it"),
        (lambda: evaluate("out", "labels.csv", model=4), "model must be the path of a model folder, got int"),
        (lambda: evaluate("out", "labels.csv", model=nowhere()), "model mine has no folder .*; save it first"),
        (lambda: train(Table(), "slides", "out"), r"labels must be the path of a CSV, got Table; write it"),
        (lambda: train("labels.csv", {"a": 1}, "out"), "slides must be the path of a folder or a slide, got dict"),
        (lambda: train("labels.csv", "slides", None), "output must be the path of the model folder to write"),
        (lambda: train("labels.csv", "slides", "out", recipe=1), "a recipe is a Recipe, a TOML file or one of ats,"),
        (lambda: train("labels.csv", "slides", "out", recipe="atz"), "recipe atz does not exist; shipped recipes: ats"),
        (lambda: wsi_attention.View(SLIDE, 2.0), "an open slide is needed here, got str; open it first"),
        (lambda: wsi_attention.SlideSource(SLIDE), "an open slide is needed here, got str; open it first"),
    ],
)
def test_mistakes_end_in_one_sentence(
    call: Callable[[], object], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((InputError, ModelError, SlideOpenError), match=says) as raised:
        call()
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_recipes_by_name_file_and_value(tmp_path: Path) -> None:
    for name in shipped_recipes():
        assert as_recipe(as_recipe(name)) == as_recipe(name)
    file = tmp_path / "mine.toml"
    file.write_text('method = "ats"\nepochs = 3\n', encoding="utf-8")
    assert as_recipe(file) == as_recipe(str(file)) == wsi_attention.Recipe(method="ats", epochs=3)
    assert as_recipe(None).method == wsi_attention.Recipe.method


@pytest.mark.parametrize("name", registry.names(registry.EXPORTERS))
def test_exporters_write_to_a_path_given_as_text(name: str, tmp_path: Path) -> None:
    (exporter,) = exporters_of(name)
    exporter(example_prediction(), str(tmp_path / "one"))
    assert (tmp_path / "one").exists()
