"""`classify` and `predict` with features of files: equal to pixels, and one sentence where they cannot be used."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsi_attention import Classifier, classify, load_model, predict
from wsi_attention.bags import Bag, read_bag
from wsi_attention.bags.expected import Expected, same_encoder
from wsi_attention.checkpoint import save_model
from wsi_attention.errors import InputError, TileReadError
from wsi_attention.inference.stored_features import FeatureFiles
from wsi_attention.methods.method import build_model
from wsi_attention.model_card import ModelCard
from wsi_attention.testing.slides import SlideSpec, write_slide

h5py = pytest.importorskip("h5py")
from bag_files import bag_from, bag_of, write_features  # noqa: E402

TILES = {"tile_size": 32, "tile_mpp": 1.0, "encoder": {"widths": [8, 8], "features": 8, "frozen": True}}
OPTIONS: dict[str, dict[str, Any]] = {
    "mil": {**TILES, "hidden": 8},
    "ats": {**TILES, "overview_mpp": 8.0, "draws": 6, "attention_widths": [8, 8]},
    "zoom-in": {**TILES, "overview_mpp": 16.0, "view_mpps": [4.0], "cells_um": [128.0, 32.0], "draws": 6},
    "trt": {**TILES, "size": 64, "patch": 8, "dim": 24, "depth": 2, "heads": 3, "budget": 12, "overview_mpp": 8.0},
}
DIALECTS = ("trident", "clam", "stamp")


def model(folder: Path, method: str, seed: int = 0, **changes: Any) -> Classifier:
    options = {**OPTIONS[method], **changes}
    torch.manual_seed(seed)
    card = ModelCard(method=method, classes=("benign", "lesion"), arguments=options)
    save_model(folder, build_model(method, 2, **options), card)
    return load_model(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    write_slide(folder / "slides" / "a.svs", SlideSpec(size=(640, 600), seed=1, label="lesion", lesion_scale=8))
    return folder


@pytest.fixture(scope="module")
def mil(place: Path) -> Classifier:
    return model(place / "mil", "mil")


@pytest.fixture(scope="module")
def bag(place: Path, mil: Classifier) -> Bag:
    return bag_of(place / "slides" / "a.svs", mil, "a")


def looked(place: Path, classifier: Classifier, **more: Any) -> Any:
    return predict(place / "slides" / "a.svs", classifier, device="cpu", precision="32", **more)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_probabilities_are_those_of_the_pixels(
    dialect: str, place: Path, mil: Classifier, bag: Bag, tmp_path: Path
) -> None:
    """Features as raw as TRIDENT's, longer than 1, are scaled; STAMP's float16 costs at most 0.0005 here."""
    pixels = looked(place, mil)
    assert pixels.counters.tiles == len(bag) > 20
    file = write_features(replace(bag, features=bag.features * np.float32(7)), tmp_path, dialect)
    stored = looked(place, mil, features=file)
    assert stored.counters.tiles == 0
    tolerance = 5e-4 if dialect == "stamp" else 1e-5
    np.testing.assert_allclose(stored.probabilities, pixels.probabilities, atol=tolerance, rtol=0)
    assert f"features of {len(bag)} tiles were taken from a file" in stored.notes
    np.testing.assert_allclose(np.nansum(stored.maps[0].values), 1, atol=1e-4)


@pytest.mark.parametrize("method", ["ats", "zoom-in", "trt"])
def test_attention_takes_stored_features_and_reads_what_is_missing(method: str, place: Path, tmp_path: Path) -> None:
    classifier = model(tmp_path / "model", method)
    pixels = looked(place, classifier, snap=False)
    whole = bag_from(place / "slides" / "a.svs", pixels, classifier, "a")
    stored = looked(place, classifier, features=write_features(whole, tmp_path / "whole", "trident"), snap=False)
    np.testing.assert_allclose(stored.probabilities, pixels.probabilities, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(stored.glimpses[-1].tiles.locations, pixels.glimpses[-1].tiles.locations)
    views = sum(len(glimpse.tiles) for glimpse in pixels.glimpses[:-1])
    assert stored.counters.tiles == views
    half = replace(whole, locations=whole.locations[::2], features=whole.features[::2])
    some = looked(place, classifier, features=write_features(half, tmp_path / "half", "trident"), snap=False)
    np.testing.assert_allclose(some.probabilities, pixels.probabilities, atol=1e-5, rtol=0)
    assert 0 < some.counters.tiles - views < len(whole)


def test_tiles_move_to_the_nearest_stored_one(place: Path, tmp_path: Path) -> None:
    classifier = model(tmp_path / "model", "ats")
    pixels = looked(place, classifier, snap=False)
    whole = bag_from(place / "slides" / "a.svs", pixels, classifier, "a")
    moved = replace(whole, locations=whole.locations + np.array([9, -11]))
    stored = looked(place, classifier, features=write_features(moved, tmp_path / "moved", "trident"), snap=False)
    assert {*map(tuple, stored.glimpses[0].tiles.locations[0])} <= {*map(tuple, moved.locations)}
    np.testing.assert_allclose(stored.probabilities, pixels.probabilities, atol=1e-5, rtol=0)


def refusals() -> list[Any]:
    nan = np.full((4, 8), np.nan, np.float32)

    def changed(**changes: Any) -> Callable[[Bag], Bag]:
        return lambda bag: replace(bag, **changes)

    def places(bag: Bag) -> Bag:
        return replace(bag, locations=bag.locations + 5000, extent=None)

    def nothing_finite(bag: Bag) -> Bag:
        return replace(bag, locations=bag.locations[:4], features=nan)

    return [
        ("clam", "another-slide", changed(extent=(9000, 9000)), "made for a slide of 9000×9000 pixels, this one has"),
        ("stamp", "outside", places, "tiles lie outside the slide of 640×600 pixels"),
        (
            "trident",
            "tile-size",
            changed(pixels=64),
            "tiles of 64 pixels, the model reads tiles of 32; .* tile_size = 64",
        ),
        ("clam", "scale", changed(side=128), "tiles of 64 µm a side, the model reads tiles of 32 µm"),
        (
            "trident",
            "encoder",
            changed(encoder="uni_v2"),
            "features of encoder 'uni_v2', the model's is 'wsi-attention:",
        ),
        ("stamp", "weights", changed(encoder="wsi-attention:mil:000000000000"), "the model's is 'wsi-attention:"),
        ("trident", "nan", nothing_finite, "holds values that are not finite; extract the features again"),
        (
            "clam",
            "dimension",
            lambda bag: replace(bag, features=bag.features[:, :5]),
            "features of 5 numbers, .* gives 8",
        ),
        ("trident", "none", changed(features=None), "coordinates without features"),
    ]


@pytest.mark.parametrize(("dialect", "name", "change", "message"), refusals(), ids=lambda one: str(one)[:20])
def test_features_that_cannot_be_used(
    dialect: str, name: str, change: Any, message: str, place: Path, mil: Classifier, bag: Bag, tmp_path: Path
) -> None:
    file = write_features(change(bag), tmp_path, dialect)
    with pytest.raises(InputError, match=message) as caught:
        looked(place, mil, features=file)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_none(place: Path, mil: Classifier, bag: Bag, tmp_path: Path) -> None:
    whole = write_features(bag, tmp_path / "whole", "trident")

    def empty(path: Path) -> None:
        path.write_bytes(b"")

    def without_tiles(path: Path) -> None:
        with h5py.File(whole) as old, h5py.File(path, "w") as file:
            for part, shape in (("coords", (0, 2)), ("features", (0,))):  # as TRIDENT leaves a slide without tissue
                file.create_dataset(part, shape, old[part].dtype).attrs.update(old[part].attrs)

    def link(path: Path) -> None:
        path.write_bytes(whole.read_bytes())
        with h5py.File(path, "a") as file:
            del file["features"]
            file["features"] = h5py.ExternalLink(str(whole), "features")

    for name, make, message in (
        ("empty", empty, "not a readable HDF5 file"),
        ("no-tiles", without_tiles, "no tiles in it"),
        ("link", link, "features is a link to another place, which is not followed"),
        ("missing", lambda path: None, "no such file"),
    ):
        make(path := tmp_path / f"{name}.h5")
        with pytest.raises(InputError, match=message) as caught:
            looked(place, mil, features=path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_method_that_encodes_no_single_tiles_refuses_features(
    place: Path, bag: Bag, tmp_path: Path, small_model
) -> None:
    file = write_features(bag, tmp_path, "trident")
    for method in ("oaa", "tnet"):
        with pytest.raises(
            InputError, match=r"encodes no tiles of one size .* methods that take them: ats, grow, mil, trt, zoom"
        ):
            looked(place, small_model(method), features=file)


def test_an_encoder_of_several_turns_takes_no_features_of_one(place: Path, bag: Bag, tmp_path: Path) -> None:
    turned = model(tmp_path / "model", "mil", encoder={**TILES["encoder"], "turns": 8})
    for number, said in enumerate((bag.encoder, "uni_v1", "")):
        file = write_features(replace(bag, encoder=said), tmp_path / str(number), "trident")
        with pytest.raises(InputError, match=r"features of encoder .*, the model's is .* in 8 turns"):
            looked(place, turned, features=file)
    own = write_features(bag_of(place / "slides" / "a.svs", turned, "a"), tmp_path / "own", "trident")
    stored, pixels = looked(place, turned, features=own), looked(place, turned)
    assert stored.counters.tiles == 0 < pixels.counters.tiles
    np.testing.assert_allclose(stored.probabilities, pixels.probabilities, atol=1e-5, rtol=0)


def test_encoders_have_several_names() -> None:
    uni = Expected("uni2-h", "", 1536, 256, 0.5)
    assert same_encoder("uni_v2", uni) and same_encoder("UNI2-h", uni) and same_encoder("", uni)
    assert not same_encoder("uni_v1", uni) and not same_encoder("wsi-attention:x:123", uni)
    for said, own in (
        ("mahmood-conch1_5", "conch-v1.5"),
        ("hoptimus0", "h-optimus-0"),
        ("uni_v1", "hub:MahmoodLab/UNI"),
    ):
        assert same_encoder(said, Expected(own, "", 8, 256, 0.5)), said
    own = Expected("small", "ab" * 32, 8, 256, 0.5)
    assert same_encoder("wsi-attention:any:abababababab", own)
    assert not same_encoder("wsi-attention:any:cdabababab", own) and not same_encoder("uni_v2", own)
    bare = Expected("wsi-attention:demo:123", "", 8, 256, 0.5)
    assert same_encoder("wsi-attention:demo:123", bare) and not same_encoder("wsi-attention:demo:124", bare)


def test_trident_writes_none_where_its_encoder_has_no_name(bag: Bag, tmp_path: Path) -> None:
    file = write_features(replace(bag, encoder=""), tmp_path, "trident")
    with h5py.File(file, "a") as opened:
        opened["features"].attrs["encoder"] = "None"
    assert read_bag(file).encoder == ""


def test_files_are_found_by_the_slide_s_name(tmp_path: Path) -> None:
    for name in ("h5_files/a.h5", "patches/a.h5", "sub/b.c.h5", "patches/d_patches.h5", ".tmp-e.h5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = FeatureFiles(tmp_path)
    assert files.of("x/a.svs") == files.of("a") == tmp_path / "h5_files/a.h5"
    assert files.of("b.c.tiff") == tmp_path / "sub/b.c.h5"
    assert files.of("d.svs") is files.of("e") is None
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.h5").touch()
    with pytest.raises(InputError, match=r"'a' could be .* give the folder of one encoder's features"):
        FeatureFiles(tmp_path).of("a")
    with pytest.raises(InputError, match="no such folder of features"):
        FeatureFiles(tmp_path / "none")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match=r"no .h5 file with features"):
        FeatureFiles(tmp_path / "nothing")


def test_a_batch_with_features_and_what_a_second_run_repeats(
    place: Path, mil: Classifier, bag: Bag, tmp_path: Path
) -> None:
    write_slide(tmp_path / "slides" / "b.svs", SlideSpec(size=(640, 600), seed=2))
    (tmp_path / "slides" / "a.svs").symlink_to(place / "slides" / "a.svs")
    file = write_features(bag, tmp_path / "bags", "trident")
    wishes = {"features": tmp_path / "bags", "precision": "32", "device": "cpu", "what": "tiles", "in_process": True}
    report = classify(tmp_path / "slides", tmp_path / "out", mil, **wishes)
    assert report.statuses == {"done": 2}, report.failures
    with (tmp_path / "out" / "predictions.csv").open(newline="") as table:
        rows = {row["slide"]: row for row in csv.DictReader(table)}
    assert "features of" in rows["a"]["notes"] and "features of" not in rows["b"]["notes"]
    assert float(rows["a"]["prob_lesion"]) == pytest.approx(looked(place, mil).probabilities[1], abs=1e-5)
    assert classify(tmp_path / "slides", tmp_path / "out", mil, **wishes).kept == 2
    write_features(replace(bag, extent=(9000, 9000)), tmp_path / "bags", "trident")
    again = classify(tmp_path / "slides", tmp_path / "out", mil, **wishes)
    assert again.kept == 1 and "made for a slide of 9000×9000" in dict(again.failures)["a"]
    file.unlink()
    with pytest.raises(InputError, match=r"no .h5 file"):
        classify(tmp_path / "slides", tmp_path / "out", mil, **wishes)


def test_features_of_other_slides_alone_are_refused(place: Path, mil: Classifier, bag: Bag, tmp_path: Path) -> None:
    write_features(replace(bag, name="other"), tmp_path / "bags", "stamp")
    with pytest.raises(InputError, match="1 feature files, none of them of one of the 1 slides"):
        classify(place / "slides", tmp_path / "out", mil, features=tmp_path / "bags")


def test_a_model_without_an_encoder_says_so(place: Path, bag: Bag, tmp_path: Path) -> None:
    classifier = model(tmp_path / "bare", "mil", encoder={"name": f"features:{bag.encoder}", "features": 8})
    assert not [name for name in classifier.model.state_dict() if name.startswith("encoder")]
    with pytest.raises(InputError, match="has no encoder of its own: give features of the slides with --features"):
        classify(place / "slides", tmp_path / "out", classifier)
    file = write_features(bag, tmp_path, "trident")
    assert looked(place, classifier, features=file).counters.tiles == 0
    other = write_features(replace(bag, encoder="wsi-attention:mil:000000000000"), tmp_path / "other", "trident")
    with pytest.raises(InputError, match="features of encoder 'wsi-attention:mil:000000000000', the model's is"):
        looked(place, classifier, features=other)
    ats = model(tmp_path / "ats", "ats", encoder={"name": f"features:{bag.encoder}", "features": 8})
    far = replace(bag, locations=bag.locations[:1] * 0, features=bag.features[:1])
    with pytest.raises(TileReadError, match="no feature is stored near the tile at"):
        looked(place, ats, features=write_features(far, tmp_path / "far", "trident"))
