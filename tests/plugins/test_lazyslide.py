"""LazySlide and wsidata: attention on a `WSIData`, and slides read either way, by the real packages."""

from __future__ import annotations

import json
import pickle
import re
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wsi_attention import Classifier, load_model, open_slide, predict
from wsi_attention.errors import InputError, MissingMppError, SlideOpenError
from wsi_attention.registry import READERS, names
from wsi_attention.testing.readers import ReaderContract

wsidata = pytest.importorskip("wsidata", reason="pip install lazyslide")
wa = pytest.importorskip("wsi_attention_lazyslide", reason="pip install plugins/lazyslide")
shapely = pytest.importorskip("shapely")

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sample_slides" / "sample_01.svs"
pytestmark = [
    pytest.mark.filterwarnings("ignore:zarr v3 autosharding"),  # anndata's, at every write
    pytest.mark.filterwarnings("ignore:Consolidated metadata"),
]
Pointing = Callable[..., Classifier]


def opened(path: Path, reader: str | None = "wsi-attention", store: Any = None, **more: Any) -> Any:
    return wsidata.open_wsi(path, reader=reader, store=store, **more)


def boxes(wsi: Any, key: str) -> list[tuple[float, ...]]:
    return [tuple(shape.bounds) for shape in wsi.shapes[key].geometry]


def corners(box: Any) -> tuple[float, ...]:
    return (box.x, box.y, box.x + box.w, box.y + box.h)


@pytest.mark.parametrize("reader", ["wsi-attention", "openslide", "tiffslide"])
def test_lesion_to_the_pixel(lesion_slide: Path, pointing: Pointing, places: dict[str, Any], reader: str) -> None:
    wsi = opened(lesion_slide, reader)
    prediction = wa.tl.attention(wsi, pointing(2), top=1)
    assert boxes(wsi, "attention") == [corners(places["lesion"])]
    assert boxes(wsi, "attention_tiles") == [corners(places["lesion"]), corners(places["other"])]
    assert wsi.shapes["attention_tiles"][["x", "y"]].to_numpy().tolist() == [[512, 320], [192, 640]]
    weights = wsi.shapes["attention_tiles"]["weight"].to_numpy()
    np.testing.assert_array_equal(weights, prediction.glimpses[0].weights)
    assert wsi.attrs["attention"]["label"] == prediction.label
    (tile, _) = list(wsi.iter.tile_images("attention_tiles"))
    np.testing.assert_allclose(tile.image.mean((0, 1)), (95, 55, 140), atol=2)
    assert tile.image.shape == (64, 64, 3)


def test_tables_hold_features_weights_and_the_slide_s_feature(lesion_slide: Path, pointing: Pointing) -> None:
    wsi = opened(lesion_slide)
    prediction = wa.tl.attention(wsi, pointing(2), device="cpu")
    features, weights = wsi.tables["features_attention_tiles"], wsi.tables["weights_attention_tiles"]
    np.testing.assert_allclose(255 * features.X, [[95, 55, 140], [130, 90, 165]], atol=2)
    np.testing.assert_allclose(weights.to_df()["weight"], prediction.glimpses[0].weights, rtol=1e-6)
    assert features.obs["tile_id"].tolist() == wsi.shapes["attention_tiles"]["tile_id"].tolist()
    assert set(features.obs["library_id"]) == {"attention_tiles"}
    whole = features.uns["agg_ops"]["agg_attention"]["features"]
    np.testing.assert_allclose(whole[0], prediction.glimpses[0].weights @ features.X, rtol=1e-5)
    shares = torch.softmax(10 * torch.from_numpy(whole[0]).double(), -1).numpy()
    np.testing.assert_allclose(list(wsi.attrs["attention"]["probabilities"].values()), shares, atol=2e-3)
    shown = weights.uns["maps"]["attention"]
    row, column = np.unravel_index(np.nanargmax(shown["values"]), shown["values"].shape)
    assert (shown["origin"] + shown["step"] * (column, row)).tolist() == [512, 320]


