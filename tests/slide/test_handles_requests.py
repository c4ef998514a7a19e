"""Many regions in one request: readers that can and readers that cannot, failures told apart, one more try."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from wsi_attention.errors import InputError, SlideOpenError
from wsi_attention.slide.readers.stored import LevelBytes, StoredBytes
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.slide.view import View


class ManyReader:
    """Reads many at once: the pixels are the place's x. What it is told to fail, it fails so many times."""

    name = "many"
    level_dimensions = ((640, 640), (160, 160))
    level_downsamples = (1.0, 4.0)
    tile_sizes = ((64, 64), (64, 64))
    properties: ClassVar[dict[str, str]] = {}
    bounds = None
    associated = ()
    opened: ClassVar[list[ManyReader]] = []
    failing: ClassVar[dict[int, int]] = {}
    broken: ClassVar[int] = 0
    gone: ClassVar[bool] = False

    def __init__(self, path: str) -> None:
        if type(self).gone:
            raise SlideOpenError(f"{path}: no such file")
        self.closed, self.asked = False, list[list[int]]()
        type(self).opened.append(self)

    def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
        return np.full((size[1], size[0], 3), location[0] % 251, np.uint8)

    def read_regions(
        self, locations: np.ndarray, level: int, size: tuple[int, int], out: np.ndarray
    ) -> list[str | None]:
        assert not self.closed
        self.asked.append(locations[:, 0].tolist())
        if type(self).broken:
            type(self).broken -= 1
            raise RuntimeError("the whole request failed")
        return [self._one(int(x), i, out) for i, x in enumerate(locations[:, 0])]

    def _one(self, x: int, i: int, out: np.ndarray) -> str | None:
        if self.failing.get(x, 0):
            self.failing[x] -= 1
            return f"no pixels at {x}"
        out[i] = x % 251
        return None

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Slide:
    monkeypatch.setattr("wsi_attention.slide.opening.load", lambda group, name: ManyReader)
    monkeypatch.setattr(ManyReader, "opened", [])
    monkeypatch.setattr(ManyReader, "failing", {})
    return open_slide("many.xyz", reader="tiff")


PLACES = np.array([[10, 0], [20, 0], [30, 5]])


def asked(slide: Slide, places: np.ndarray = PLACES) -> tuple[list[str | None], list[int]]:
    out = np.zeros((len(places), 4, 6, 3), np.uint8)
    reasons = slide.read_regions(places, 0, (6, 4), out)
    return reasons, out[:, 0, 0, 0].tolist()


def test_all_regions_go_in_one_request(many: Slide) -> None:
    assert asked(many) == ([None, None, None], [10, 20, 30])
    assert [reader.asked for reader in ManyReader.opened[:1]] == [[[10, 20, 30]]]
    with pytest.raises(InputError, match="no level 2"):
        many.read_regions(PLACES, 2, (4, 4), np.zeros((3, 4, 4, 3), np.uint8))


def test_what_failed_is_asked_for_once_more_on_a_fresh_handle(many: Slide) -> None:
    ManyReader.failing[20] = 1
    assert asked(many) == ([None, None, None], [10, 20, 30])
    assert [reader.asked for reader in ManyReader.opened] == [[[10, 20, 30]], [[20]]]
    assert [reader.closed for reader in ManyReader.opened] == [True, False]


def test_what_fails_twice_says_why_and_costs_no_other(many: Slide) -> None:
    ManyReader.failing[20] = 2
    reasons, pixels = asked(many)
    assert reasons == [None, "many.xyz: 6×4 pixels at (20, 0) of level 0 cannot be read: no pixels at 20", None]
    assert (pixels[0], pixels[2]) == (10, 30)
    assert asked(many) == ([None, None, None], [10, 20, 30])


@pytest.mark.parametrize(("times", "fails"), [(1, False), (2, True)])
def test_a_request_that_fails_as_a_whole(many: Slide, times: int, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ManyReader, "broken", times)
    reasons, _ = asked(many)
    assert [reason is not None for reason in reasons] == [fails] * 3
    assert not fails or all("the whole request failed" in str(reason) for reason in reasons)
    assert [reader.closed for reader in ManyReader.opened] == [True, fails]
    assert asked(many)[0] == [None] * 3


def test_a_file_that_has_gone_fails_its_regions(many: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    ManyReader.failing[10] = 5
    monkeypatch.setattr(ManyReader, "gone", True)
    assert [reason is not None for reason in asked(many)[0]] == [True, False, False]
    assert asked(many)[0] == ["many.xyz: no such file"] * 3


@pytest.mark.parametrize("downsample", [1.0, 1.03, 2.0, 2.6, 4.0, 5.5])
@pytest.mark.parametrize(
    ("file", "reader"), [("tiled_tiff", "auto"), ("tiled_tiff", "openslide"), ("ome_zarr", "zarr")]
)
def test_views_of_many_are_those_of_one(
    file: str, reader: str, downsample: float, request: pytest.FixtureRequest
) -> None:
    with open_slide(request.getfixturevalue(file), reader) as slide:
        view = View(slide, downsample)
        places = np.random.default_rng(0).integers((-60, -60), (600, 400), (30, 2))
        out = np.zeros((30, 20, 27, 3), np.uint8)
        assert view.read_many(places, (27, 20), out) == [None] * 30
        for (x, y), found in zip(places.tolist(), out, strict=True):
            assert np.array_equal(found, view.read((x, y), (27, 20)))


@pytest.mark.parametrize("size", [(20, 20), (90, 60)])
def test_views_larger_than_a_block(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    places = np.array([[0, 0], [37, 90], [350, 280]])
    view, out = View(open_slide(pixels), 2.0), np.zeros((3, size[1], size[0], 3), np.uint8)
    expected = np.stack([view.read((x, y), size) for x, y in places.tolist()])
    monkeypatch.setattr("wsi_attention.slide.view.MAX_SOURCE_PIXELS", 900)
    assert view.read_many(places, size, out) == [None] * 3
    assert np.array_equal(out, expected)


def test_shared_tiles_count_once() -> None:
    counts = np.arange(1, 13).reshape(3, 4)
    level = LevelBytes((100, 50), counts)
    corners, sizes = np.array([[0, 0], [50, 20], [350, 120], [-500, 0]]), np.full((4, 2), 60)
    assert level.touched_by_all(corners, sizes) == (1 + 5) + (2 + 6) + (12)
    alone = [level.touched((float(x), float(y)), (60, 60)) for x, y in corners]
    assert alone == [1 + 5, 1 + 2 + 5 + 6, 12, 0]
    assert level.touched_by_all(corners[:0], sizes[:0]) == 0
    assert StoredBytes(((400, 150),), {}, 0.5).touched_by_all(0, corners, sizes) == round(0.5 * (2 * 3600 + 50 * 30))
