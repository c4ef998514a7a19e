"""Files of one kind: one of them is compared with OpenSlide, and a difference in any other kind is still found."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from tiff_kinds import KINDS, write_kind

from wsi_attention.slide.images import Series
from wsi_attention.slide.readers.openslide import OpenSlideReader
from wsi_attention.slide.readers.tiff import choice
from wsi_attention.slide.readers.tiff.kinds import HEADER, header_of, kind_of
from wsi_attention.slide.readers.tiff.reader import TiffReader
from wsi_attention.slide.slide import open_slide

Levels = tuple[np.ndarray, ...]


class Opened:
    """Counts how often OpenSlide opens a file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        plain = choice.OpenSlideReader

        def counted(path: str, series: Series = None) -> OpenSlideReader:
            self.count += 1
            return plain(path, series)

        monkeypatch.setattr(choice, "OpenSlideReader", counted)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """As in a new process that takes every file for a large one."""
    monkeypatch.setattr(choice, "LARGE", 0)
    monkeypatch.setattr(choice, "_PROVED", set())
    return Opened(monkeypatch)


def other(levels: Levels) -> Levels:
    """Another picture of another size, in levels at the same steps."""
    return tuple(np.ascontiguousarray(255 - level[: level.shape[0] // 2 // 4 * 4][:, ::-1]) for level in levels)


def test_the_second_file_of_a_kind_is_not_opened_by_openslide(tmp_path: Path, pyramid: Levels, opened: Opened) -> None:
    first = write_kind(tmp_path / "first.svs", pyramid, "jpeg-420")
    second = write_kind(tmp_path / "second.svs", other(pyramid), "jpeg-420")
    with open_slide(first) as slide:
        assert (slide.reader, slide.reader_reason, opened.count) == ("tiff", choice.SAME, 1)
    with open_slide(second) as slide:
        assert (slide.reader, slide.reader_reason, opened.count) == ("tiff", choice.SAME_KIND, 1)
        pixels = slide.read((0, 0), 0, (64, 64))
    with open_slide(second, reader="openslide") as slide:
        assert np.array_equal(slide.read((0, 0), 0, (64, 64)), pixels)


def test_small_files_are_compared_each(
    tmp_path: Path, pyramid: Levels, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "LARGE", 10_000)
    for name in ("first.svs", "second.svs"):
        with open_slide(write_kind(tmp_path / name, pyramid, "jpeg-420")) as slide:
            assert slide.reader_reason == choice.SAME
    assert opened.count == 2


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("jpeg-420", "jpeg-bigtiff")])
def test_a_difference_in_another_kind_is_found(
    kind: str, tmp_path: Path, pyramid: Levels, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that is right for one kind and wrong for each other one, however alike the files are."""
    sound = write_kind(tmp_path / "sound.svs", pyramid, "jpeg-420")
    wrong = write_kind(tmp_path / "wrong.svs", pyramid, kind)
    plain = TiffReader.read

    def tinted(self: TiffReader, location: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
        return plain(self, location, level, size) ^ (self._source.path == str(wrong))

    monkeypatch.setattr(TiffReader, "read", tinted)
    with open_slide(sound) as slide:
        assert slide.reader == "tiff"
    with open_slide(wrong) as slide:
        assert slide.reader == "openslide"
        assert "decodes differently" in slide.reader_reason


def test_a_kind_with_a_difference_is_not_proved_by_it(
    tmp_path: Path, pyramid: Levels, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = TiffReader.read
    monkeypatch.setattr(TiffReader, "read", lambda self, *arguments: plain(self, *arguments) ^ 1)
    for name in ("first.svs", "second.svs"):
        with open_slide(write_kind(tmp_path / name, pyramid, "jpeg-420")) as slide:
            assert slide.reader == "openslide"


def test_quality_and_picture_make_no_kind_and_the_scale_does(tmp_path: Path, pyramid: Levels) -> None:
    kinds = [
        kind_of(TiffReader(str(write_kind(tmp_path / f"{number}.svs", levels, "aperio-33005", mpp))))
        for number, (levels, mpp) in enumerate([(pyramid, 0.5), (other(pyramid), 0.25), (pyramid, 12.5)])
    ]
    assert kinds[0] == kinds[1] is not None
    picture = np.ascontiguousarray(pyramid[0][:64, :64])
    headers = {header_of(imagecodecs.jpeg_encode(picture, level=level)[:HEADER]) for level in (20, 50, 95)}
    assert len(headers) == 1 and None not in headers


@pytest.mark.parametrize(
    "options",
    [{"subsampling": "444"}, {"subsampling": "422"}, {"outcolorspace": "RGB"}, {"optimize": True, "smoothing": True}],
)
def test_headers_of_other_codings_differ_and_cut_ones_are_none(options: dict[str, object], pyramid: Levels) -> None:
    picture = np.ascontiguousarray(pyramid[0][:64, :64])
    usual = imagecodecs.jpeg_encode(picture, level=80, subsampling="420", colorspace="RGB")
    found = imagecodecs.jpeg_encode(picture, **{"level": 80, "subsampling": "420", "colorspace": "RGB", **options})
    same = "optimize" in options
    assert (header_of(found[:HEADER]) == header_of(usual[:HEADER])) is same
    assert header_of(usual[:300]) is None
    assert header_of(b"") is None
    assert header_of(bytes(2000)) is None