def test_everything_comes_back_from_the_store(lesion_slide: Path, pointing: Pointing, tmp_path: Path) -> None:
    wsi = opened(lesion_slide, store=tmp_path / "store.zarr")
    wa.tl.attention(wsi, pointing(2), key_added="looked")
    wsi.write()
    again = opened(lesion_slide, store=tmp_path / "store.zarr")
    assert json.dumps(again.attrs["looked"], sort_keys=True) == json.dumps(wsi.attrs["looked"], sort_keys=True)
    for key in ("looked", "looked_tiles"):
        assert again.shapes[key].equals(wsi.shapes[key])
    for key in ("weights_looked_tiles", "features_looked_tiles"):
        np.testing.assert_array_equal(again.tables[key].X, wsi.tables[key].X)
    assert again.tile_spec("looked_tiles") == wsi.tile_spec("looked_tiles")
    found = again.fetch.features_anndata("features", "looked_tiles", tile_graph=False)
    assert found.shape == (2, 3)

    wa.tl.attention(again, pointing(1), key_added="looked")  # a second run replaces the first
    assert len(again.shapes["looked_tiles"]) == len(again.tables["features_looked_tiles"]) == 1
    again.write()
    third = opened(lesion_slide, store=tmp_path / "store.zarr")
    assert len(third.shapes["looked_tiles"]) == 1


def test_the_slide_s_feature_is_what_agg_wsi_gathers(lesion_slide: Path, pointing: Pointing, tmp_path: Path) -> None:
    import pandas as pd

    wsi = opened(lesion_slide, store=tmp_path / "lesion.zarr")
    wa.tl.attention(wsi, pointing(2))
    wsi.write()
    table = pd.DataFrame({"store": [str(tmp_path / "lesion.zarr")], "case": ["a"]})
    gathered = wsidata.agg_wsi(table, "features", "attention_tiles", agg_key="agg_attention", store_col="store")
    expected = wsi.tables["features_attention_tiles"].uns["agg_ops"]["agg_attention"]["features"]
    np.testing.assert_array_equal(gathered.X, expected)


def test_tissues_and_tiles_confine_attention(lesion_slide: Path, pointing: Pointing, places: dict[str, Any]) -> None:
    from wsidata.io import add_tiles, add_tissues

    wsi = opened(lesion_slide)
    ring = shapely.box(100, 100, 1000, 800) - shapely.box(*corners(places["lesion"])).buffer(1)
    add_tissues(wsi, "tissues", [ring], ids=[7])
    found = wa.tl.attention(wsi, pointing(1))
    assert found.tissue.source == "wsidata shapes tissues"
    assert boxes(wsi, "attention_tiles") == [corners(places["other"])]  # the lesion lies in a hole
    assert wsi.shapes["attention_tiles"]["tissue_id"].tolist() == [7]

    wa.tl.attention(wsi, pointing(1), tissue_key=False)
    assert boxes(wsi, "attention_tiles") == [corners(places["lesion"])]

    spec = wsidata.TileSpec.from_wsidata(wsi, 128, mpp=0.5)
    add_tiles(wsi, "tiles", np.array([[640, 384], [640, 512]]), spec, np.array([7, 7]))
    wa.tl.attention(wsi, pointing(4))
    for left, top, right, bottom in boxes(wsi, "attention_tiles"):
        assert shapely.box(left, top, right, bottom).intersects(shapely.box(640, 384, 768, 640))
    wa.tl.attention(wsi, pointing(1), tissue_key="tissues", tile_key=False)
    assert boxes(wsi, "attention_tiles") == [corners(places["other"])]


def test_lazyslide_s_own_functions_before_and_after(lesion_slide: Path, pointing: Pointing) -> None:
    zs = pytest.importorskip("lazyslide")
    wsi = zs.open_wsi(lesion_slide, reader="wsi-attention", store=None)
    zs.pp.find_tissues(wsi, level=0, filter_artifacts=False, to_hsv=True)
    zs.pp.tile_tissues(wsi, 64, mpp=0.5)
    found = wa.tl.attention(wsi, pointing(2), device="cpu")
    assert found.tissue.source == "wsidata shapes tissues, tiles"
    assert boxes(wsi, "attention_tiles")[0] == (512, 320, 576, 384)
    assert (wsi.shapes["attention_tiles"]["tissue_id"] >= 0).all()

    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    zs.tl.feature_extraction(
        wsi, mean, model_name="mean", transform=lambda image: torch.tensor(image).permute(2, 0, 1) / 255,
        tile_key="attention_tiles", device="cpu", pbar=False,
    )  # fmt: skip
    theirs, ours = wsi.tables["mean_attention_tiles"], wsi.tables["features_attention_tiles"]
    np.testing.assert_allclose(theirs.X, ours.X, atol=2e-3)
    zs.tl.feature_aggregation(wsi, "features", tile_key="attention_tiles", encoder="mean")
    kept = wsi.tables["features_attention_tiles"].uns["agg_ops"]
    assert {"agg_attention", "agg_slide"} <= set(kept)


