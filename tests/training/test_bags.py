"""Training on feature files: beside slides, and on bags alone; deployed on raw slides with the same numbers."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsi_attention import Classifier, load_model, predict, train
from wsi_attention.bags import Bag, read_bag
from wsi_attention.checkpoint import save_model
from wsi_attention.config import Recipe
from wsi_attention.errors import InputError
from wsi_attention.inference.alone import predict_alone
from wsi_attention.inference.effort import Effort
from wsi_attention.methods.method import build_model
from wsi_attention.model_card import ModelCard
from wsi_attention.testing.slides import SlideSpec, write_slide
from wsi_attention.training.state import seed_of

h5py = pytest.importorskip("h5py")
from bag_files import bag_of, write_features  # noqa: E402

ENCODER = {"widths": [8, 8], "features": 8}
COLOURS = {"mean": [0.7, 0.6, 0.7], "std": [0.2, 0.2, 0.2]}
START = {"tile_size": 32, "tile_mpp": 1.0, "encoder": ENCODER, "hidden": 8, **COLOURS}
ATS = {"overview_mpp": 8.0, "draws": 6, "attention_widths": [8, 8]}
USUAL: dict[str, Any] = {"epochs": 1, "batch": 2, "validation_share": 0.5, "precision": "32"}


class Told:
    """Keeps what a training says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, stage: str, done: int, total: int) -> None: ...


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """slides/, labels.csv, a model to start from, and the slides' features in each dialect."""
    folder = tmp_path_factory.mktemp("bags")
    rows = ["slide,label"]
    torch.manual_seed(0)
    card = ModelCard(method="mil", classes=("benign", "lesion"), arguments=START)
    save_model(folder / "start", build_model("mil", 2, **START), card)
    start = load_model(folder / "start")
    for seed in range(4):
        label = ("benign", "lesion")[seed % 2]
        path = folder / "slides" / f"s{seed}.svs"
        write_slide(path, SlideSpec(size=(480, 440), seed=seed, label=label, lesion_scale=8))
        rows.append(f"s{seed},{label}")
        bag = bag_of(path, start, f"s{seed}")
        for dialect in ("trident", "clam", "stamp"):
            write_features(replace(bag, features=bag.features * np.float32(3)), folder / dialect, dialect)
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def trained(
    place: Path, output: Path, features: Path, slides: bool, told: Told | None = None, **changes: Any
) -> Classifier:
    recipe = Recipe(**{**USUAL, **changes})
    where = place / "slides" if slides else None
    result = train(place / "labels.csv", where, output, recipe, features=features, device="cpu", listener=told)
    assert not result.failed
    return load_model(output)


def on_pixels(place: Path, model: Classifier, **more: Any) -> np.ndarray:
    found = predict(place / "slides" / "s1.svs", model, device="cpu", precision="32", **more)
    return found.probabilities


@pytest.mark.parametrize("dialect", ["trident", "clam", "stamp"])
def test_mil_learns_from_bags_alone_and_classifies_pixels(dialect: str, place: Path, tmp_path: Path) -> None:
    told = Told()
    start = {"encoder_start": str(place / "start")}
    model = trained(place, tmp_path / "model", place / dialect, False, told, method="mil", **start)
    options = model.config["options"]
    assert (options["tile_size"], options["tile_mpp"], options["mean"]) == (32, 1.0, COLOURS["mean"])
    assert options["encoder"] == {**options["encoder"], **ENCODER, "frozen": True}
    features = next(path for path in (place / dialect).rglob("s1.h5") if path.parent.name != "patches")
    tolerance = 5e-4 if dialect == "stamp" else 1e-5
    pixels = on_pixels(place, model)
    np.testing.assert_allclose(on_pixels(place, model, features=features), pixels, atol=tolerance, rtol=0)
    assert abs(pixels[0] - 0.5) > 1e-4
    assert any("no augmentation" in line for line in told.lines)


