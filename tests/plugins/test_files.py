"""Files of TRIDENT, CLAM, WSInfer and STAMP: there and back, laid out as the hosts do, and what is refused."""

from __future__ import annotations

import ast
import csv
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsi_attention import load_model, open_slide, predict
from wsi_attention.errors import InputError
from wsi_attention.inference.batch.classify import classify
from wsi_attention.inference.batch.slides_csv import read_slides_csv
from wsi_attention.slide.tissue import load_mask

h5py = pytest.importorskip("h5py")
files = pytest.importorskip("wsi_attention_files", reason="pip install plugins/files")

ROOT = Path(__file__).resolve().parents[2]
SLIDE = ROOT / "sample_slides" / "sample_01.svs"
SIZE = (6144, 6144)
PLACES = np.array([[0, 0], [512, 1024], [5900, 6000], [-100, 300]], np.int64)
KEPT = {"trident": np.float32, "clam": np.float32, "stamp": np.float16}


def bag(**changes: Any) -> Any:
    return replace(files.Bag("a", PLACES, 256, 128, SIZE, 0.5, encoder="net"), **changes)


def written(one: Any, folder: Path, dialect: str) -> Any:
    """The bag as read back from what was written."""
    first, *more = files.write_bag(one, folder, dialect)
    if dialect == "clam" and one.features is not None:
        return files.read_bag(more[0], patches=first, mpp=one.mpp)
    return files.read_bag(first, mpp=one.mpp)


@st.composite
def bags(draw: Any) -> Any:
    size = draw(st.tuples(st.integers(300, 500_000), st.integers(300, 500_000)))
    pixels, scale = draw(st.integers(1, 512)), draw(st.sampled_from([1, 2, 3, 4]))
    side = pixels * scale
    corner = st.tuples(*(st.integers(1 - side, one - 1) for one in size))
    places = np.array(draw(st.lists(corner, min_size=1, max_size=20, unique=True)), np.int64)
    mpp = draw(st.floats(0.1, 2.39))
    features = np.arange(len(places) * 3, dtype=np.float32).reshape(-1, 3) / 8
    weights = np.linspace(0, 1, len(places))
    return files.Bag("a", places, side, pixels, size, mpp, features, weights, "net")


