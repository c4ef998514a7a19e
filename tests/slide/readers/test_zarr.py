"""OME-Zarr in its variants, and stores that must not be trusted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from wsi_attention.errors import SlideOpenError, TileReadError, UnsupportedSlideError
from wsi_attention.slide.slide import open_slide

Writer = Callable[..., Path]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("suffix", [".zarr", ".zarr.zip"])
@pytest.mark.parametrize("axes", ["cyx", "yxc", "tczyx"])
def test_variants(
    zarr_format: int, suffix: str, axes: str, tmp_path: Path, write_ome_zarr: Writer, pyramid: tuple[np.ndarray, ...]
) -> None:
    path = write_ome_zarr(tmp_path / f"slide{suffix}", zarr_format, axes)
    with open_slide(path) as slide:
        assert slide.reader == "zarr"
        assert slide.mpp == 0.25
        assert slide.mpp_source == "ome-zarr scale"
        assert slide.level_downsamples == (1.0, 2.0, 4.0)
        assert slide.facts.tile_sizes == ((64, 64),) * 3
        for level, expected in enumerate(pyramid):
            assert np.array_equal(slide.read((0, 0), level, slide.level_dimensions[level]), expected)
        assert np.array_equal(slide.read((200, 100), 1, (40, 30)), pyramid[1][50:80, 100:140])


def test_folder_and_zip_have_one_fingerprint_whatever_they_are_called(tmp_path: Path, write_ome_zarr: Writer) -> None:
    with (
        open_slide(write_ome_zarr(tmp_path / "a.zarr")) as one,
        open_slide(write_ome_zarr(tmp_path / "b.zarr.zip")) as two,
    ):
        assert one.fingerprint == two.fingerprint


def test_zip_with_one_folder_inside(tmp_path: Path, ome_zarr: Path, pyramid: tuple[np.ndarray, ...]) -> None:
    shutil.copytree(ome_zarr, tmp_path / "inner" / "slide.zarr")
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "inner")
    with open_slide(archive) as slide:
        assert np.array_equal(slide.read((0, 0), 2, (150, 100)), pyramid[2])


def test_the_real_zip_equals_its_origin(shared_data: Path) -> None:
    with open_slide(shared_data / "slides-derived" / "cmu1sr-v04.ome.zarr.zip") as slide:
        assert slide.level_dimensions == ((1536, 1536), (768, 768), (384, 384))
        assert slide.level_downsamples == pytest.approx((1.0, 2.0, 4.0))
        assert slide.read((0, 0), 0, (64, 64)).mean() > 150


@pytest.mark.parametrize(
    ("unit", "step", "mpp"),
    [
        ("nanometer", 250, 0.25),
        ("millimeter", 0.00025, 0.25),
        ("millimeter", 0.25, None),
        ("", 1, None),
        ("pixel", 1, None),
    ],
)
def test_units(unit: str, step: float, mpp: float | None, tmp_path: Path, write_ome_zarr: Writer) -> None:
    with open_slide(write_ome_zarr(tmp_path / "a.zarr", unit=unit, step=step)) as slide:
        assert slide.mpp_xy is None if mpp is None else slide.mpp == pytest.approx(mpp)


def test_writes_nothing(tmp_path: Path, write_ome_zarr: Writer) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr.zip")
    before = path.read_bytes()
    with open_slide(path) as slide:
        slide.read((0, 0), 0, (8, 8))
    assert path.read_bytes() == before


def edited(path: Path, change: Callable[[dict], None], file: str = ".zattrs") -> Path:
    described = json.loads((path / file).read_text())
    change(described)
    (path / file).write_text(json.dumps(described))
    return path


@pytest.mark.parametrize("name", ["../other/0", "/etc", "a/../../b", "..\\b", ""])
def test_levels_outside_the_store_are_refused(name: str, tmp_path: Path, write_ome_zarr: Writer) -> None:
    def lead_out(described: dict) -> None:
        described["multiscales"][0]["datasets"][0]["path"] = name

    path = edited(write_ome_zarr(tmp_path / "a.zarr"), lead_out)
    with pytest.raises(SlideOpenError, match="outside the store"):
        open_slide(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a.update(dtype="|O", filters=[{"id": "pickle", "protocol": 5}]), "object|cannot open"),
        (lambda a: a.update(filters=[{"id": "pickle", "protocol": 5}]), "codec 'pickle' is not accepted|cannot open"),
        (lambda a: a.update(shape=[3, 2**40, 2**40]), "more than any slide"),
        (lambda a: a.update(chunks=[3, 400_000, 400_000]), "too large to decode"),
        (lambda a: a.update(shape=[3, 0, 601]), "601×0"),
        (lambda a: a.update(shape=[3, 403]), "axes cyx|cannot open"),
        (lambda a: a.update(dtype="<f8"), "float64"),
        (lambda a: a.update(dtype="nonsense"), "cannot open"),
        (lambda a: a.clear(), "is not there|cannot open"),
    ],
)
def test_hostile_array_metadata(
    change: Callable[[dict], None], says: str, tmp_path: Path, write_ome_zarr: Writer
) -> None:
    path = edited(write_ome_zarr(tmp_path / "a.zarr"), change, "0/.zarray")
    with pytest.raises((SlideOpenError, UnsupportedSlideError), match=says) as caught:
        open_slide(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a["multiscales"][0].update(datasets=[]),
        lambda a: a["multiscales"][0].update(datasets=5),
        lambda a: a.update(multiscales="x"),
        lambda a: a.update(multiscales=[5]),
        lambda a: a.clear(),
        lambda a: a["multiscales"][0]["datasets"][1].update(path="missing"),
        lambda a: a["multiscales"][0].update(axes=[{"name": "q"}]),
    ],
)
def test_broken_image_metadata(change: Callable[[dict], None], tmp_path: Path, write_ome_zarr: Writer) -> None:
    path = edited(write_ome_zarr(tmp_path / "a.zarr"), change)
    with pytest.raises((SlideOpenError, UnsupportedSlideError)) as caught:
        open_slide(path)
    assert str(caught.value).startswith(str(path))


def test_stacks_are_refused(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    group.create_array("0", shape=(4, 3, 64, 64), dtype="uint8", chunks=(1, 3, 64, 64))
    axes = [{"name": name} for name in "zcyx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0"}]}]
    with pytest.raises(UnsupportedSlideError, match="only 8-bit RGB"):
        open_slide(tmp_path / "a.zarr")


def test_a_damaged_chunk_fails_alone(tmp_path: Path, write_ome_zarr: Writer, pyramid: tuple[np.ndarray, ...]) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr")
    chunk = path / "0" / "0.1.1"
    chunk = chunk if chunk.exists() else path / "0" / "0" / "1" / "1"
    chunk.write_bytes(b"damaged")
    with open_slide(path) as slide:
        with pytest.raises(TileReadError, match="64×64 pixels at"):
            slide.read((64, 64), 0, (64, 64))
        assert np.array_equal(slide.read((0, 0), 0, (64, 64)), pyramid[0][:64, :64])
        assert len(slide.fingerprint) == 64


def test_channels_named_after_dyes_are_refused(tmp_path: Path, write_ome_zarr: Writer) -> None:
    def name_channels(described: dict) -> None:
        described["omero"] = {"channels": [{"label": "DAPI"}, {"label": "FITC"}, {"label": "Cy3"}]}

    with pytest.raises(UnsupportedSlideError, match="a channel is called 'DAPI'"):
        open_slide(edited(write_ome_zarr(tmp_path / "a.zarr"), name_channels))