def test_training_on_bags_is_training_on_the_pixels_of_their_tiles(place: Path, tmp_path: Path) -> None:
    """The same epochs from the same weights, beside the slides and from pixels, end with the same weights.

    Without the slides the order of training is another, for a bag has another fingerprint than its slide.
    """
    more = {"method": "mil", "encoder_start": str(place / "start"), "epochs": 3}
    beside = trained(place, tmp_path / "beside", place / "trident", True, **more, model={"hidden": 8})
    options = {name: START[name] for name in ("tile_size", "tile_mpp", "hidden", "mean", "std")}
    plain = {"symmetry": "none", "stain": 0.0, "brightness": 0.0}
    model = {**options, "encoder": {**ENCODER, "frozen": True}}
    recipe = Recipe(**{**USUAL, **more, "model": model, "augmentation": plain})
    train(place / "labels.csv", place / "slides", tmp_path / "pixels", recipe, device="cpu", feature_store_gb=0)
    pixels = load_model(tmp_path / "pixels").model.state_dict()
    torch.manual_seed(seed_of(0, "weights"))
    fresh = build_model("mil", 2, **model).state_dict()
    for name, value in beside.model.state_dict().items():
        torch.testing.assert_close(value, pixels[name], atol=1e-4, rtol=0)
    moved = [
        name
        for name in fresh
        if not name.startswith(("encoder", "preprocess")) and bool((fresh[name] - pixels[name]).abs().max() > 5e-4)
    ]
    assert {"attention.content.weight", "classifier.linear.weight"} <= {*moved}


def test_ats_beside_slides_reads_no_tile_that_is_stored(place: Path, tmp_path: Path) -> None:
    more = {"method": "ats", "encoder_start": str(place / "start"), "model": ATS}
    model = trained(place, tmp_path / "ats", place / "trident", True, **more)
    features = next((place / "trident").rglob("s1.h5"))
    found = predict(place / "slides" / "s1.svs", model, device="cpu", precision="32", features=features)
    assert found.counters.tiles == 0
    np.testing.assert_allclose(on_pixels(place, model, snap=False), found.probabilities, atol=1e-5, rtol=0)


def test_trt_beside_slides_reads_no_tile_that_is_stored_and_learns(place: Path, tmp_path: Path) -> None:
    options = {"size": 64, "patch": 8, "dim": 24, "depth": 2, "heads": 3, "budget": 12, "overview_mpp": 8.0}
    more: dict[str, Any] = {"method": "trt", "encoder_start": str(place / "start"), "model": options}
    model = trained(place, tmp_path / "trt", place / "trident", True, **more)
    features = next((place / "trident").rglob("s1.h5"))
    found = predict(place / "slides" / "s1.svs", model, device="cpu", precision="32", features=features)
    stored = {*map(tuple, read_bag(features).locations.tolist())}
    taken = {*map(tuple, found.glimpses[0].tiles.locations[0].tolist())}
    assert found.counters.tiles == len(taken - stored) < len(taken)
    start = load_model(place / "start").model.state_dict()
    for name, value in model.model.state_dict().items():
        if name.startswith("finer.encoder."):
            torch.testing.assert_close(value, start[name.removeprefix("finer.")], rtol=0, atol=0)
    alone: dict[str, Any] = {"method": "trt", "model": options}
    with pytest.raises(
        InputError, match=r"method trt looks at the slides themselves \(-i\); .* train mil, ats, grow or zoom-in"
    ):
        trained(place, tmp_path / "alone", place / "trident", False, **alone)
    bare = trained(place, tmp_path / "bare", place / "trident", True, **alone)
    assert predict(
        place / "slides" / "s1.svs", bare, device="cpu", precision="32", features=features
    ).probabilities.sum() == pytest.approx(1)


def test_without_an_encoder_the_model_takes_features_alone(place: Path, tmp_path: Path) -> None:
    told = Told()
    model = trained(place, tmp_path / "model", place / "trident", False, told, method="mil")
    assert any("the model has no encoder of its own" in line for line in told.lines)
    assert str(model.config["options"]["encoder"]["name"]).startswith("features:wsi-attention:start:")
    features = next((place / "trident").rglob("s1.h5"))
    assert on_pixels(place, model, features=features).sum() == pytest.approx(1)
    with pytest.raises(InputError, match="has no encoder of its own"):
        on_pixels(place, model)


