"""Tiles that are not in the file: unread where the slide shows tissue at the place, glass where it shows none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
from pairs import thinned

from wsi_attention.errors import TileReadError
from wsi_attention.slide.slide import open_slide
from wsi_attention.structures import TileSet
from wsi_attention.tiles.source import SlideSource

sys.path.insert(0, str(Path(__file__).resolve().parent))

from sparse_slides import Chosen, empty_glass, pyramid, rectangle, some, write_tiff, write_zarr

Pixels = np.ndarray
Write = Callable[[Path, list[Pixels], Chosen], Path]

WRITERS: dict[str, Write] = {
    "zarr": lambda at, levels, without: write_zarr(at / "a.ome.zarr", levels, without),
    "zarr that is white where nothing is": lambda at, levels, without: write_zarr(
        at / "a.ome.zarr", levels, without, fill=255
    ),
    "zipped zarr": lambda at, levels, without: write_zarr(at / "a.ome.zarr.zip", levels, without),
    "shards": lambda at, levels, without: write_zarr(at / "a.ome.zarr", levels, without, shards=True),
    "TIFF without bytes": lambda at, levels, without: write_tiff(at / "a.tiff", levels, without),
    "TIFF without offsets": lambda at, levels, without: write_tiff(at / "a.tiff", levels, without, "TileOffsets"),
}
TILES = TileSet(np.array([[x, y] for y in range(192, 576, 64) for x in range(192, 640, 64)]), (64, 64), 1.0)
"""Tiles in the tissue that lie as the stored ones do."""
SCALES = (8.0, 0.5)
"""µm/px of an overview and of tiles."""


@pytest.fixture(scope="module")
def levels() -> list[Pixels]:
    return pyramid()


def looked_at(path: Path, reader: str = "auto") -> SlideSource:
    source = SlideSource(open_slide(path, reader))
    source.check_levels(8.0)
    return source


@pytest.mark.parametrize("how", WRITERS)
def test_tissue_that_is_not_in_the_file_is_unread(how: str, tmp_path: Path, levels: list[Pixels]) -> None:
    without = some(0.3)
    source = looked_at(WRITERS[how](tmp_path, levels, without))
    valid = source.read(TILES).valid[0].numpy()
    assert valid.tolist() == [not without(0, x // 64, y // 64) for x, y in TILES.locations[0].tolist()]
    assert 5 < (~valid).sum() == len(source.failures) == source.counters.failed
    assert "is not in the file" in source.failures[0]
    assert source.shortfalls == () == source.slide.left_out


@pytest.mark.parametrize("how", WRITERS)
def test_missing_tissue_is_told_before_a_tile_of_it_is_read(how: str, tmp_path: Path, levels: list[Pixels]) -> None:
    source = looked_at(WRITERS[how](tmp_path, levels, some(0.3)))
    source.check_stored(*SCALES)
    assert source.counters.failed == 0
    assert all("% of the tissue is not in the file at " in note for note in source.notes)
    assert 1 <= len(source.notes) <= 2


@pytest.mark.parametrize("how", thinned({how: how for how in WRITERS}, 2))
def test_sparse_files_have_all_their_tissue(how: str, tmp_path: Path, levels: list[Pixels]) -> None:
    source = looked_at(WRITERS[how](tmp_path, levels, empty_glass(levels)))
    everywhere = np.array([[x, y] for y in range(-32, 768, 50) for x in range(-32, 1024, 50)])
    found = source.read(TileSet(everywhere, (64, 64), 1.0))
    assert found.valid.all()
    source.check_stored(*SCALES)
    assert source.shortfalls == () == source.notes
    whole = looked_at(WRITERS[how](tmp_path / "whole", levels, lambda *_: False)) if how != "shards" else None
    corner = found.pixels[0, 0].numpy()
    assert (corner == 255).all()
    if whole is not None:
        assert (source.tissue_mask.mask == whole.tissue_mask.mask).mean() > 0.99


@pytest.mark.parametrize("how", thinned({how: how for how in WRITERS}, 2))
def test_holes_of_the_overviews_level_are_filled_from_the_finer_one(
    how: str, tmp_path: Path, levels: list[Pixels]
) -> None:
    source = looked_at(WRITERS[how](tmp_path, levels, rectangle(256, 256, 768, 512, levels=(2,))))
    assert source.read(TILES).valid.all()
    assert source.shortfalls == ()
    assert np.abs(source.overview_rgb(4.0).astype(int) - levels[2]).max() <= 1


@pytest.mark.parametrize("how", thinned({how: how for how in WRITERS}, 2))
def test_tissue_that_no_level_has_is_a_shortfall(how: str, tmp_path: Path, levels: list[Pixels]) -> None:
    source = looked_at(WRITERS[how](tmp_path, levels, rectangle(256, 256, 512, 512, levels=(0, 1, 2))))
    assert len(source.shortfalls) == 1
    assert "of the tissue is not in the file and was not looked at" in source.shortfalls[0]
    assert not source.read(TileSet(np.array([[320, 320]]), (64, 64), 1.0)).valid.any()


@pytest.mark.parametrize("how", ["zarr", "TIFF without bytes"])
def test_a_slide_of_one_level_with_gaps(how: str, tmp_path: Path, levels: list[Pixels]) -> None:
    source = looked_at(WRITERS[how](tmp_path, levels[:1], some(0.3)))
    assert "of the tissue is not in the file" in source.shortfalls[0]


@pytest.mark.parametrize("how", WRITERS)
def test_a_slide_of_which_nothing_is_there_is_no_empty_slide(how: str, tmp_path: Path, levels: list[Pixels]) -> None:
    with pytest.raises(TileReadError, match="is not in the file"):
        looked_at(WRITERS[how](tmp_path, levels, lambda *_: True))


@pytest.mark.parametrize("levels_without", [(0,), (0, 1, 2)])
def test_what_openslide_shows_as_transparent(
    levels_without: tuple[int, ...], tmp_path: Path, levels: list[Pixels]
) -> None:
    without = rectangle(256, 256, 512, 512, levels_without)
    source = looked_at(write_tiff(tmp_path / "a.tiff", levels, without), "openslide")
    valid = source.read(TILES).valid[0].numpy()
    assert valid.tolist() == [not without(0, x // 64, y // 64) for x, y in TILES.locations[0].tolist()]
    assert len(source.shortfalls) == (1 if levels_without == (0, 1, 2) else 0)
    sparse = looked_at(write_tiff(tmp_path / "b.tiff", levels, empty_glass(levels)), "openslide")
    assert sparse.read(TILES).valid.all()
    assert sparse.shortfalls == ()


def test_of_openslide_the_index_tells_them(tmp_path: Path, levels: list[Pixels]) -> None:
    source = looked_at(write_tiff(tmp_path / "a.tiff", levels, some(0.3)), "openslide")
    assert source.slide.all_holes_known
    source.check_stored(*SCALES)
    assert source.counters.failed == 0
    assert len([note for note in source.notes if "% of the tissue is not in the file at " in note]) == 1


APERIO = "Aperio Image Library v12.0\r\n1024x768 [0,0 1024x768] (64x64)|AppMag = 20|MPP = 0.5"


@pytest.mark.parametrize(("count", "share"), [(3, 0.3), (3, 1.0), (2, 0.9)])
def test_coarser_tiles_that_openslide_draws_from_finer_ones_are_not_missing(
    count: int, share: float, tmp_path: Path, levels: list[Pixels]
) -> None:
    coarser = range(1, count)
    path = write_tiff(tmp_path / "a.svs", levels[:count], some(share, coarser), description=APERIO)
    source = looked_at(path)
    assert (source.slide.reader, source.slide.facts.vendor) == ("openslide", "aperio")
    source.check_stored(*SCALES)
    assert source.shortfalls == source.notes == source.slide.left_out == ()
    assert source.slide.seen is not None and source.slide.seen.known == 1.0
    assert source.read(TILES).valid.all()


def test_missing_tiles_of_an_aperio_slide_s_finest_level_are_unread(tmp_path: Path, levels: list[Pixels]) -> None:
    without = some(0.3)
    source = looked_at(write_tiff(tmp_path / "a.svs", levels, without, description=APERIO), "openslide")
    valid = source.read(TILES).valid[0].numpy()
    assert valid.tolist() == [not without(0, x // 64, y // 64) for x, y in TILES.locations[0].tolist()]
    source.check_stored(0.5)
    assert any("% of the tissue is not in the file at 0.5" in note for note in source.notes)


@pytest.mark.parametrize("shards", [False, True])
def test_a_store_elsewhere(shards: bool, tmp_path: Path, levels: list[Pixels]) -> None:
    without = rectangle(256, 256, 512, 512)
    everywhere = {
        "a": without,
        "sparse": empty_glass(levels),
        "b": rectangle(256, 256, 512, 512, (0, 1, 2)),
    }
    memory = fsspec.filesystem("memory")
    for name, left_out in everywhere.items():
        folder = write_zarr(tmp_path / f"{name}.ome.zarr", levels, left_out, shards=shards)
        memory.put(str(folder), f"/missing{shards}/{name}.ome.zarr", recursive=True)
    source, sparse, cut = (looked_at(f"memory://missing{shards}/{name}.ome.zarr") for name in everywhere)
    valid = source.read(TILES).valid[0].numpy()
    assert valid.tolist() == [not without(0, x // 64, y // 64) for x, y in TILES.locations[0].tolist()]
    assert sparse.read(TILES).valid.all()
    assert sparse.shortfalls == ()
    assert len(cut.shortfalls) == 1


def test_tiffslide_reads_them_as_white_too(tmp_path: Path, levels: list[Pixels]) -> None:
    path = write_tiff(tmp_path / "a.tiff", levels, some(0.3))
    source, other = looked_at(path, "tiffslide"), looked_at(path, "tiff")
    one, two = source.read(TILES), other.read(TILES)
    assert source.slide.read((0, 0), 0, (1024, 768)).tobytes() == other.slide.read((0, 0), 0, (1024, 768)).tobytes()
    assert one.valid.tolist() == two.valid.tolist()


def test_chunks_of_another_size_than_declared_are_unread(tmp_path: Path, levels: list[Pixels]) -> None:
    path = write_zarr(tmp_path / "a.ome.zarr", levels, lambda *_: False)
    small = write_zarr(tmp_path / "b.ome.zarr", [level[:32, :32] for level in levels], lambda *_: False)
    foreign = next(small.glob("0/0*0*0")).read_bytes() if list(small.glob("0/0*0*0")) else b"\x02\x01\x00"
    changed = [file for file in path.glob("0/*") if file.name.replace(".", "").isdigit()][::2]
    for file in changed:
        file.write_bytes(foreign[: len(foreign) // 2])
    source = looked_at(path)
    valid = source.read(TILES).valid[0]
    assert 0 < int((~valid).sum()) == source.counters.failed
