from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import slide_sets
from slide_mosaic import write_large_slide

from wsi_attention.errors import InputError
from wsi_attention.testing import slide_writers
from wsi_attention.testing.slides import SlideSpec, SlideTruth, paint_slide, write_slide

SMALL = SlideSpec((1100, 900), seed=3, label="lesion", lesions=((420.0, 380.0, 90.0),))


def mean_red(rgb: np.ndarray, x: float, y: float, half: int = 30) -> float:
    top, left = max(round(y) - half, 0), max(round(x) - half, 0)
    return float(rgb[top : round(y) + half, left : round(x) + half, 0].mean())


def shoelace(polygon: np.ndarray) -> float:
    x, y = np.asarray(polygon).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


@pytest.fixture(scope="module")
def small() -> tuple[np.ndarray, SlideTruth]:
    return paint_slide(SMALL)


def test_same_spec_same_pixels(small):
    again, truth = paint_slide(SMALL)
    assert np.array_equal(small[0], again)
    assert np.array_equal(small[1].lesions[0], truth.lesions[0])
    other, _ = paint_slide(SlideSpec(SMALL.size, seed=4, label="lesion", lesions=SMALL.lesions))
    assert (other != again).any(axis=2).mean() > 0.05


def test_lesion_is_dark_where_it_was_planted(small):
    rgb, truth = small
    (polygon,) = truth.lesions
    assert np.hypot(*(polygon.mean(axis=0) - (420, 380))) < 25
    assert abs(np.sqrt(shoelace(polygon) / np.pi) - 90) < 25
    inside = mean_red(rgb, 420, 380)
    tissue = rgb[..., 0][(rgb.max(axis=2) - rgb.min(axis=2).astype(int)) > 25]
    assert inside < 150 < np.median(tissue)


@pytest.mark.parametrize("place", [(1099, 450), (500, 899), (1095, 895), (4, 4)])
def test_lesion_at_the_border_is_inside_the_slide(place):
    spec = SlideSpec((1100, 900), seed=8, label="lesion", lesions=((*place, 100.0),))
    rgb, truth = paint_slide(spec)
    (polygon,) = truth.lesions
    assert polygon.min() >= 0 and (polygon <= spec.size).all()
    x, y = np.clip(place, 25, np.array(spec.size) - 25)
    assert mean_red(rgb, x, y, 20) < 160


def test_random_lesions_are_tiny_and_benign_slides_have_none():
    _, truth = paint_slide(SlideSpec((4096, 4096), seed=5, label="lesion"))
    assert truth.lesions and 0.001 < truth.lesion_area / truth.tissue_area <= 0.005
    assert truth.lesion_area == pytest.approx(sum(shoelace(polygon) for polygon in truth.lesions))
    _, larger = paint_slide(SlideSpec((4096, 4096), seed=5, label="lesion", lesion_scale=3.0))
    assert 2 < larger.lesion_area / truth.lesion_area < 4
    _, benign = paint_slide(SlideSpec((1024, 1024), seed=5))
    assert benign.lesions == () and benign.geojson()["features"] == []


def test_coverage_is_what_was_asked():
    for coverage in (0.15, 0.5):
        rgb, truth = paint_slide(SlideSpec((2048, 2048), seed=6, coverage=coverage))
        assert truth.tissue_area / 2048**2 == pytest.approx(coverage, abs=0.04)
        coloured = (rgb.max(axis=2).astype(int) - rgb.min(axis=2)) > 15
        assert 0.4 * coverage < coloured.mean() < coverage + 0.15


@pytest.mark.parametrize("name", ["a.svs", "a.tiff"])
def test_openslide_reads_tiff_formats(tmp_path, name, small):
    openslide = pytest.importorskip("openslide")
    write_slide(tmp_path / name, SMALL)
    with openslide.OpenSlide(str(tmp_path / name)) as slide:
        assert slide.dimensions == SMALL.size
        assert slide.level_dimensions == ((1100, 900), (275, 225))
        assert slide.level_downsamples == pytest.approx((1.0, 4.0))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        assert slide.properties["openslide.vendor"] == {"a.svs": "aperio", "a.tiff": "generic-tiff"}[name]
        whole = np.asarray(slide.read_region((0, 0), 0, SMALL.size).convert("RGB")).astype(int)
        assert np.abs(whole - small[0]).mean() < 8
        coarse = np.asarray(slide.read_region((0, 0), 1, (275, 225)).convert("RGB")).astype(int)
        averaged = small[0].reshape(225, 4, 275, 4, 3).mean(axis=(1, 3))
        assert np.abs(coarse - averaged).mean() < 6
        if name == "a.svs":
            assert slide.properties["openslide.objective-power"] == "20"
            assert set(slide.associated_images) == {"thumbnail", "label", "macro"}


def test_tiffslide_reads_ome_tiff_levels(tmp_path, small):
    tiffslide = pytest.importorskip("tiffslide")
    write_slide(tmp_path / "a.ome.tiff", SMALL)
    with tiffslide.TiffSlide(tmp_path / "a.ome.tiff") as slide:
        assert slide.level_dimensions == ((1100, 900), (275, 225))
        assert float(slide.properties["tiffslide.mpp-x"]) == pytest.approx(0.5)
        tile = slide.read_region((300, 300), 0, (256, 256), as_array=True).astype(int)
        assert np.abs(tile - small[0][300:556, 300:556]).mean() < 8