def test_ats_on_bags_alone_looks_at_a_grid_of_features(place: Path, tmp_path: Path) -> None:
    model = trained(place, tmp_path / "model", place / "trident", False, method="ats", model={"draws": 6})
    options = model.config["options"]
    assert (options["mean"], options["attention_widths"], options["overview_mpp"]) == ([0.0] * 8, [64], 16.0)
    features = next((place / "trident").rglob("s1.h5"))
    found = predict(place / "slides" / "s1.svs", model, device="cpu", precision="32", features=features)
    assert found.counters.tiles == 0 and found.maps[0].grid.step == (64.0, 64.0)
    with h5py.File(features) as file:
        assert {*map(tuple, found.glimpses[0].tiles.locations[0].tolist())} <= {
            *map(tuple, file["coords"][()].tolist())
        }
    with pytest.raises(
        InputError, match=r"a grid of features and has no encoder: give the slides too \(-i\), or leave"
    ):
        trained(place, tmp_path / "x", place / "trident", False, method="ats", encoder_start=str(place / "start"))


def test_zoom_in_on_bags_alone_looks_at_a_coarse_grid_then_into_regions(place: Path, tmp_path: Path) -> None:
    model = trained(place, tmp_path / "model", place / "trident", False, method="zoom-in", model={"draws": 6})
    options = model.config["options"]
    assert (options["overview_mpp"], options["view_mpps"], options["cells_um"]) == (64.0, [16.0], [128.0, 32.0])
    features = next((place / "trident").rglob("s1.h5"))
    alone = predict_alone(features, model, device="cpu", precision="32")
    assert [one.grid.step for one in alone.maps] == [(256.0, 256.0), (64.0, 64.0)]
    stored = {*map(tuple, read_bag(features).locations.tolist())}
    assert {*map(tuple, alone.glimpses[-1].tiles.locations[0].tolist())} <= stored
    beside = predict(place / "slides" / "s1.svs", model, device="cpu", precision="32", features=features)
    assert beside.counters.tiles == 0
    exact = predict_alone(features, model, device="cpu", precision="32", effort=Effort(exact=True))
    assert {*map(tuple, exact.glimpses[-1].tiles.locations[0].tolist())} == stored


