"""The index of a tiled TIFF is read once, and again when the file changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from wsi_attention.slide.readers.tiff import index as tiff_index
from wsi_attention.slide.readers.tiff.reader import TiffReader
from wsi_attention.slide.slide import open_slide
from wsi_attention.testing.slides import SlideSpec, write_slide


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose directories were read."""
    read, names = tiff_index._index_of, list[str]()

    def counting(source: object, series: object) -> tiff_index.TiffIndex:
        names.append(Path(source.path).name)
        return read(source, series)

    monkeypatch.setattr(tiff_index, "_index_of", counting)
    return names


def test_opening_reads_the_index_once(tmp_path: Path, parsed: list[str]) -> None:
    for name in ("a.svs", "b.svs"):
        write_slide(tmp_path / name, SlideSpec((700, 600), seed=len(parsed)))
        with open_slide(tmp_path / name) as slide:
            assert slide.reader == "tiff"
            slide.read((0, 0), 0, (8, 8))
            slide.bytes_read(0, (0, 0), (8, 8))
    assert parsed == ["a.svs", "b.svs"]


def test_a_file_that_changes_is_read_again(tmp_path: Path, parsed: list[str]) -> None:
    path = tmp_path / "a.svs"
    for size in ((700, 600), (600, 700)):
        write_slide(path, SlideSpec(size))
        reader = TiffReader(str(path))
        assert reader.level_dimensions[0] == size
        reader.close()
    assert len(parsed) == 2


def test_a_damaged_index_is_not_remembered(tmp_path: Path, parsed: list[str]) -> None:
    whole, path = tmp_path / "a.svs", tmp_path / "b.svs"
    write_slide(whole, SlideSpec((700, 600)))
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    for _ in range(2):
        with pytest.raises(Exception, match=r"b\.svs"):
            TiffReader(str(path))
    shutil.copyfile(whole, path)
    TiffReader(str(path)).close()
    assert parsed == ["b.svs"] * 3
