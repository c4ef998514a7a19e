"""A large file is compared with OpenSlide on a small slide cut out of it; what differs there is found."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tiff_kinds import write_kind

from wsi_attention.slide.readers.openslide import OpenSlideReader
from wsi_attention.slide.readers.tiff import choice
from wsi_attention.slide.readers.tiff.excerpt import LEAST, NoExcerptError, excerpt
from wsi_attention.slide.readers.tiff.kinds import kind_of
from wsi_attention.slide.readers.tiff.reader import TiffReader
from wsi_attention.slide.slide import open_slide

Levels = tuple[np.ndarray, ...]
WHOLE = ("jpeg-420", "jpeg-420-tables", "jpeg-bigtiff", "aperio-rgb", "lzw-predictor")
"""Kinds of each form of tag and table; those of JPEG 2000 take long to write."""


@pytest.fixture
def levels(pyramid: Levels) -> Levels:
    """Levels that can be made four times smaller: 1202×806 and 601×403."""
    return np.ascontiguousarray(pyramid[0].repeat(2, 0).repeat(2, 1)), pyramid[0]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that OpenSlide opens, in a new process that takes every file for a large one."""
    found: list[str] = []
    plain = choice.OpenSlideReader

    def noted(path: str, series: int | str | None = None) -> OpenSlideReader:
        found.append(path)
        return plain(path, series)

    monkeypatch.setattr(choice, "LARGE", 0)
    monkeypatch.setattr(choice, "_PROVED", set())
    monkeypatch.setattr(choice, "OpenSlideReader", noted)
    return found


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that is wrong by one grey level."""
    plain = TiffReader.read
    monkeypatch.setattr(TiffReader, "read", lambda self, *arguments: plain(self, *arguments) ^ 1)


@pytest.mark.parametrize("kind", WHOLE)
def test_an_excerpt_is_a_small_file_of_the_same_kind_with_a_tile_of_its_own(
    kind: str, tmp_path: Path, levels: Levels, opened: list[str]
) -> None:
    file = str(write_kind(tmp_path / "slide.svs", levels, kind))
    ours = TiffReader(file)
    with excerpt(file, ours.levels) as small, closing(OpenSlideReader(small)) as theirs:
        mine = TiffReader(small)
        assert kind_of(mine) == kind_of(ours)
        assert theirs.level_dimensions == mine.level_dimensions == ((200, 134), (100, 67))
        side = mine.tile_sizes[0]
        heaviest = int(ours.levels[0].counts.argmax())
        row, column = divmod(heaviest, ours.levels[0].columns)
        wanted = ours.read((column * side[0], row * side[1]), 0, side)
        assert np.array_equal(mine.read((0, 0), 0, side), wanted)
        assert np.array_equal(theirs.read((0, 0), 0, side)[..., :3], wanted)
    with open_slide(file) as slide:
        assert (slide.reader, slide.reader_reason) == ("tiff", choice.IN_EXCERPT)
    assert opened and file not in opened


def test_an_excerpt_that_differs_is_followed_by_the_file_itself(
    tmp_path: Path, levels: Levels, opened: list[str], wrong: None
) -> None:
    file = str(write_kind(tmp_path / "slide.svs", levels, "jpeg-420"))
    with open_slide(file) as slide:
        assert slide.reader == "openslide"
        assert "decodes differently" in slide.reader_reason
    assert [path == file for path in opened[:2]] == [False, True]


def test_a_file_that_no_excerpt_can_be_made_of_is_compared_itself(
    tmp_path: Path, pyramid: Levels, levels: Levels, opened: list[str]
) -> None:
    small, twice = tmp_path / "small.svs", tmp_path / "twice.tif"
    write_kind(small, pyramid, "jpeg-420")
    with tifffile.TiffWriter(twice) as file:
        for image in (levels[0], levels[0]):
            file.write(image, tile=(64, 64), photometric="rgb", metadata=None, subfiletype=int(image is not levels[0]))
    for path, series in ((small, None), (twice, 0)):
        reader = TiffReader(str(path), series)
        assert min(min(size) for size in reader.level_dimensions) < 2 * LEAST or path == twice
        with pytest.raises(NoExcerptError), excerpt(str(path), reader.levels):
            pass
    with open_slide(small) as slide:
        assert (slide.reader, opened) == ("tiff", [str(small)])


def test_the_file_s_index_is_read_once(
    tmp_path: Path, levels: Levels, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsi_attention.slide.readers.tiff import index

    file, read = str(write_kind(tmp_path / "slide.svs", levels, "jpeg-420")), list[str]()
    plain = index._index_of

    def noted(source: index.ByteRanges, series: int | str | None) -> index.TiffIndex:
        read.append(source.path)
        return plain(source, series)

    monkeypatch.setattr(index, "_index_of", noted)
    open_slide(file).close()
    assert read.count(file) == 1
