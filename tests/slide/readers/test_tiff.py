"""The tiff reader gives OpenSlide's pixels: every kind of storage, every level, anywhere, between pixels too."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from tiff_kinds import KINDS, write_kind
from tiff_philips import write_philips

from wsi_attention.errors import SlideError, TileReadError
from wsi_attention.slide.readers.openslide import OpenSlideReader
from wsi_attention.slide.readers.tiff.reader import TiffReader
from wsi_attention.slide.resample import on_white
from wsi_attention.slide.slide import open_slide
from wsi_attention.testing.readers import ReaderContract

PLACES = 4
"""Random places a level of each real slide; 200 were compared when the reader was written."""
REAL = ("aperio/CMU-1-Small-Region.svs", "aperio/TCGA-CR-7395-01A-01-TS1.svs", "aperio/small.svs",
        "generic-tiff/boxes.tiff", "generic-tiff/yb10kx5k.zstd.tiff")  # fmt: skip
DERIVED = ("cmu1sr-libvips-pyramid-jpeg.tif", "cmu1sr-tifffile-pyramid.ome.tif")

Region = tuple[tuple[int, int], int, tuple[int, int]]


class TestTiff(ReaderContract):
    reader = TiffReader

    @pytest.fixture(autouse=True)
    def _file(self, tiled_tiff: Path) -> None:
        self.path = str(tiled_tiff)


class TestOmeTiff(ReaderContract):
    reader = TiffReader

    @pytest.fixture(autouse=True)
    def _file(self, ome_tiff: Path) -> None:
        self.path = str(ome_tiff)


def regions(reader: TiffReader, places: int, seed: int) -> Iterator[Region]:
    """Random places and sizes over the borders of each level; of three, one is a stored tile, one a whole pixel."""
    rng = np.random.default_rng(seed)
    width, height = reader.level_dimensions[0]
    for level, downsample in enumerate(reader.level_downsamples):
        tile = reader.tile_sizes[level]
        assert tile is not None
        for index in range(places):
            x, y = (int(at) for at in rng.integers((-60, -60), (width + 20, height + 20)))
            size = (int(rng.integers(1, 150)), int(rng.integers(1, 150)))
            step = (tile, (1, 1), None)[index % 3]
            if step is not None:
                x, y = (
                    round(round(at / downsample / by) * by * downsample) for at, by in zip((x, y), step, strict=True)
                )
            yield (x, y), level, tile if step == tile else size


def compared(file: Path, places: int, seed: int = 0) -> int:
    """How many regions are the same, all of them; levels that OpenSlide does not see are left out."""
    ours, theirs = TiffReader(str(file)), OpenSlideReader(str(file))
    asked = [region for region in regions(ours, places, seed) if region[1] < len(theirs.level_dimensions)]
    for location, level, size in asked:
        expected = on_white(theirs.read(location, level, size))
        assert np.array_equal(ours.read(location, level, size), expected), (file.name, location, level, size)
    ours.close()
    theirs.close()
    return len(asked)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_storage(kind: str, tmp_path: Path, pyramid: tuple[np.ndarray, ...]) -> None:
    file = write_kind(tmp_path / "slide.tif", pyramid, kind)
    assert compared(file, 12) == 3 * 12
    with open_slide(file) as slide:
        assert slide.reader == "tiff"


def test_philips(tmp_path: Path, pyramid: tuple[np.ndarray, ...]) -> None:
    """Levels lie in padded ones: 601×403 pixels in tiles of 64 are stored as 640×448."""
    padded = np.pad(pyramid[0], ((0, 45), (0, 39), (0, 0)), constant_values=255)
    levels = [padded[:: 2**level, :: 2**level] for level in range(3)]
    file = write_philips(tmp_path / "slide.tiff", levels, 0.25, pyramid[2])
    assert compared(file, 30) == 3 * 30
    with open_slide(file) as slide, open_slide(file, reader="openslide") as other:
        assert (slide.reader, slide.facts.vendor, slide.mpp) == ("tiff", "philips", pytest.approx(0.25))
        assert slide.level_dimensions == other.level_dimensions == ((640, 448), (320, 224), (160, 112))
        assert slide.mpp_source == other.mpp_source
        assert set(slide.facts.associated) == set(other.facts.associated) == {"label", "macro"}
        assert np.array_equal(slide.read_associated("label"), other.read_associated("label"))


def test_every_real_slide(shared_data: Path) -> None:
    files = [shared_data / "slides" / name for name in REAL] + [
        shared_data / "slides-derived" / name for name in DERIVED
    ]
    assert sum(compared(file, PLACES, seed=5) for file in files) == 19 * PLACES


def test_metadata_and_pictures_of_real_slides(shared_data: Path) -> None:
    for name in REAL:
        ours, theirs = (kind(str(shared_data / "slides" / name)) for kind in (TiffReader, OpenSlideReader))
        for attribute in ("level_dimensions", "level_downsamples", "tile_sizes", "bounds"):
            assert getattr(ours, attribute) == getattr(theirs, attribute)
        assert ours.properties.items() <= theirs.properties.items()
        assert set(ours.associated) == set(theirs.associated)
        for picture in ours.associated:
            assert np.array_equal(ours.read_associated(picture), theirs.read_associated(picture))


def test_fingerprints_and_mpp_do_not_depend_on_the_reader(shared_data: Path) -> None:
    for name in REAL:
        with (
            open_slide(shared_data / "slides" / name, reader="tiff") as one,
            open_slide(shared_data / "slides" / name, reader="openslide") as other,
        ):
            assert one.fingerprint == other.fingerprint
            assert (one.mpp_xy, one.mpp_source, one.facts.vendor) == (
                other.mpp_xy,
                other.mpp_source,
                other.facts.vendor,
            )
            assert one.facts.objective_power == other.facts.objective_power


def test_a_region_of_more_than_one_drawing(tmp_path: Path) -> None:
    """OpenSlide draws 4,096 pixels at once, and rounds the place of each such part."""
    row = np.random.default_rng(0).integers(0, 256, (40, 8300, 3)).astype(np.uint8)
    file = tmp_path / "long.tif"
    with tifffile.TiffWriter(file) as tif:
        for index, level in enumerate((np.repeat(np.repeat(row, 2, 0), 2, 1)[:, :16599], row)):
            tif.write(level, photometric="rgb", tile=(64, 64), subfiletype=index, metadata=None)
    ours, theirs = TiffReader(str(file)), OpenSlideReader(str(file))
    assert ours.level_downsamples[1] != 2
    for location in ((0, 0), (101, 3), (-31, -9)):
        expected = on_white(theirs.read(location, 1, (8250, 30)))
        assert np.array_equal(ours.read(location, 1, (8250, 30)), expected)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_many_regions_are_what_single_ones_are(tiled_tiff: Path, level: int) -> None:
    reader = TiffReader(str(tiled_tiff))
    places = np.random.default_rng(level).integers((-80, -80), (620, 420), (60, 2))
    places[:20] = places[:20] // 64 * 64
    out = np.zeros((60, 64, 64, 3), np.uint8)
    assert reader.read_regions(places, level, (64, 64), out) == [None] * 60
    for (x, y), pixels in zip(places.tolist(), out, strict=True):
        assert np.array_equal(pixels, reader.read((x, y), level, (64, 64)))


class CountingBytes:
    """Passes requests on and keeps them."""

    def __init__(self, source: object) -> None:
        self.source, self.asked = source, []

    def read(self, ranges: list[tuple[int, int]]) -> list[bytes]:
        self.asked.append(list(ranges))
        return self.source.read(ranges)


def test_shared_tiles_are_read_once_and_in_the_order_of_the_file(tiled_tiff: Path) -> None:
    reader = TiffReader(str(tiled_tiff))
    reader._source = counting = CountingBytes(reader._source)
    places = np.array([(x, y) for y in (130, 70, 10) for x in (150, 90, 30)])
    reader.read_regions(places, 0, (64, 64), np.empty((9, 64, 64, 3), np.uint8))
    (ranges,) = counting.asked
    assert len(ranges) == len(set(ranges)) == 16
    assert ranges == sorted(ranges)


def test_a_whole_stored_tile_asks_for_nothing_else(tiled_tiff: Path) -> None:
    reader = TiffReader(str(tiled_tiff))
    reader._source = counting = CountingBytes(reader._source)
    reader.read((128, 64), 0, (64, 64))
    assert [len(ranges) for ranges in counting.asked] == [1]


def test_missing_tiles_are_white(tmp_path: Path, pyramid: tuple[np.ndarray, ...]) -> None:
    file = write_kind(tmp_path / "holes.tif", pyramid, "jpeg-420")
    with tifffile.TiffFile(file, mode="r+") as tif:
        for page in tif.pages[:2]:
            counts = list(page.tags["TileByteCounts"].value)
            page.tags["TileByteCounts"].overwrite(
                [0 if index in (7, 8, 12) else count for index, count in enumerate(counts)]
            )
    assert compared(file, 20) == 3 * 20
    with open_slide(file) as slide:
        assert slide.reader == "tiff"
        assert (slide.read((7 * 64, 0), 0, (64, 64)) == 255).all()


def test_reopening_by_name_compares_nothing(tiled_tiff: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_slide(tiled_tiff) as slide:
        parcel, expected = pickle.dumps(slide), slide.read((0, 0), 0, (64, 64))
    monkeypatch.setattr(openslide, "OpenSlide", None)
    landed = pickle.loads(parcel)
    assert np.array_equal(landed.read((0, 0), 0, (64, 64)), expected)
    assert landed.reader == "tiff"
    assert "same in OpenSlide" in landed.reader_reason


def test_a_closed_reader_says_so(tiled_tiff: Path) -> None:
    reader = TiffReader(str(tiled_tiff))
    reader.close()
    with pytest.raises(SlideError, match=r"generic\.tif: the file was closed"):
        reader.read((0, 0), 0, (8, 8))


def test_a_file_that_shrinks_while_it_is_open(tmp_path: Path, tiled_tiff: Path) -> None:
    file = tmp_path / "a.tif"
    file.write_bytes(tiled_tiff.read_bytes())
    reader = TiffReader(str(file))
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(TileReadError, match="the file is truncated"):
        reader.read((500, 300), 0, (64, 64))