def test_the_sample_slide_and_the_demo_model(sample_slide: Path) -> None:
    wsi = opened(sample_slide)
    found = wa.tl.attention(wsi, "demo", device="cpu")
    truth = shapely.from_geojson((ROOT / "sample_slides/groundtruth/sample_01.geojson").read_text())
    assert found.label == "lesion"
    assert wsi.shapes["attention"].geometry.iloc[0].intersects(truth)
    with open_slide(sample_slide) as slide:
        alone = predict(slide, load_model("demo"), device="cpu")
    np.testing.assert_array_equal(found.probabilities, alone.probabilities)
    np.testing.assert_array_equal(found.glimpses[0].tiles.locations, alone.glimpses[0].tiles.locations)


def test_a_real_slide(real_slide: Path, tmp_path: Path) -> None:
    zs = pytest.importorskip("lazyslide")
    wsi = zs.open_wsi(real_slide, reader="wsi-attention", store=tmp_path / "real.zarr")
    zs.pp.find_tissues(wsi)
    wa.tl.attention(wsi, "demo", device="cpu")
    wsi.write()
    again = zs.open_wsi(real_slide, store=tmp_path / "real.zarr")
    covered = shapely.union_all(again.shapes["tissues"].geometry)
    assert len(again.shapes["attention_tiles"]) > 4
    assert all(shape.intersects(covered) for shape in again.shapes["attention_tiles"].geometry)
    assert sum(again.shapes["attention_tiles"]["weight"]) == pytest.approx(1)
    assert set(again.attrs["attention"]["probabilities"]) == {"benign", "lesion"}


@pytest.mark.parametrize("method", ["zoom-in", "tnet", "rams-trans", "oaa", "trt"])
def test_every_method_is_written(
    method: str, sample_slide: Path, small_model: Callable[[str], Classifier], tmp_path: Path
) -> None:
    wsi = opened(sample_slide, store=tmp_path / "store.zarr")
    found = wa.tl.attention(wsi, small_model(method), device="cpu")
    wsi.write()
    again = opened(sample_slide, store=tmp_path / "store.zarr")
    looks = again.attrs["attention"]["looks"]
    assert len(looks) == len(set(looks)) == len(found.glimpses)
    for look in looks:
        assert sum(again.shapes[look]["weight"]) == pytest.approx(1)
        assert again.tile_spec(look).base_width == again.shapes[look].bounds.eval("maxx - minx").iloc[0]
    assert ("attention_tiles" in again.shapes) == bool(found.glimpses)


class TestWsidataAsOurReader(ReaderContract):
    path = str(SAMPLE)

    @property
    def reader(self) -> Any:
        from wsi_attention_lazyslide.slides import WsidataReader

        return WsidataReader


def test_our_reader_gives_wsidata_the_pixels_of_openslide(real_slide: Path) -> None:
    ours, theirs = opened(real_slide), opened(real_slide, "openslide")
    assert ours.reader.slide.reader == "tiff"
    for name in ("shape", "n_level", "level_shape", "level_downsample", "mpp", "magnification", "bounds"):
        assert getattr(ours.properties, name) == getattr(theirs.properties, name), name
    for place in ((0, 0), (700, 1500), (1111, 2003)):
        one, other = (one.read_region(*place, 300, 200) for one in (ours, theirs))
        np.testing.assert_array_equal(one, other)
    assert set(ours.associated_images) == set(theirs.associated_images)
    sizes = {one.thumbnail.size for one in (ours, theirs)}
    assert sizes == {(374, 500)}
    small = [np.asarray(one.thumbnail.reduce(10)).astype(int) for one in (ours, theirs)]  # the filters differ
    assert np.abs(small[0] - small[1]).max() <= 3
    np.testing.assert_array_equal(ours.read_region(-8, -8, 8, 8), np.full((8, 8, 3), 255))
    again = pickle.loads(pickle.dumps(ours.reader))
    np.testing.assert_array_equal(again.get_region(700, 1500, 64, 64), ours.read_region(700, 1500, 64, 64))
    ours.close()
    assert ours.read_region(0, 0, 8, 8).shape == (8, 8, 3)


