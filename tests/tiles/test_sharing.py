"""Tiles that share stored tiles: each is decoded once, and pixels, failures and bytes are those of reading apart."""

from __future__ import annotations

from pathlib import Path

import dask
import numpy as np
import pytest
import tifffile

from wsi_attention.slide.readers.tiff.reader import TiffRequest
from wsi_attention.slide.seen import Overview, Seen
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.slide.view import View
from wsi_attention.structures import TileSet
from wsi_attention.testing.slide_writers import write_ome_zarr
from wsi_attention.tiles import reading
from wsi_attention.tiles.reading import TileBlock, read_tiles
from wsi_attention.tiles.sharing import shares_of

SIDE = 64


def noise(width: int = 700, height: int = 530) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def tiff(folder: Path, compression: str = "deflate", **options: object) -> Path:
    path = folder / "a.tif"
    tile = (SIDE, SIDE)
    tifffile.imwrite(path, noise(), tile=tile, compression=compression, photometric="rgb", **options)
    return path


def lattice(start: int = -70, step: int = 45, size: tuple[int, int] = (48, 50)) -> TileSet:
    """Tiles that overlap, from beyond the slide on the one side to beyond it on the other."""
    rows, cols = np.mgrid[start:640:step, start:790:step]
    places = np.random.default_rng(1).permutation(np.stack([cols, rows], axis=-1).reshape(-1, 2))
    return TileSet(places, size, 1.0)


def apart(slide: Slide, tiles: TileSet, monkeypatch: pytest.MonkeyPatch) -> TileBlock:
    with monkeypatch.context() as patch:
        patch.setattr(reading, "shares_of", lambda *given: None)
        return read_tiles(slide, tiles)


def equal(one: TileBlock, other: TileBlock) -> bool:
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert one.valid.tolist() == other.valid.tolist()
    return (one.errors, one.bytes) == (other.errors, other.bytes)


@pytest.mark.parametrize("size", [(48, 50), (150, 20), (64, 64)])
def test_same_pixels_as_one_by_one_inside_and_beyond_the_slide(tmp_path: Path, size: tuple[int, int]) -> None:
    with open_slide(tiff(tmp_path), reader="tiff", mpp=0.5) as slide:
        tiles, view = lattice(size=size), View(slide, 1.0)
        assert shares_of(view, tiles.locations[0], size) is not None
        expected = np.stack([view.read((int(x), int(y)), size) for x, y in tiles.locations[0]])
        for workers in (1, 3):
            with dask.config.set(num_workers=workers):
                for batch in (8, 1000):
                    np.testing.assert_array_equal(read_tiles(slide, tiles, batch).pixels, expected)


def test_chunks_of_a_store_are_shared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ome_zarr(tmp_path / "a.ome.zarr", [noise()], 0.5, "0.5")
    with open_slide(tmp_path / "a.ome.zarr", reader="zarr") as slide:
        tiles = lattice(step=20)
        assert shares_of(View(slide, 1.0), tiles.locations[0], tiles.size) is not None
        assert equal(read_tiles(slide, tiles), apart(slide, tiles, monkeypatch))


def test_no_stored_tile_is_decoded_twice_however_many_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    place = TiffRequest._place
    monkeypatch.setattr(
        TiffRequest, "_place", lambda self, tile, content: decoded.append(tile) or place(self, tile, content)
    )
    with open_slide(tiff(tmp_path), reader="tiff", mpp=0.5) as slide, dask.config.set(num_workers=3):
        decoded.clear()
        read_tiles(slide, lattice(), batch=8)
    assert sorted(decoded) == list(range(11 * 9))


def test_tiles_that_share_little_other_scales_and_other_readers_are_read_apart(tmp_path: Path) -> None:
    far = np.stack(np.mgrid[0:600:100, 0:500:100], axis=-1).reshape(-1, 2) + 40
    near = lattice().locations[0]
    path = tiff(tmp_path)
    with open_slide(path, reader="tiff", mpp=0.5) as slide:
        assert shares_of(View(slide, 1.0), far, (48, 48)) is None
        assert shares_of(View(slide, 1.0), near[:1], (48, 48)) is None
        assert shares_of(View(slide, 2.0), near, (48, 48)) is None
    with open_slide(path, reader="openslide", mpp=0.5) as slide:
        assert shares_of(View(slide, 1.0), near, (48, 48)) is None
    with open_slide([noise()]) as slide:
        assert shares_of(View(slide, 1.0), near, (48, 48)) is None


def test_a_damaged_stored_tile_fails_those_tiles_that_need_it_in_the_same_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiff(tmp_path)
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages.first.dataoffsets[11 * 4 + 5]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(200))
    with open_slide(path, reader="tiff", mpp=0.5) as slide:
        tiles = lattice()
        found = read_tiles(slide, tiles)
        hit = (
            (tiles.boxes[0, :, :2] < np.array([6, 5]) * SIDE)
            & (tiles.boxes[0, :, :2] + (48, 50) > np.array([5, 4]) * SIDE)
        ).all(1)
        assert found.valid.tolist() == (~hit).tolist()
        assert 0 < hit.sum() < len(hit)
        assert equal(found, apart(slide, tiles, monkeypatch))


def test_stored_tiles_that_are_not_there_are_white_or_lost_as_they_are_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stored tile of no bytes is blank; where an overview shows something there, tiles over it are lost."""
    path = tiff(tmp_path)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tags = tif.pages.first.tags
        for name in ("TileOffsets", "TileByteCounts"):
            values = list(tags[name].value)
            values[11 * 4 + 5] = values[11 * 2 + 2] = 0
            tags[name].overwrite(values)
    with open_slide(path, reader="tiff", mpp=0.5) as slide:
        tiles = lattice()
        blank = read_tiles(slide, tiles)
        assert blank.valid.all()
        assert equal(blank, apart(slide, tiles, monkeypatch))
        shown = np.full((67, 88, 3), 255, np.uint8)
        shown[32:40, 40:48] = (150, 60, 140)
        slide.seen = Seen(Overview(shown, 8.0))
        lost = read_tiles(slide, tiles)
        assert 0 < lost.valid.sum() < len(lost.valid)
        assert equal(lost, apart(slide, tiles, monkeypatch))