@pytest.mark.parametrize("dialect", ["trident", "clam", "wsinfer", "stamp"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=bags())
def test_there_and_back_is_exact_in_level_0_pixels(tmp_path: Path, dialect: str, one: Any) -> None:
    if dialect == "wsinfer":
        one = replace(one, features=None)
    back = written(one, tmp_path, dialect)
    assert back.dialect == dialect
    assert back.locations.dtype == np.int64
    np.testing.assert_array_equal(back.locations, one.locations)
    np.testing.assert_array_equal(back.weights, one.weights)
    assert back.side == one.side
    if dialect != "clam":
        assert back.pixels == one.pixels
    if dialect != "wsinfer":
        assert back.extent == one.extent
        np.testing.assert_array_equal(back.features, one.features)
        assert back.features.dtype == KEPT[dialect]


def test_a_layout_each_as_its_host_writes_it(tmp_path: Path) -> None:
    """The keys, kinds and attributes that the hosts' own readers ask for."""
    one = bag(features=np.ones((4, 3), np.float32), weights=np.full(4, 0.25))
    for dialect in ("trident", "clam", "stamp"):
        files.write_bag(one, tmp_path / dialect, dialect)
    files.write_bag(replace(one, features=None), tmp_path / "wsinfer", "wsinfer")
    with h5py.File(tmp_path / "trident/features_net/a.h5") as file:
        facts = dict(file["coords"].attrs)
        assert (file["coords"].dtype, file["features"].dtype) == (np.int64, np.float32)
        assert (facts["patch_size"], facts["patch_size_level0"], facts["overlap"]) == (128, 256, 0)
        assert (facts["level0_magnification"], facts["target_magnification"]) == (20, 10)
        assert (facts["level0_width"], facts["level0_height"], facts["name"]) == (*SIZE, "a")
        assert file["features"].attrs["encoder"] == "net"
    with h5py.File(tmp_path / "clam/patches/a.h5") as file:
        facts = dict(file["coords"].attrs)
        assert (facts["patch_size"], facts["patch_level"], tuple(facts["level_dim"])) == (256, 0, SIZE)
        assert (tuple(facts["downsample"]), facts["name"]) == ((1, 1), "a")
    with h5py.File(tmp_path / "clam/h5_files/a.h5") as file:
        assert (file["coords"].dtype, file["features"].dtype, len(file["coords"].attrs)) == (np.int32, np.float32, 0)
    saved = torch.load(tmp_path / "clam/pt_files/a.pt", weights_only=True)
    assert torch.equal(saved, torch.ones(4, 3))
    with h5py.File(tmp_path / "wsinfer/patches/a.h5") as file:
        assert dict(file["coords"].attrs) == {"patch_size": 256, "patch_level": 0, "patch_spacing_um_px": 1.0}
    with h5py.File(tmp_path / "stamp/a.h5") as file:
        assert (file["coords"].dtype, file["feats"].dtype) == (np.float32, np.float16)
        np.testing.assert_allclose(file["coords"][()], PLACES * 0.5)
        facts = dict(file.attrs)
        assert (facts["unit"], facts["tile_size_um"], facts["tile_size_px"]) == ("um", 128.0, 128)
        assert (facts["feat_type"], facts["extractor"]) == ("tile", "net")


def host_file(path: Path, coords: Any, attributes: dict[str, Any], on_file: bool = False, **more: Any) -> Path:
    with h5py.File(path, "w") as file:
        file["coords"] = coords
        (file if on_file else file["coords"]).attrs.update(attributes)
        for name, value in more.items():
            file[name] = value
    return path


CLAM = {"patch_size": 256, "patch_level": 1, "downsample": (4.0, 4.0), "level_dim": (1536, 1536), "name": "s"}
TRIDENT = {"patch_size": 256, "level0_magnification": 40, "target_magnification": 20, "name": "s", "overlap": 0}
WSINFER = {"patch_size": 350, "patch_level": 0, "patch_spacing_um_px": 0.25}
STAMP = {"tile_size": 256.0, "unit": "um", "extractor": "ctranspath"}


def test_files_as_the_hosts_lay_them_out(tmp_path: Path) -> None:
    whole = PLACES[:3]
    clam = files.read_bag(host_file(tmp_path / "c.h5", whole, {**CLAM, "save_path": "x"}))
    assert (clam.dialect, clam.side, clam.extent, clam.name) == ("clam", 1024, None, "c")
    trident = files.read_bag(host_file(tmp_path / "t_patches.h5", whole, TRIDENT))
    assert (trident.dialect, trident.side, trident.pixels, trident.extent) == ("trident", 512, 256, None)
    assert trident.name == "t"
    wsinfer = files.read_bag(host_file(tmp_path / "w.h5", whole.astype(np.int32), WSINFER), mpp=0.25)
    assert (wsinfer.dialect, wsinfer.side, wsinfer.pixels, wsinfer.name) == ("wsinfer", 350, 350, "w")
    feats = np.ones((3, 2), np.float16)
    path = host_file(tmp_path / "p.h5", (whole * 0.25).astype(np.float32), STAMP, True, feats=feats)
    stamp = files.read_bag(path, mpp=0.25)
    assert (stamp.dialect, stamp.side, stamp.features.shape) == ("stamp", 1024, (3, 2))
    np.testing.assert_array_equal(stamp.locations, whole)


def refusals() -> list[tuple[str, Callable[[Path], Any], str]]:
    whole = PLACES[:3]

    def made(*given: Any, read: dict[str, Any] | None = None, **more: Any) -> Callable[[Path], Any]:
        return lambda path: files.read_bag(host_file(path, *given, **more), **(read or {}))

    def linked(path: Path) -> Any:
        with h5py.File(path, "w") as file:
            file["coords"] = h5py.ExternalLink("/etc/passwd", "coords")
        return files.read_bag(path)

    def stored_outside(path: Path) -> Any:
        with h5py.File(path, "w") as file:
            file.create_dataset("coords", (8, 2), "i4", external=[("/etc/passwd", 0, 64)]).attrs.update(CLAM)
        return files.read_bag(path)

    def huge(path: Path) -> Any:
        with h5py.File(path, "w") as file:
            file.create_dataset("coords", (10**12, 2), "i8", chunks=(1024, 2)).attrs.update(CLAM)
        return files.read_bag(path)

    def group(path: Path) -> Any:
        with h5py.File(path, "w") as file:
            file.create_group("coords")
        return files.read_bag(path)

    def cut(path: Path) -> Any:
        whole = host_file(path, PLACES, CLAM).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        return files.read_bag(path)

    def no_hdf5(path: Path) -> Any:
        path.write_text("x,y\n0,0\n")
        return files.read_bag(path)

    features = np.ones((2, 3), np.float32)
    return [
        ("foreign", made(whole, {"tile": 256}), "nothing says what its coordinates mean; found attributes: tile"),
        ("bare", made(whole, {}, features=features), r"CLAM's feature files have none: give its patches"),
        ("two", made(whole, CLAM | TRIDENT), "attributes are those of trident and clam"),
        ("no-coords", lambda path: _only_features(path), "no dataset coords; found: features"),
        ("group", group, "coords is a group"),
        ("link", linked, "coords is a link"),
        ("external", stored_outside, "keeps its values in other files"),
        ("huge", huge, r"shape \(1000000000000, 2\), 14901 GiB"),
        ("cut", cut, "not a readable HDF5 file"),
        ("csv", no_hdf5, "not a readable HDF5 file"),
        ("missing", files.read_bag, "no such file"),
        ("shape", made(np.zeros((3, 4), int), CLAM), r"shape \(3, 4\), \(n, 2\)"),
        ("text", made(np.array([[b"a", b"b"]]), CLAM), r"holds \|S1, numbers are needed"),
        ("fractions", made(whole + 0.25, CLAM), "holds fractions"),
        ("nan", made(np.full((1, 2), np.nan), CLAM), "no coordinates"),
        ("far", made(np.full((1, 2), 1e300), CLAM), "no coordinates"),
        ("level", made(whole, WSINFER | {"patch_level": 2}), r"patch_level is \[2\]"),
        ("side", made(whole, TRIDENT | {"patch_size": 0}), "attribute patch_size is .*0.*, one positive number"),
        ("oblong", made(whole, CLAM | {"downsample": (4.0, 8.0)}), "attribute downsample"),
        ("words", made(whole, TRIDENT | {"target_magnification": "20x"}), "attribute target_magnification is '20x'"),
        ("rows", made(whole, TRIDENT, features=features), r"features has shape \(2, 3\) of float32, \(3, d\)"),
        ("whole-features", made(whole, TRIDENT, features=np.ones((3, 2), int)), "floating point"),
        ("nan-features", made(whole, TRIDENT, features=np.full((3, 2), np.nan)), "not finite"),
        ("outside", made(whole * 100, TRIDENT, read={"extent": SIZE}), r"2 of 3 tiles lie outside .* at \(51200, 1024"),
        (
            "another-slide",
            made(whole, TRIDENT | {"level0_width": 99_000, "level0_height": 88_000}, read={"extent": SIZE}),
            "made for a slide of 99000×88000 pixels, this one has 6144×6144",
        ),
        ("no-mpp", made(whole, STAMP, True, feats=np.ones((3, 2), np.float16)), "give the slide, or its µm per pixel"),
        ("slide-level", made(whole, STAMP | {"feat_type": "slide"}, True, read={"mpp": 0.5}), "feat_type is slide"),
    ]


def _only_features(path: Path) -> Any:
    with h5py.File(path, "w") as file:
        file["features"] = np.ones((2, 3))
    return files.read_bag(path)


@pytest.mark.parametrize(("name", "attempt", "message"), [pytest.param(*one, id=one[0]) for one in refusals()])
def test_what_is_refused(tmp_path: Path, name: str, attempt: Callable[[Path], Any], message: str) -> None:
    path = tmp_path / f"{name}.h5"
    with pytest.raises(InputError, match=message) as caught:
        attempt(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_written(tmp_path: Path) -> None:
    features = np.full((4, 2), 1e5, np.float32)
    for one, dialect, message in (
        (bag(), "slideflow", "no dialect 'slideflow'; there are: trident, clam, wsinfer, stamp"),
        (bag(), "stamp", "no file for coordinates alone"),
        (bag(features=features), "stamp", "exceed 65504"),
        (bag(features=features), "wsinfer", "no place for features"),
        (bag(mpp=None), "wsinfer", "µm per level-0 pixel is needed"),
        (bag(mpp=4.0), "trident", "4 µm/px"),
        (bag(extent=None), "clam", "width and height are needed"),
        (bag(locations=PLACES[:0]), "clam", "no tiles"),
    ):
        with pytest.raises(InputError, match=message):
            files.write_bag(one, tmp_path, dialect)
    assert not list(tmp_path.rglob("*.*"))


def test_features_of_other_tiles_are_refused(tmp_path: Path) -> None:
    patches = host_file(tmp_path / "c.h5", PLACES, CLAM)
    other = host_file(tmp_path / "f.h5", PLACES + 1, {}, features=np.ones((4, 2), np.float32))
    with pytest.raises(InputError, match="its 4 tiles are not the 4"):
        files.read_bag(other, patches=patches)


def test_a_mask_covers_the_tiles_and_nothing_else(tmp_path: Path) -> None:
    side_by_side = PLACES[1] + np.array([[256, 0], [400, 0], [656, 256], [1024, 0]])
    one = bag(locations=np.concatenate([PLACES, side_by_side]))
    assert len(files.contours_of(one)["features"]) == 6
    exact = np.zeros(SIZE[::-1], np.bool_)
    for x, y, w, h in one.boxes:
        exact[max(y, 0) : y + h, max(x, 0) : x + w] = True
    for mask in (files.tissue_of(one), load_mask(files.write_mask(one, tmp_path / "m.geojson"), SIZE)):
        y, x = (np.mgrid[: mask.mask.shape[0], : mask.mask.shape[1]] + 0.5) * mask.downsample
        inside = (y < SIZE[1]) & (x < SIZE[0])
        np.testing.assert_array_equal(mask.mask[inside], exact[y[inside].astype(int), x[inside].astype(int)])
    with pytest.raises(InputError, match="this one has 100×100"):
        files.tissue_of(one, (100, 100))


def test_a_prediction_as_a_bag_with_its_model_s_features(tmp_path: Path) -> None:
    classifier = load_model("demo")
    with open_slide(SLIDE) as slide:
        prediction = predict(slide, classifier)
        one = files.with_features(files.bag_of(prediction), slide, classifier)
    (glimpse,) = prediction.glimpses
    assert one.name == "sample_01"
    np.testing.assert_array_equal(one.boxes, glimpse.tiles.boxes[0])
    np.testing.assert_allclose(one.weights, glimpse.weights)
    model: Any = classifier.model
    pooled = torch.from_numpy((one.weights[:, None] * one.features).sum(0, dtype=np.float64)).float()
    with torch.inference_mode():
        again = torch.softmax(model.classifier(pooled[None]), -1)[0]
    np.testing.assert_allclose(again, prediction.probabilities, atol=1e-4)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_there_and_back_and_classified_within_it(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / SLIDE.name).symlink_to(SLIDE)
    (tmp_path / "slides" / "sample_01.geojson").write_text("{}")
    classifier = load_model("demo")
    classify([SLIDE], tmp_path / "results", classifier, what=["tiles"])
    features = tmp_path / "stamp"
    assert list(files.write_results(tmp_path / "results", features, "stamp", (), classifier)) == [
        features / "sample_01.h5"
    ]
    made = list(files.read_folder([features], tmp_path / "back", tmp_path / "slides"))
    assert [path.name for path in made] == ["sample_01.geojson", "sample_01.csv", "slides.csv"]
    columns = ("minx", "miny", "width", "height")
    tables = [tmp_path / "results/tiles/sample_01.csv", tmp_path / "back/tiles/sample_01.csv"]
    first, second = ([[row[one] for one in columns] for row in rows_of(path)] for path in tables)
    assert first == second
    (slide,) = read_slides_csv(tmp_path / "back/slides.csv").slides
    with open_slide(slide.path) as opened:
        mask = load_mask(slide.mask or "", opened.dimensions)
        inside = predict(opened, classifier, tissue=mask)
    for x, y, w, h in inside.glimpses[0].tiles.boxes[0]:
        centre = int((y + h / 2) / mask.downsample), int((x + w / 2) / mask.downsample)
        assert mask.mask[centre]


def test_one_bad_file_costs_only_itself(tmp_path: Path) -> None:
    host_file(tmp_path / "bad.h5", PLACES, {})
    host_file(tmp_path / "good.h5", PLACES, TRIDENT | {"name": "", "level0_width": 6144, "level0_height": 6144})
    refused, *made = files.read_folder([tmp_path], tmp_path / "out")
    assert "nothing says" in refused.reason
    assert [path.name for path in made] == ["good.geojson", "good.csv"]


def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    sized = TRIDENT | {"level0_width": 6144, "level0_height": 6144}
    (tmp_path / "in").mkdir()
    host_file(tmp_path / "in/a.h5", PLACES, sized | {"name": "../../../escaped"})
    assert [path.name for path in files.read_folder([tmp_path / "in"], tmp_path / "out")] == ["a.geojson", "a.csv"]
    files.write_bag(bag(name="../../escaped"), tmp_path / "out", "clam")
    assert not [path for path in tmp_path.parent.rglob("*escaped*") if (tmp_path / "out") not in path.parents]


def test_a_folder_of_clam_and_two_files_of_one_slide(tmp_path: Path) -> None:
    files.write_bag(bag(features=np.ones((4, 2), np.float32)), tmp_path / "in", "clam")
    assert [path.name for path in files.read_folder([tmp_path / "in"], tmp_path / "out")] == ["a.geojson", "a.csv"]
    *_, refused = files.read_folder([tmp_path / "in", tmp_path / "in/patches/a.h5"], tmp_path / "out")
    assert "another file of this name" in refused.reason


def test_contours_of_trident_are_a_mask(tmp_path: Path) -> None:
    """As its geopandas writes them: a coordinate system nobody means, a column, holes."""
    square = [[[1000, 1000], [4000, 1000], [4000, 3000], [1000, 3000], [1000, 1000]]]
    square.append([[2000, 1500], [2500, 1500], [2500, 2000], [2000, 2000], [2000, 1500]])
    value = {
        "type": "FeatureCollection",
        "name": "a",
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}},
        "features": [
            {
                "type": "Feature",
                "properties": {"tissue_id": 0},
                "geometry": {"type": "Polygon", "coordinates": square},
            }
        ],
    }
    (tmp_path / "a.geojson").write_text(json.dumps(value))
    mask = load_mask(tmp_path / "a.geojson", SIZE)
    assert mask.area == pytest.approx(3000 * 2000 - 500 * 500, rel=0.01)


