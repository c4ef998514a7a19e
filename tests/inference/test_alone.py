"""`classify` and `predict_alone` on files of features whose slides are not at hand."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from wsi_attention import Classifier, classify, load_model, predict
from wsi_attention.bags import Bag
from wsi_attention.checkpoint import save_model
from wsi_attention.cli.app import app
from wsi_attention.errors import InputError, ModelError
from wsi_attention.inference.alone import predict_alone
from wsi_attention.inference.effort import Effort
from wsi_attention.inference.results.export_again import export_again
from wsi_attention.methods.method import build_model
from wsi_attention.model_card import ModelCard
from wsi_attention.testing.slides import SlideSpec, write_slide

h5py = pytest.importorskip("h5py")
from bag_files import bag_of, write_features  # noqa: E402

TILES = {"tile_size": 32, "tile_mpp": 1.0}
ENCODER = {"widths": [8, 8], "features": 8, "frozen": True}
WISHES: dict[str, Any] = {"precision": "32", "device": "cpu", "what": ("geojson", "tiles"), "in_process": True}


def saved(folder: Path, method: str, **options: Any) -> Classifier:
    torch.manual_seed(0)
    card = ModelCard(method=method, classes=("benign", "lesion"), arguments=options)
    save_model(folder, build_model(method, 2, **options), card)
    return load_model(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    for name in "ab":
        write_slide(folder / "slides" / f"{name}.svs", SlideSpec(size=(640, 600), seed=ord(name), label="lesion"))
    return folder


@pytest.fixture(scope="module")
def mil(place: Path) -> Classifier:
    return saved(place / "mil", "mil", **TILES, encoder=ENCODER, hidden=8)


@pytest.fixture(scope="module")
def bag(place: Path, mil: Classifier) -> Bag:
    return bag_of(place / "slides" / "a.svs", mil, "a")


@pytest.fixture(scope="module")
def ats(place: Path, bag: Bag) -> Classifier:
    """Attention on a grid of features, as training without slides leaves it."""
    encoder = {"name": f"features:{bag.encoder}", "features": 8, "frozen": True}
    colours = {"mean": [0.0] * 8, "std": [1.0] * 8}
    more = {"attention_widths": [8], "draws": 6, "overview_mpp": 16.0}
    return saved(place / "ats", "ats", **TILES, encoder=encoder, **colours, **more)


def rows(results: Path) -> dict[str, dict[str, str]]:
    with (results / "predictions.csv").open(newline="") as table:
        return {row["slide"]: row for row in csv.DictReader(table)}


def boxes_of(file: Path) -> set[tuple[int, int]]:
    tiles = [one for one in json.loads(file.read_text())["features"] if one["properties"]["objectType"] == "tile"]
    return {tuple(one["geometry"]["coordinates"][0][0]) for one in tiles}


@pytest.mark.parametrize("dialect", ["trident", "clam", "stamp"])
def test_a_bag_alone_gives_the_probabilities_of_the_pixels(
    dialect: str, place: Path, mil: Classifier, bag: Bag, tmp_path: Path
) -> None:
    pixels = predict(place / "slides" / "a.svs", mil, device="cpu", precision="32")
    file = write_features(bag, tmp_path / "bags", dialect)
    alone = predict_alone(file, mil, device="cpu", precision="32")
    tolerance = 5e-4 if dialect == "stamp" else 1e-5
    np.testing.assert_allclose(alone.probabilities, pixels.probabilities, atol=tolerance, rtol=0)
    report = classify(None, tmp_path / "out", mil, features=tmp_path / "bags", **WISHES)
    assert report.statuses == {"done": 1} and report.counters.tiles == 0, report.failures
    assert rows(tmp_path / "out")["a"]["prob_lesion"] == f"{alone.probabilities[1]:.6f}"
    assert boxes_of(tmp_path / "out/geojson/a.geojson") == {*map(tuple, bag.locations.tolist())}
    assert alone.extent == (640, 600) and alone.mpp == 0.5
    assert alone.tissue.area == pytest.approx(len(bag) * bag.side**2, rel=0.2)


def test_attention_on_a_grid_of_features_needs_no_slide(place: Path, ats: Classifier, bag: Bag, tmp_path: Path) -> None:
    file = write_features(bag, tmp_path / "bags", "trident")
    alone = predict_alone(file, ats, device="cpu", precision="32")
    again = predict_alone(file, ats, device="cpu", precision="32")
    np.testing.assert_array_equal(alone.glimpses[0].tiles.locations, again.glimpses[0].tiles.locations)
    assert {*map(tuple, alone.glimpses[0].tiles.locations[0].tolist())} <= {*map(tuple, bag.locations.tolist())}
    exact = predict_alone(file, ats, device="cpu", precision="32", effort=Effort(exact=True))
    beside = predict(place / "slides" / "a.svs", ats, device="cpu", precision="32", features=file, exact=True)
    np.testing.assert_allclose(exact.probabilities, beside.probabilities, atol=1e-6)


def bad(folder: Path, source: Path) -> None:
    """Files that cannot be used, each in another way."""

    def changed(name: str, change: Any) -> None:
        shutil.copy(source, folder / f"{name}.h5")
        with h5py.File(folder / f"{name}.h5", "a") as file:
            change(file)

    def nan(file: Any) -> None:
        file["features"][3, 0] = np.nan

    def encoder(file: Any) -> None:
        file["features"].attrs["encoder"] = "uni_v2"

    def size(file: Any) -> None:
        file["coords"].attrs["patch_size"] = 64

    def empty(file: Any) -> None:
        for name, shape in (("coords", (0, 2)), ("features", (0,))):
            attributes, kind = dict(file[name].attrs), file[name].dtype
            del file[name]
            file.create_dataset(name, shape, kind).attrs.update(attributes)

    for name, change in (("nan", nan), ("encoder", encoder), ("size", size), ("empty", empty)):
        changed(name, change)
    (folder / "cut.h5").write_bytes(source.read_bytes()[:900])


REASONS = {
    "nan": "features holds values that are not finite; extract the features again",
    "encoder": "features of encoder 'uni_v2', the model's is",
    "size": "tiles of 64 pixels, the model reads tiles of 32",
    "empty": "no tiles in it; extract the features again, or take the slide out",
    "cut": "not a readable HDF5 file",
}


def test_a_bad_bag_costs_one_row_and_a_second_run_does_the_rest(mil: Classifier, bag: Bag, tmp_path: Path) -> None:
    file = write_features(bag, tmp_path / "bags", "trident")
    bad(file.parent, file)
    given: list[Any] = ["classify", "--features", tmp_path / "bags", "-m", mil.folder, "-o", tmp_path / "out"]
    given += ["--precision", "32", "--in-process"]
    said = CliRunner().invoke(app, [str(one) for one in given])
    assert said.exit_code == 1, said.output
    assert "6 slides: 1 done, 5 failed" in said.output
    assert said.output.count("left out, for it shows pixels of slides (-i): report") == 1
    found = rows(tmp_path / "out")
    assert found["a"]["status"] == "done" and {*found} == {"a", *REASONS}
    for name, reason in REASONS.items():
        assert found[name]["reason"].startswith(reason) and "\n" not in found[name]["reason"], found[name]
    first = (tmp_path / "out/states/a.json").read_bytes()
    shutil.copy(file, file.with_name("nan.h5"))
    said = CliRunner().invoke(app, [str(one) for one in given])
    assert "6 slides: 2 done, 4 failed" in said.output and "1 had been finished by an earlier run" in said.output
    assert (tmp_path / "out/states/a.json").read_bytes() == first
    changed = replace(bag, features=None if bag.features is None else bag.features[::-1].copy())
    write_features(changed, tmp_path / "bags", "trident")
    said = CliRunner().invoke(app, [str(one) for one in given])
    assert "1 slide done again: another file of features (a)" in said.output
    labels = tmp_path / "labels.csv"
    labels.write_text("slide,label\na,lesion\nnan,benign\n")
    judged = ["evaluate", "-p", str(tmp_path / "out/predictions.csv"), "-l", str(labels)]
    said = CliRunner().invoke(app, judged)
    assert said.exit_code == 0 and "2 slides" in said.output, said.output


def test_stamp_s_own_file_says_what_its_places_are(mil: Classifier, bag: Bag, tmp_path: Path) -> None:
    file = write_features(bag, tmp_path, "stamp")
    with h5py.File(file, "a") as opened:
        for name in [one for one in opened.attrs if one.startswith("wsi_attention_")]:
            del opened.attrs[name]
    own = predict_alone(file, mil, device="cpu", precision="32")
    assert own.provenance["mpp_source"] == "the tiles"
    assert own.mpp == 1.0 and any("places are in pixels of 1 µm, the tiles' own" in note for note in own.notes)
    told = predict_alone(file, mil, mpp=0.5, device="cpu", precision="32")
    np.testing.assert_array_equal(told.glimpses[0].tiles.locations[0], bag.locations)
    assert not any("places are in pixels" in note for note in told.notes)
    np.testing.assert_allclose(own.probabilities, told.probabilities, atol=1e-6)


def test_a_file_that_does_not_say_its_scale_is_taken_at_the_model_s(mil: Classifier, bag: Bag, tmp_path: Path) -> None:
    file = write_features(replace(bag, mpp=None), tmp_path, "clam")
    found = predict_alone(file, mil, device="cpu", precision="32")
    assert found.mpp == 0.5 and any("does not say µm per pixel; 0.5 follows" in note for note in found.notes)


def test_slides_of_one_name_are_named_by_their_folders(mil: Classifier, bag: Bag, tmp_path: Path) -> None:
    for one in ("x", "y"):
        write_features(bag, tmp_path / "bags" / one, "stamp")
    assert classify(None, tmp_path / "out", mil, features=tmp_path / "bags", **WISHES).statuses == {"done": 2}
    assert {*rows(tmp_path / "out")} == {"x/a", "y/a"}


def test_what_only_slides_have(place: Path, mil: Classifier, bag: Bag, tmp_path: Path) -> None:
    write_features(bag, tmp_path / "bags", "trident")
    more = {"attention_widths": [8], "draws": 6, "overview_mpp": 8.0}
    looks = saved(tmp_path / "looks", "ats", **TILES, encoder=ENCODER, **more)

    def refused(model: Classifier, message: str, **wishes: Any) -> None:
        with pytest.raises(InputError, match=message):
            classify(None, tmp_path / "out", model, **{**WISHES, "features": tmp_path / "bags", **wishes})
        assert not (tmp_path / "out").exists()

    refused(looks, r"its attention looks at the slides themselves: give them too \(-i\)")
    refused(mil, "heatmap, report: shows pixels of slides", what=("heatmap", "report"))
    refused(mil, "a feature store keeps what is read from slides", feature_store=tmp_path / "store")
    refused(mil, "series chooses an image of a slide", series="1")
    refused(mil, "no such folder of features", features=tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no slides are given \(-i\), and no features of them"):
        classify((), tmp_path / "out", mil, **WISHES)


def test_pictures_can_be_exported_later_where_the_slide_lies_beside(
    place: Path, mil: Classifier, bag: Bag, tmp_path: Path
) -> None:
    """Of a bag alone a heatmap shows the tiles as tissue; of a slide with features beside it, the slide."""
    write_features(bag, tmp_path / "bags", "trident")
    given = {**WISHES, "features": tmp_path / "bags"}
    classify(None, tmp_path / "alone", mil, **given)
    classify(place / "slides" / "a.svs", tmp_path / "beside", mil, **given)
    told: list[str] = []
    (alone,) = export_again(tmp_path / "alone", "heatmap", tell=told.append)
    (beside,) = export_again(tmp_path / "beside", "heatmap", tell=told.append)
    assert not told and alone.read_bytes() != beside.read_bytes()


def test_logits_that_are_no_numbers_name_the_file(place: Path, bag: Bag, tmp_path: Path) -> None:
    broken = saved(tmp_path / "broken", "mil", **TILES, encoder=ENCODER, hidden=8)
    with torch.no_grad():
        next(broken.model.classifier.parameters()).fill_(torch.nan)
    write_features(replace(bag, encoder=""), tmp_path / "bags", "trident")
    file = next((tmp_path / "bags").rglob("*.h5"))
    with pytest.raises(ModelError, match=r"a\.h5: the model's logits are not finite"):
        predict_alone(file, broken, device="cpu", precision="32")


@pytest.mark.parametrize("dialect", ["clam", "lazyslide"])
def test_a_bag_whose_places_alone_were_corrected_is_done_again(
    dialect: str, mil: Classifier, bag: Bag, tmp_path: Path
) -> None:
    """Places lie in another file than features: the table of a store that is named, or `h5_files/` of CLAM."""

    def write(moved: Bag) -> tuple[str, Path]:
        if dialect == "clam":
            file = write_features(moved, tmp_path / "bags", "clam")
            return str(file.parent), file.parent.parent / "patches" / file.name
        pytest.importorskip("pyarrow")
        from lazyslide_store import write_store

        shutil.rmtree(tmp_path / "bags", ignore_errors=True)
        write_store(moved, tmp_path / "bags" / "a.zarr", model=bag.encoder)
        return f"{tmp_path / 'bags'}#{bag.encoder}_tiles", tmp_path / "bags/a.zarr/shapes/tiles/shapes.parquet"

    def run() -> str:
        asked = ["classify", "--features", folder, "-m", mil.folder, "-o", tmp_path / "out", "--in-process"]
        said = CliRunner().invoke(app, [*map(str, asked), "--precision", "32", "--device", "cpu"])
        assert said.exit_code == 0, said.output
        return said.output

    assert bag.extent is not None
    more = {
        "clam": {"extent": (bag.extent[0] + 64, bag.extent[1])},
        "lazyslide": {"locations": bag.locations[::-1].copy()},
    }
    folder, places = write(replace(bag, **more[dialect]))
    corrected = places.read_bytes()
    write(bag)
    run()
    assert "1 had been finished" in run()
    places.write_bytes(corrected)
    assert "1 slide done again" in run()
