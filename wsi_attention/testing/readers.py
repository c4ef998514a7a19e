"""The contract of a slide reader, as tests: a package that brings its own reader proves it with them.

    from wsi_attention.testing.readers import ReaderContract

    class TestMyReader(ReaderContract):
        reader = MyReader
        path = "slide.xyz"        # or override open()

pytest collects the methods; without pytest, `MyContract().check()` runs them all.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import SlideOpenError
from wsi_attention.protocols import RegionsReader, SlideReader
from wsi_attention.slide.resample import on_white

SIDE = 48


class ReaderContract:
    """Subclass it, name the reader and a file of at least 64×64 pixels that it opens.

    Attributes:
        reader: the class.
        path: a slide file that it opens.
    """

    reader: type[SlideReader]
    path: str = ""

    def open(self) -> SlideReader:
        """Open the file afresh."""
        return self.reader(self.path)

    def check(self) -> None:
        """Run every test of the contract.

        Raises:
            AssertionError: the first promise that the reader breaks.
        """
        for name in sorted(dir(self)):
            if name.startswith("test_"):
                getattr(self, name)()

    def test_has_the_attributes(self) -> None:
        """Check that the reader offers what the protocol names."""
        reader = self.open()
        assert isinstance(reader, SlideReader)
        assert isinstance(type(reader).name, str)
        assert all(isinstance(k, str) and isinstance(v, str) for k, v in reader.properties.items())
        reader.close()

    def test_levels_form_a_pyramid(self) -> None:
        """Check that levels shrink, downsamples grow from 1 and fit the dimensions within 5 % or a pixel."""
        reader = self.open()
        levels, downsamples = reader.level_dimensions, reader.level_downsamples
        assert len(levels) == len(downsamples) == len(reader.tile_sizes) > 0
        assert downsamples[0] == 1.0
        assert list(downsamples) == sorted(downsamples)
        for (w, h), downsample in zip(levels, downsamples, strict=True):
            assert abs(w * downsample - levels[0][0]) <= max(0.05 * levels[0][0], downsample)
            assert abs(h * downsample - levels[0][1]) <= max(0.05 * levels[0][1], downsample)
        reader.close()

    def test_reads_every_level(self) -> None:
        """Check that pixels are uint8, (h, w, 3 or 4), with the size given as (w, h)."""
        reader = self.open()
        for level in range(len(reader.level_dimensions)):
            pixels = reader.read((0, 0), level, (SIDE, SIDE // 2))
            assert pixels.dtype == np.uint8
            assert pixels.shape in {(SIDE // 2, SIDE, 3), (SIDE // 2, SIDE, 4)}
        reader.close()

    def test_outside_is_white(self) -> None:
        """Check that around the slide, at any distance, pixels are white or transparent."""
        reader = self.open()
        w, h = reader.level_dimensions[0]
        for location in ((-2 * SIDE, 0), (0, -2 * SIDE), (w, 0), (0, h), (w + 10**6, h + 10**6)):
            assert (on_white(reader.read(location, 0, (SIDE, SIDE))) == 255).all(), location
        reader.close()

    def test_borders_lie_where_they_should(self) -> None:
        """Check that a read across a border has the same pixels as one inside, moved, and white beyond."""
        reader = self.open()
        w, h = reader.level_dimensions[0]
        inside = self._pixels(reader, (0, 0))
        across = self._pixels(reader, (-7, -5))
        assert np.array_equal(across[5:, 7:], inside[: SIDE - 5, : SIDE - 7])
        assert (across[:5] == 255).all()
        assert (across[:, :7] == 255).all()
        inside = self._pixels(reader, (w - SIDE, h - SIDE))
        across = self._pixels(reader, (w - SIDE + 7, h - SIDE + 5))
        assert np.array_equal(across[: SIDE - 5, : SIDE - 7], inside[5:, 7:])
        assert (across[SIDE - 5 :] == 255).all()
        reader.close()

    def test_locations_are_in_level_0(self) -> None:
        """Check that at any level whose downsample is whole, a location of k · downsample is the level's pixel k."""
        reader = self.open()
        for level, (w, h) in enumerate(reader.level_dimensions):
            downsample = reader.level_downsamples[level]
            if downsample != round(downsample) or min(w, h) < 24:
                continue
            large = on_white(reader.read((0, 0), level, (24, 24)))
            small = on_white(reader.read((round(3 * downsample), round(5 * downsample)), level, (16, 16)))
            assert np.array_equal(small, large[5:21, 3:19])
        reader.close()

    def test_many_regions_are_single_ones(self) -> None:
        """Check that a `RegionsReader` reads in one request what single reads return, inside and beyond a level."""
        reader = self.open()
        for level, (w, h) in enumerate(reader.level_dimensions if isinstance(reader, RegionsReader) else ()):
            size, downsample = (min(w, SIDE), min(h, SIDE)), reader.level_downsamples[level]
            pixels = [
                (-5, -3),
                (w // 2, h // 2),
                (w // 2, h // 2),
                (w // 2 + 7, h // 2 - 3),
                (w - 9, h - 11),
                (2 * w, 0),
            ]
            places = np.array([(round(x * downsample), round(y * downsample)) for x, y in pixels])
            out = np.zeros((len(places), size[1], size[0], 3), np.uint8)
            assert cast(RegionsReader, reader).read_regions(places, level, size, out) == [None] * len(places)
            for (x, y), found in zip(places.tolist(), out, strict=True):
                assert np.array_equal(found, on_white(reader.read((x, y), level, size))), (level, x, y)
        reader.close()

    def test_is_safe_in_threads(self) -> None:
        """Check that eight threads on one reader get the pixels that one thread gets."""
        reader = self.open()
        w, h = reader.level_dimensions[0]
        places = [((w - SIDE) * i // 15, (h - SIDE) * (15 - i) // 15) for i in range(16)] * 2
        alone = [self._pixels(reader, place) for place in places]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda place: self._pixels(reader, place), places))
        assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
        reader.close()

    def test_opens_twice(self) -> None:
        """Check that two readers of one file do not disturb each other, and closing one leaves the other."""
        one, other = self.open(), self.open()
        expected = self._pixels(one, (3, 3))
        one.close()
        assert np.array_equal(self._pixels(other, (3, 3)), expected)
        other.close()

    def test_reads_associated_images(self) -> None:
        """Check that label, macro and the like are (h, w, 3) uint8."""
        reader = self.open()
        for name in reader.associated:
            image = reader.read_associated(name)
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert image.shape[2] == 3
        reader.close()

    def test_refuses_a_missing_file(self) -> None:
        """Check that a missing file is not recognised, and that opening it raises `SlideOpenError` that names it."""
        assert self.reader.recognises("no/such/file") is False
        try:
            self.reader("no/such/file")
        except SlideOpenError as error:
            assert "no/such/file" in str(error)
        else:
            raise AssertionError("opened a file that is not there")

    def _pixels(self, reader: SlideReader, location: tuple[int, int]) -> NDArray[np.uint8]:
        return on_white(reader.read(location, 0, (SIDE, SIDE)))
