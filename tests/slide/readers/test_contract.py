"""Every built-in reader keeps the contract that ships in wsi_attention.testing.readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsi_attention.protocols import SlideReader
from wsi_attention.slide.readers.array import ArrayLevels, ArrayReader
from wsi_attention.slide.readers.openslide import OpenSlideReader
from wsi_attention.slide.readers.tiffslide import TiffSlideReader
from wsi_attention.slide.readers.zarr.reader import ZarrReader
from wsi_attention.testing.readers import ReaderContract


class TestOpenSlide(ReaderContract):
    reader = OpenSlideReader

    @pytest.fixture(autouse=True)
    def _file(self, tiled_tiff: Path) -> None:
        self.path = str(tiled_tiff)


class TestTiffSlide(ReaderContract):
    reader = TiffSlideReader

    @pytest.fixture(autouse=True)
    def _file(self, ome_tiff: Path) -> None:
        self.path = str(ome_tiff)


class TestZarr(ReaderContract):
    reader = ZarrReader

    @pytest.fixture(autouse=True)
    def _file(self, ome_zarr: Path) -> None:
        self.path = str(ome_zarr)


class TestArray(ReaderContract):
    reader = ArrayReader

    @pytest.fixture(autouse=True)
    def _levels(self, pyramid: tuple[np.ndarray, ...]) -> None:
        self.levels = ArrayLevels(pyramid, associated={"label": pyramid[2]})

    def open(self) -> SlideReader:
        return ArrayReader(self.levels)


class ShiftedReader(ArrayReader):
    """Wrong by one pixel, as a reader with its own rounding would be."""

    def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
        return super().read((location[0] + (location[0] > 0), location[1]), level, size)


def test_the_contract_catches_a_reader_that_is_wrong_by_one_pixel(pyramid: tuple[np.ndarray, ...]) -> None:
    class Contract(ReaderContract):
        reader = ShiftedReader

        def open(self) -> SlideReader:
            return ShiftedReader(ArrayLevels(pyramid))

    with pytest.raises(AssertionError):
        Contract().check()