def test_a_wsidata_is_our_slide(lesion_slide: Path, pointing: Pointing) -> None:
    wsi = opened(lesion_slide, "openslide")
    with wa.as_slide(wsi) as ours, wa.as_slide(wsi, reader="wsidata") as theirs:
        assert (ours.reader, theirs.reader) == ("tiff", "wsidata")
        assert (ours.mpp, ours.dimensions, ours.fingerprint) == (theirs.mpp, theirs.dimensions, theirs.fingerprint)
        one, other = (predict(slide, pointing(2)) for slide in (ours, theirs))
    np.testing.assert_array_equal(one.glimpses[0].tiles.locations, other.glimpses[0].tiles.locations)
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-3)
    assert pickle.loads(pickle.dumps(theirs)).read((512, 320), 0, (4, 4)).shape == (4, 4, 3)


def test_mpp_set_by_the_user_holds(lesion_slide: Path) -> None:
    wsi = opened(lesion_slide, "openslide")
    wsi.set_mpp(0.25)
    with wa.as_slide(wsi) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.25, "given")


def test_an_image_element_is_our_slide(lesion_slide: Path, pointing: Pointing, places: dict[str, Any]) -> None:
    from spatialdata import SpatialData

    whole = opened(lesion_slide, attach_images=True)
    wsi = wsidata.open_wsi(SpatialData(images={"he": whole.images["wsi"]}), image_key="he")
    with pytest.raises(MissingMppError):
        wa.tl.attention(wsi, pointing(1))
    wsi.set_mpp(0.5)
    wa.tl.attention(wsi, pointing(1))
    assert boxes(wsi, "attention") == [corners(places["lesion"])]


def test_installing_changes_no_reading(lesion_slide: Path) -> None:
    assert "wsidata" in names(READERS)
    assert wsidata.open_wsi(lesion_slide, store=None).reader.name == "openslide"
    with open_slide(lesion_slide) as slide:
        assert slide.reader == "tiff"


def test_what_is_refused(lesion_slide: Path, pointing: Pointing, tmp_path: Path, real_slide: Path) -> None:
    from wsidata.io import add_tissues

    wsi = opened(lesion_slide)
    with pytest.raises(InputError, match=r"lesion\.svs: no shapes 'nope'; there are: none"):
        wa.tl.attention(wsi, pointing(1), tissue_key="nope")
    add_tissues(wsi, "elsewhere", [shapely.box(5000, 5000, 6000, 6000)])
    with pytest.raises(InputError, match="'elsewhere' leave no place on the slide"):
        wa.tl.attention(wsi, pointing(1), tissue_key="elsewhere")
    for name in ("elsewhere", "slide_properties"):
        with pytest.raises(InputError, match=f"key_added '{name}' is the name of something else"):
            wa.tl.attention(wsi, pointing(1), key_added=name)
    with pytest.raises(InputError, match="letters, digits"):
        wa.tl.attention(wsi, pointing(1), key_added="a/b")
    with pytest.raises(SlideOpenError, match=r"no/such\.svs: no such file"):
        open_slide("no/such.svs", reader="wsidata")
    (tmp_path / "text.svs").write_text("no slide")
    with pytest.raises(SlideOpenError, match=r"text\.svs: wsidata cannot open it"):
        open_slide(tmp_path / "text.svs", reader="wsidata")
    wsi.reader.file = str(real_slide)
    with pytest.raises(InputError, match=r"pixels, the WSIData is of \(1003, 811\)"):
        wa.as_slide(wsi)
    wsi.reader.set_properties(replace(wsi.properties, n_scenes=3, scene=1))
    with pytest.raises(InputError, match=r"3 scenes; only slides of one scene"):
        wa.as_slide(wsi)


def test_the_example_and_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    plugin = ROOT / "plugins" / "lazyslide"
    monkeypatch.setattr(sys, "argv", ["example.py", str(SAMPLE), "demo", str(tmp_path)])
    runpy.run_path(str(plugin / "example.py"), run_name="__main__")
    shown = capsys.readouterr().out
    assert shown.startswith("lesion {'benign': 0.0")
    assert "n_obs × n_vars" in shown
    (code,) = re.findall(r"```python\n(.*?)```", (plugin / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("lesion {'benign': 0.0")