@pytest.mark.parametrize(("name", "version"), [("a.ome.zarr", "0.4"), ("a.ome.zarr", "0.5"), ("a.ome.zarr.zip", "0.4")])
def test_zarr_is_lossless(tmp_path, name, version, small):
    import zarr

    path = tmp_path / name
    write_slide(path, SlideSpec(SMALL.size, seed=3, label="lesion", lesions=SMALL.lesions, ngff=version))
    store = zarr.storage.ZipStore(path, mode="r") if path.suffix == ".zip" else path
    group = zarr.open_group(store, mode="r")
    assert group.metadata.zarr_format == {"0.4": 2, "0.5": 3}[version]
    attributes = dict(group.attrs) if version == "0.4" else group.attrs["ome"]
    (multiscale,) = attributes["multiscales"]
    assert [axis["name"] for axis in multiscale["axes"]] == ["c", "y", "x"]
    assert multiscale["datasets"][1]["coordinateTransformations"][0]["scale"] == [1.0, 2.0, 2.0]
    assert np.array_equal(np.moveaxis(group["0"][:], 0, -1), small[0])
    assert group["1"].shape == (3, 225, 275)


@pytest.mark.parametrize(
    ("factor", "downsample"), [(4, (1101 / 275 + 903 / 225) / 2), (3, (1101 / 367 + 903 / 301) / 2)]
)
def test_odd_downsamples(tmp_path, factor, downsample):
    openslide = pytest.importorskip("openslide")
    write_slide(tmp_path / "a.svs", SlideSpec((1101, 903), level_factor=factor))
    with openslide.OpenSlide(str(tmp_path / "a.svs")) as slide:
        assert slide.dimensions == (1101, 903)
        assert slide.level_downsamples[1] == pytest.approx(downsample)


def test_refusals(tmp_path):
    with pytest.raises(InputError, match=r"\.svs"):
        write_slide(tmp_path / "a.png", SMALL)
    with pytest.raises(InputError, match="benign"):
        SlideSpec(label="tumour")
    with pytest.raises(InputError, match="large slide"):
        write_large_slide(tmp_path / "a.ome.zarr", SlideSpec())
    assert list(tmp_path.iterdir()) == []


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "a.tiff").write_bytes(b"old")

    def fail(path: Path, *rest: object) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setitem(slide_writers.TILED, "tiff", fail)
    with pytest.raises(OSError, match="disk full"):
        write_slide(tmp_path / "a.tiff", SlideSpec((512, 512)))
    assert [file.name for file in tmp_path.iterdir()] == ["a.tiff"]
    assert (tmp_path / "a.tiff").read_bytes() == b"old"


def test_ground_truth_is_closed_geojson_in_level_0_pixels(small):
    (feature,) = small[1].geojson()["features"]
    (ring,) = feature["geometry"]["coordinates"]
    assert ring[0] == ring[-1] and len(ring) > 20
    assert np.allclose(ring[:-1], small[1].lesions[0], atol=0.06)
    assert feature["properties"]["objectType"] == "annotation"
    assert set(feature["properties"]["classification"]) == {"name", "color"}


def test_command_writes_a_labelled_set(tmp_path):
    command = [
        str(tmp_path),
        "--count",
        "4",
        "--seed",
        "70",
        "--size",
        "700",
        "--formats",
        "svs,ome-zarr",
        "--workers",
        "1",
    ]
    slide_sets.main(command)
    with (tmp_path / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["benign", "lesion", "benign", "lesion"]
    assert [row["slide"] for row in rows][1:3] == ["slide_000071.svs", "slide_000072.ome.zarr"]
    for row in rows:
        assert (tmp_path / row["slide"]).exists()
        truth = json.loads((tmp_path / "groundtruth" / f"{row['slide'].split('.')[0]}.geojson").read_text())
        assert bool(truth["features"]) == (row["label"] == "lesion")


@pytest.mark.slow
def test_large_slide_has_its_lesions_where_it_says_on_every_level(tmp_path):
    openslide = pytest.importorskip("openslide")
    spec = SlideSpec((12_000, 9_900), mpp=0.5, seed=2, label="lesion")
    truth = write_large_slide(tmp_path / "large.svs", spec)
    assert truth.lesions and truth.lesion_area / truth.tissue_area < 0.005
    with openslide.OpenSlide(str(tmp_path / "large.svs")) as slide:
        assert slide.level_dimensions == ((12_000, 9_900), (3000, 2475), (750, 618))
        assert float(slide.properties["openslide.mpp-x"]) == 0.5
        for polygon in truth.lesions:
            x, y = (int(value) for value in polygon.mean(axis=0))
            near = np.asarray(slide.read_region((x - 256, y - 256), 0, (512, 512)).convert("RGB"))
            assert mean_red(near, 256, 256) < 150 < mean_red(near, 12, 12, 12) + 30
            for level in (1, 2):
                d = 4**level
                corner, size = (x // 64 * 64 - 256, y // 64 * 64 - 256), 512 // d
                coarse = np.asarray(slide.read_region(corner, level, (size, size)).convert("RGB")).astype(int)
                fine = np.asarray(slide.read_region(corner, 0, (512, 512)).convert("RGB").reduce(d))
                shifts = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
                off = {shift: np.abs(np.roll(coarse, shift, (0, 1)) - fine).mean() for shift in shifts}
                # half a pixel out of place, one neighbour would fit as well as no shift at all
                assert off[0, 0] < 0.8 * min(off[shift] for shift in shifts[1:]), (level, off)


def test_samples_are_half_positive_and_in_every_format():
    from sample_set import SAMPLES

    from wsi_attention.testing.slides import SUFFIXES, format_of

    assert {format_of(Path(name)) for name in SAMPLES} == set(SUFFIXES)
    assert sum(spec.label == "lesion" for spec in SAMPLES.values()) * 2 == len(SAMPLES)