def test_an_interrupted_training_on_bags_goes_on_and_other_features_are_another_training(
    place: Path, tmp_path: Path
) -> None:
    trained(place, tmp_path / "one", place / "trident", False, method="mil")
    again = Told()
    trained(place, tmp_path / "one", place / "trident", False, again, method="mil")
    with (tmp_path / "one/training/metrics.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 1
    with pytest.raises(InputError, match=r"holds a training with a different .*features"):
        trained(place, tmp_path / "one", place / "stamp", False, method="mil")


def changed(place: Path, folder: Path, name: str, change: Any) -> Path:
    """The features of TRIDENT with one file changed."""
    for path in (place / "trident").rglob("*.h5"):
        (folder / path.name).write_bytes(path.read_bytes())
    with h5py.File(folder / f"{name}.h5", "a") as file:
        change(file)
    return folder


def test_one_bad_file_costs_its_slide_alone(place: Path, tmp_path: Path) -> None:
    def nan(file: Any) -> None:
        file["features"][0, 0] = np.nan

    labels = tmp_path / "labels.csv"
    labels.write_text((place / "labels.csv").read_text().replace("s3,lesion", "s3,lesion\ns4,benign"))
    folder = changed(place, tmp_path, "s2", nan)
    told, recipe = Told(), Recipe(**{**USUAL, "method": "mil", "validation_share": 0.4})
    for slides in (None,):
        result = train(labels, slides, tmp_path / "out", recipe, features=folder, device="cpu", listener=told)
        assert "not finite" in result.failed["s2"] and "no feature file" in result.failed["s4"]


def other_size(file: Any) -> None:
    file["coords"].attrs["patch_size"] = 64


def other_encoder(file: Any) -> None:
    file["features"].attrs["encoder"] = "uni_v2"
    file.attrs["wsi_attention_encoder"] = "uni_v2"


def test_a_file_that_was_written_again_is_another_training(place: Path, tmp_path: Path) -> None:
    """The survey reads the first and the last feature of a file alone; what lies between may have been mended."""

    folder = changed(place, tmp_path, "s2", lambda file: None)
    trained(place, tmp_path / "model", folder, False, method="mil")
    trained(place, tmp_path / "model", folder, False, method="mil")
    with h5py.File(folder / "s2.h5", "a") as file:
        file["features"][1, 0] += 1
    with pytest.raises(InputError, match="a training with a different features"):
        trained(place, tmp_path / "model", folder, False, method="mil")


def test_files_that_do_not_go_together(place: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="features of 2 encoders"):
        trained(place, tmp_path / "a", changed(place, tmp_path, "s0", other_encoder), False, method="mil")
    more: dict[str, Any] = {"method": "mil", "encoder_start": str(place / "start")}
    with pytest.raises(InputError, match="features of encoder 'uni_v2', the model's is 'wsi-attention:small:"):
        trained(place, tmp_path / "b", tmp_path, False, **more)
    with pytest.raises(InputError, match=r"tiles of 32 pixels, the model reads tiles of 64; .* tile_size = 32"):
        trained(place, tmp_path / "c", place / "trident", False, **more, model={"tile_size": 64})
    with pytest.raises(InputError, match="features of 8 numbers, the encoder small gives 16"):
        trained(place, tmp_path / "d", place / "clam", False, method="mil", model={"features": 16})


def test_what_makes_no_sense(place: Path, tmp_path: Path) -> None:
    recipe = Recipe(method="oaa")
    labels, features = place / "labels.csv", place / "trident"
    with pytest.raises(InputError, match=r"no slides are given .* and no features of them"):
        train(labels, None, tmp_path / "x", recipe)
    with pytest.raises(InputError, match="method oaa encodes no tiles of one size one by one"):
        train(labels, place / "slides", tmp_path / "x", recipe, features=features, device="cpu")
    with pytest.raises(InputError, match="no such folder of features"):
        train(labels, None, tmp_path / "x", "mil", features=tmp_path / "nowhere", device="cpu")
    other = tmp_path / "labels.csv"
    other.write_text("slide,label\nx,a\ny,a\nz,b\nw,b\n")
    with pytest.raises(InputError, match=r"none of 4 slides has a feature file in .*; a file has the slide's name"):
        train(other, None, tmp_path / "x", "mil", features=features, device="cpu")
    tissue = Recipe(method="mil", statistics="tissue")
    with pytest.raises(InputError, match='statistics = "tissue" are of slides'):
        train(labels, None, tmp_path / "x", tissue, features=features, device="cpu")


def test_stamp_s_own_files_need_no_slide_and_no_scale(place: Path, tmp_path: Path) -> None:
    for path in (place / "stamp").glob("*.h5"):
        with h5py.File(path) as old, h5py.File(tmp_path / path.name, "w") as file:
            file.attrs.update({k: v for k, v in old.attrs.items() if not k.startswith("wsi_attention_")})
            for name in ("coords", "feats"):
                file[name] = old[name][()]
    model = trained(place, tmp_path / "model", tmp_path, False, method="mil")
    assert (model.config["options"]["tile_size"], model.config["options"]["tile_mpp"]) == (32, 1.0)
    assert json.loads((tmp_path / "model/config.json").read_text())["mpp"] == 1.0


def test_a_bag_of_one_tile_is_a_bag(place: Path, tmp_path: Path) -> None:
    for seed in range(4):
        features = np.full((1, 4), seed % 2 * 2 - 1.0, np.float32) + np.eye(1, 4, dtype=np.float32)
        write_features(Bag(f"s{seed}", np.zeros((1, 2), np.int64), 32, 32, None, 1.0, features), tmp_path, "stamp")
    model = trained(place, tmp_path / "model", tmp_path, False, method="mil")
    assert model.config["options"]["encoder"]["features"] == 4