MIL = {
    "spec_version": "1.0",
    "type": "abmil",
    "num_classes": 2,
    "class_names": ["wt", "mut"],
    "feature_extractor": "ctranspath",
    "patch_size_um": 112,
}
ZOO = {
    "spec_version": "1.0",
    "architecture": "resnet34",
    "num_classes": 2,
    "class_names": ["Other", "Tumor"],
    "patch_size_pixels": 350,
    "spacing_um_px": 0.25,
    "transform": [
        {"name": "Resize", "arguments": {"size": 224}},
        {"name": "ToTensor"},
        {"name": "Normalize", "arguments": {"mean": [0.7, 0.6, 0.7], "std": [0.2, 0.2, 0.2]}},
    ],
}


def test_model_configurations(tmp_path: Path) -> None:
    from wsi_attention.config import load_recipe

    path = tmp_path / "config.json"
    path.write_text(json.dumps(MIL))
    mil = files.read_model_config(path)
    assert (mil.kind, mil.mil, mil.encoder, mil.classes) == ("wsinfer-mil", "abmil", "ctranspath", ("wt", "mut"))
    assert (mil.tile_size, mil.tile_mpp) == (224, 0.5)
    path.write_text(json.dumps(ZOO))
    zoo = files.read_model_config(path)
    assert (zoo.kind, zoo.tile_size, zoo.encoder, zoo.mean) == ("wsinfer", 224, "resnet34", (0.7, 0.6, 0.7))
    assert zoo.tile_size * zoo.tile_mpp == pytest.approx(350 * 0.25)
    for one in (mil, zoo):
        (tmp_path / "recipe.toml").write_text(files.recipe(one))
        found = load_recipe(tmp_path / "recipe.toml")
        assert found.model["tile_size"] == 224
        assert found.model["tile_mpp"] == one.tile_mpp


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no object"),
        ("{", "no JSON"),
        ("{}", "neither patch_size_um"),
        (json.dumps({**MIL, "patch_size_um": -1}), "patch_size_um is -1"),
        (json.dumps({**MIL, "class_names": ["a"]}), "1 class_names for num_classes 2"),
        (json.dumps({**MIL, "feature_extractor": 'x\nmethod = "y"'}), "feature_extractor is"),
        (json.dumps({**ZOO, "transform": "Resize"}), "transform is 'Resize'"),
        (json.dumps({**ZOO, "spacing_um_px": None}), "spacing_um_px is None"),
    ],
)
def test_model_configurations_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        files.read_model_config(path)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from wsi_attention_files.__main__ import main

    def ran(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["wsi-attention-files", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    path = host_file(tmp_path / "t.h5", PLACES, TRIDENT | {"level0_width": 6144, "level0_height": 6144})
    said = "trident: 4 tiles of 512 level-0 pixels, slide of 6144×6144, no features\n"
    assert ran("inspect", path) == (0, said, "")
    foreign = host_file(tmp_path / "f.h5", PLACES, {})
    code, _, error = ran("inspect", foreign)
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith(f"wsi-attention-files: {foreign}: nothing says")
    code, made, error = ran("read", path, foreign, "-o", tmp_path / "out")
    assert (code, len(made.split()), error.count("\n")) == (1, 2, 1)
    assert ran("write", "clam", tmp_path, "-o", tmp_path)[0] == 2


def test_nothing_here_unpickles() -> None:
    homes = (ROOT / "plugins/files/wsi_attention_files", ROOT / "wsi_attention/bags")
    for path in (path for home in homes for path in home.glob("*.py")):
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not names & {"load", "loads", "jit", "Unpickler"} - (
            {"loads"} if path.name == "model_config.py" else set()
        )
        assert "pickle" not in path.read_text().replace("unpickled", "")
