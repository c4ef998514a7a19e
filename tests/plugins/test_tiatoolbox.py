"""TIAToolbox: attention beside `PatchPredictor`, results in its store and tile server, our slide as its reader."""

from __future__ import annotations

import io
import json
import pickle
import re
import runpy
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from PIL import Image

from wsi_attention import Classifier, load_model, open_slide, predict
from wsi_attention.errors import InputError, MissingExtraError, MissingMppError, NoTissueError, SlideOpenError
from wsi_attention.export.geojson import GeoJSONExporter

pytest.importorskip("tiatoolbox", reason="see tox.ini, plugin-tiatoolbox")
tia = pytest.importorskip("wsi_attention_tiatoolbox", reason="pip install plugins/tiatoolbox")
zarr = pytest.importorskip("zarr")

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sample_slides" / "sample_01.svs"
STORES = hasattr(sqlite3.Connection, "enable_load_extension")
needs_stores = pytest.mark.skipif(
    not STORES, reason="this Python's sqlite3 loads no extensions, which SQLiteStore needs"
)
Pointing = Callable[..., Classifier]
pytestmark = [  # what TIAToolbox itself warns of
    pytest.mark.filterwarnings("ignore:unclosed file.*tiatoolbox:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]


def corners(box: Any) -> tuple[float, ...]:
    return (box.x, box.y, box.x + box.w, box.y + box.h)


def run(model: Classifier, images: list[Any], folder: Path, kind: str = "zarr", **more: Any) -> Any:
    predictor = tia.AttentionPredictor(model, device="cpu", verbose=False)
    return predictor, predictor.run(images, save_dir=folder / "out", output_type=kind, **more)


@needs_stores
def test_the_store_has_the_lesion_to_the_pixel(
    lesion_slide: Path, pointing: Pointing, places: dict[str, Any], tmp_path: Path
) -> None:
    from tiatoolbox.annotation import SQLiteStore

    predictor, outputs = run(pointing(2), [lesion_slide], tmp_path, "annotationstore", top=1)
    assert outputs == {lesion_slide: tmp_path / "out" / "lesion.db"}
    store = SQLiteStore(outputs[lesion_slide])
    x, y, right, bottom = corners(places["lesion"])
    found = store.query((x + 1, y + 1, right - 1, bottom - 1))
    assert sorted(one.properties["object"] for one in found.values()) == ["annotation", "tile"]
    assert {tuple(one.geometry.bounds) for one in found.values()} == {(x, y, right, bottom)}
    assert not store.query((x - 60, y - 60, x - 1, y - 1))
    assert len(store) == 3
    (heaviest,) = store.query(where="props['rank'] == 1").values()
    assert heaviest.properties["type"] == predictor.predictions[lesion_slide].label
    (other,) = store.query(where="props['object'] == 'tile' and props['attention'] < 0.4").values()
    assert tuple(other.geometry.bounds) == corners(places["other"])
    assert store.metadata["wsi-attention"]["label"] == heaviest.properties["type"]


@needs_stores
def test_our_geojson_is_the_same_store(lesion_slide: Path, pointing: Pointing, tmp_path: Path) -> None:
    from tiatoolbox.annotation import SQLiteStore

    with open_slide(lesion_slide) as slide:
        prediction = predict(slide, pointing(2))
    GeoJSONExporter()(prediction, tmp_path / "a.geojson")
    read = SQLiteStore.from_geojson(tmp_path / "a.geojson", transform=tia.unpack)
    ours = tia.to_store(prediction)
    assert [one.properties for one in read.values()] == [one.properties for one in ours.values()]
    assert all(one.geometry.equals(two.geometry) for one, two in zip(read.values(), ours.values(), strict=True))


@needs_stores
def test_the_tile_server_draws_the_lesion_to_the_pixel(
    lesion_slide: Path, pointing: Pointing, places: dict[str, Any], tmp_path: Path
) -> None:
    """By the requests that the page of `tiatoolbox visualize` makes."""
    from tiatoolbox.visualization.tileserver import TileServer

    _, outputs = run(pointing(1), [lesion_slide], tmp_path, "annotationstore")
    client = TileServer("viewer", {}).test_client()
    client.get("/tileserver/session_id")
    session = client.get_cookie("session_id").value
    slide, overlay = (quote(str(path), safe="") for path in (lesion_slide, outputs[lesion_slide]))
    assert client.put("/tileserver/slide", data={"slide_path": slide}).status_code == 200
    types = client.put("/tileserver/overlay", data={"overlay_path": overlay}).get_json(force=True)
    assert "Inspected" in types
    client.put("/tileserver/color_prop", data={"prop": '"weight"'})
    shown = client.get("/tileserver/tap_query/540/350").get_json(force=True)
    assert shown["weight"] == 1
    assert client.get("/tileserver/tap_query/500/350").get_json(force=True) == {}

    x, y, right, bottom = corners(places["lesion"])
    url = f"/tileserver/layer/overlay/{session}/zoomify/TileGroup0/2-{x // 256}-{y // 256}@1x.jpg"
    alpha = np.asarray(Image.open(io.BytesIO(client.get(url).data)).convert("RGBA"))[..., 3]
    rows, columns = np.flatnonzero((alpha > 0).any(1)), np.flatnonzero((alpha > 0).any(0))
    drawn = columns[0] + x // 256 * 256, rows[0] + y // 256 * 256, columns[-1] + 1, rows[-1] + 1
    assert np.abs(np.subtract(drawn, (x, y, right % 256, bottom % 256))).max() <= 1


def test_arrays(lesion_slide: Path, pointing: Pointing, places: dict[str, Any], tmp_path: Path) -> None:
    predictor, outputs = run(pointing(2), [lesion_slide], tmp_path)
    prediction = predictor.predictions[lesion_slide]
    group = zarr.open_group(outputs[lesion_slide], mode="r")
    assert group["coordinates"][:].tolist() == [list(corners(places[name])) for name in ("lesion", "other")]
    np.testing.assert_array_equal(group["weights"][:], prediction.glimpses[0].weights)
    np.testing.assert_array_equal(group["probabilities"][:], prediction.probabilities)
    assert group.attrs["label"] == prediction.label == prediction.classes[int(group["predictions"][0])]
    assert (group.attrs["units"], group.attrs["resolution"]) == ("baseline", 1.0)

    arrays = tia.AttentionPredictor(pointing(2)).run([lesion_slide], output_type="dict")[lesion_slide]
    np.testing.assert_array_equal(arrays["coordinates"], group["coordinates"][:])
    assert arrays["read"].all()


def test_qupath(lesion_slide: Path, pointing: Pointing, tmp_path: Path) -> None:
    from wsi_attention.export.qupath import validate

    _, outputs = run(pointing(2), [lesion_slide], tmp_path, "qupath")
    collection = json.loads(outputs[lesion_slide].read_text())
    assert [512, 320] in collection["features"][0]["geometry"]["coordinates"][0]
    assert validate(collection, (1003, 811)) == []


def test_masks_of_every_kind(lesion_slide: Path, pointing: Pointing, places: dict[str, Any], tmp_path: Path) -> None:
    only_other = np.zeros((82, 101), np.uint8)
    only_other[60:, :40] = 1
    Image.fromarray(only_other * 255).save(tmp_path / "mask.png")
    for mask in (only_other, np.dstack([only_other] * 3) * 255, tmp_path / "mask.png", str(tmp_path / "mask.png")):
        found = tia.AttentionPredictor(pointing(1)).run([lesion_slide], masks=[mask], output_type="dict")
        assert found[lesion_slide]["coordinates"].tolist() == [list(corners(places["other"]))]
    reader = tia.WsiAttentionReader(lesion_slide)
    theirs = reader.tissue_mask("otsu")
    found = tia.AttentionPredictor(pointing(1)).run([reader], masks=[theirs], output_type="dict")
    assert found[lesion_slide]["coordinates"].tolist() == [list(corners(places["lesion"]))]
    predictor = tia.AttentionPredictor(pointing(1))
    predictor.run([lesion_slide], auto_get_mask=False, output_type="dict")
    tissue = predictor.predictions[lesion_slide].tissue
    assert tissue.mask.all()
    assert tissue.source == "everywhere"


def test_one_bad_slide_costs_no_other(lesion_slide: Path, pointing: Pointing, tmp_path: Path) -> None:
    (tmp_path / "broken.svs").write_text("no slide")
    predictor, outputs = run(pointing(1), [tmp_path / "broken.svs", lesion_slide], tmp_path)
    assert list(outputs) == [lesion_slide]
    assert "broken.svs" in predictor.failures[tmp_path / "broken.svs"]
    with pytest.raises(SlideOpenError, match=r"broken\.svs"):
        tia.AttentionPredictor(pointing(1)).run([tmp_path / "broken.svs"], output_type="dict")


def test_what_is_refused(lesion_slide: Path, pointing: Pointing, tmp_path: Path) -> None:
    predictor = tia.AttentionPredictor(pointing(1))
    saved = {"save_dir": tmp_path / "out", "output_type": "zarr"}
    for problem, images, more in (
        ("attention needs whole slides", [lesion_slide], {**saved, "patch_mode": True}),
        ("output_type 'csv' is unknown; possible: annotationstore, zarr", [lesion_slide], {"output_type": "csv"}),
        ("output_type 'zarr' needs save_dir", [lesion_slide], {"output_type": "zarr"}),
        ("output_type 'dict' takes no save_dir", [lesion_slide], {**saved, "output_type": "dict"}),
        ("2 masks for 1 images", [lesion_slide], {**saved, "masks": [None, None]}),
        ("two slides are called 'lesion'", [lesion_slide, tmp_path / "b" / "lesion.svs"], saved),
        ("got ndarray; wrap arrays in a reader", [np.zeros((8, 8, 3), np.uint8)], saved),
        ("a mask is a path, an array", [lesion_slide], {**saved, "masks": [object()]}),
    ):
        with pytest.raises(InputError, match=problem):
            predictor.run(images, **more)
    with pytest.raises(NoTissueError, match="marks no tissue"):
        predictor.run([lesion_slide], masks=[np.zeros((4, 4))], output_type="dict")
    with pytest.raises(FileNotFoundError):
        tia.WsiAttentionReader(tmp_path / "missing.svs")


@pytest.mark.skipif(STORES, reason="this Python can hold stores")
def test_a_python_without_extensions_is_told_before_any_work(lesion_slide: Path, pointing: Pointing, tmp_path) -> None:
    with pytest.raises(MissingExtraError, match="sqlite3 loads extensions"):
        run(pointing(1), [lesion_slide], tmp_path, "annotationstore")
    assert not (tmp_path / "out").exists()


def test_a_missing_mpp_is_never_guessed(pointing: Pointing, tmp_path: Path) -> None:
    from tiatoolbox.wsicore.wsireader import VirtualWSIReader

    pixels = np.full((256, 256, 3), (232, 200, 222), np.uint8)
    pixels[64:128, 128:192] = (95, 55, 140)
    predictor = tia.AttentionPredictor(pointing(1))
    with pytest.raises(MissingMppError, match="does not say how large a pixel is"):
        predictor.run([VirtualWSIReader(pixels)], output_type="dict")
    said = {"wsireader_kwargs": {"mpp": (0.5, 0.5)}, "output_type": "dict", "auto_get_mask": False}
    (found,) = predictor.run([VirtualWSIReader(pixels)], **said).values()
    assert found["coordinates"].tolist() == [[128, 64, 192, 128]]


@pytest.mark.parametrize(
    "asked",
    [
        {"resolution": 0, "units": "level"},
        {"resolution": 1, "units": "mpp"},
        {"resolution": 0.9, "units": "mpp"},
        {"resolution": 5, "units": "power"},
        {"resolution": 0.3, "units": "baseline"},
    ],
)
def test_our_reader_reads_as_theirs(real_slide: Path, asked: dict[str, Any]) -> None:
    from tiatoolbox.wsicore.wsireader import OpenSlideWSIReader, WSIReader

    ours, theirs = tia.WsiAttentionReader(real_slide), OpenSlideWSIReader(real_slide)
    assert WSIReader.open(ours) is ours
    assert ours.slide.reader == "tiff"
    for place in ((0, 0), (700, 1501), (-40, -30), (2150, 2900)):
        pixels = [one.read_rect(place, (200, 160), **asked) for one in (ours, theirs)]
        np.testing.assert_array_equal(*pixels)
        bounds = [one.read_bounds((*place, place[0] + 400, place[1] + 300), **asked) for one in (ours, theirs)]
        np.testing.assert_array_equal(*bounds)
    np.testing.assert_array_equal(*(one.slide_thumbnail(2, "power") for one in (ours, theirs)))
    one, two = ours.info.as_dict(), theirs.info.as_dict()
    for name in ("slide_dimensions", "level_dimensions", "level_downsamples", "objective_power", "vendor", "axes"):
        assert one[name] == two[name], name
    np.testing.assert_allclose(one["mpp"], two["mpp"])
    again = pickle.loads(pickle.dumps(ours))
    np.testing.assert_array_equal(again.read_rect((700, 1500), (64, 64)), ours.read_rect((700, 1500), (64, 64)))


def test_patch_predictor_reads_through_our_reader(lesion_slide: Path, tmp_path: Path) -> None:
    from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig
    from tiatoolbox.models.engine.patch_predictor import PatchPredictor
    from tiatoolbox.models.models_abc import ModelABC

    class Colours(ModelABC):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.float().mean((1, 2)) / 255

        @staticmethod
        def infer_batch(model: Any, batch_data: torch.Tensor, *, device: str = "cpu") -> np.ndarray:
            return model(batch_data).numpy()

        @staticmethod
        def postproc(probabilities: Any) -> Any:
            return probabilities.argmax(-1)

    class Predictor(tia.KeepsReader, PatchPredictor):
        pass

    reader = tia.WsiAttentionReader(lesion_slide)
    config = IOPatchPredictorConfig(
        input_resolutions=[{"units": "mpp", "resolution": 0.5}], patch_input_shape=(64, 64), stride_shape=(64, 64)
    )
    reads: list[Any] = []
    real = reader.slide.read
    reader.slide.read = lambda *given: reads.append(given) or real(*given)  # type: ignore[method-assign]
    predictor = Predictor(model=Colours(), batch_size=64, num_workers=0, device="cpu", verbose=False)
    out = predictor.run(
        [reader], patch_mode=False, ioconfig=config, save_dir=tmp_path / "patches", output_type="zarr",
        return_probabilities=True, auto_get_mask=False,
    )  # fmt: skip
    group = zarr.open_group(str(next(iter(out.values()))), mode="r")
    darkest = int(group["probabilities"][:].sum(1).argmin())
    assert group["coordinates"][darkest].tolist() == [512, 320, 576, 384]
    assert len(reads) >= group["probabilities"].shape[0] == 16 * 13


def test_the_sample_slide_and_the_demo_model(sample_slide: Path, tmp_path: Path) -> None:
    predictor, _ = run(load_model("demo"), [sample_slide], tmp_path)
    with open_slide(sample_slide) as slide:
        alone = predict(slide, load_model("demo"), device="cpu")
    np.testing.assert_array_equal(predictor.predictions[sample_slide].probabilities, alone.probabilities)


@needs_stores
def test_a_real_slide(real_slide: Path, tmp_path: Path) -> None:
    from tiatoolbox.annotation import SQLiteStore

    reader = tia.WsiAttentionReader(real_slide)
    _, outputs = run(load_model("demo"), [reader], tmp_path, "annotationstore", masks=[reader.tissue_mask("otsu")])
    store = SQLiteStore(outputs[real_slide])
    tiles = store.query(where="props['object'] == 'tile'")
    assert len(tiles) > 4
    assert sum(one.properties["weight"] for one in tiles.values()) == pytest.approx(1, abs=1e-3)


@needs_stores
def test_the_example_and_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = ROOT / "plugins" / "tiatoolbox"
    monkeypatch.setattr(sys, "argv", ["example.py", str(SAMPLE), "demo", str(tmp_path)])
    runpy.run_path(str(plugin / "example.py"), run_name="__main__")
    shown = capsys.readouterr().out
    assert "lesion {'benign': 0.0" in shown
    assert "2 annotations at (3968, 1664)" in shown
    assert Image.open(tmp_path / "overlay.webp").getbbox()
    (code,) = re.findall(r"```python\n(.*?)```", (plugin / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample_slides").symlink_to(ROOT / "sample_slides")
    exec(compile(code, "README.md", "exec"), {})
    assert "(3840.0, 1536.0, 4096.0, 1792.0) 0.98" in capsys.readouterr().out
