"""A slide's overviews: how coarse they must be, read whole if small enough, else in strips; and the tissue on them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from wsi_attention.errors import InputError
from wsi_attention.geometry import OVERVIEW_PIXELS
from wsi_attention.slide.resample import Pixels
from wsi_attention.slide.seen import Overview
from wsi_attention.slide.slide import Slide
from wsi_attention.slide.strips import cut, read_strips, rows_of
from wsi_attention.slide.tissue import check_brightfield, find_tissue, find_tissue_in_strips, staining, surroundings
from wsi_attention.slide.view import View
from wsi_attention.structures import Counters, Strip, TissueMask

STRIP_PIXELS = 1_000_000
"""Pixels of a strip in which tissue is looked for."""


def pixels_at(extent: tuple[int, int], downsample: float) -> int:
    """Return how many pixels the whole slide (w, h) has at a downsample."""
    return math.ceil(extent[0] / downsample) * math.ceil(extent[1] / downsample)


def coarse_enough(slide: Slide, pixels: int) -> float:
    """Return the smallest downsample whose overview has no more than so many pixels, or a stored level just above."""
    width, height = slide.dimensions
    downsample = max(1.0, math.sqrt(width * height / pixels))
    while pixels_at(slide.dimensions, downsample) > pixels:
        downsample *= 1.0005
    return max(slide.snapped(downsample), downsample)


class Overviews:
    """Overviews of one slide. Those that are whole are read once and kept.

    Attributes:
        most: pixels that an overview may have.
        whole: pixels that an overview may have that is one array; the others are only seen in strips.
        counters: what reading has cost.
    """

    def __init__(self, slide: Slide, most: int = OVERVIEW_PIXELS, whole: int = OVERVIEW_PIXELS) -> None:
        """Read nothing yet.

        Args:
            slide: an open slide.
            most: pixels that an overview may have.
            whole: pixels that it may have in one array.
        """
        self.slide, self.most, self.whole = slide, most, min(most, whole)
        self.counters = Counters()
        self._kept: dict[float, Overview] = {}

    @property
    def read(self) -> tuple[float, ...]:
        """The downsamples of those at hand, in the order they were read."""
        return tuple(self._kept)

    def forget(self) -> None:
        """Forget the overviews read so far, as a level was left out that they may come from."""
        self._kept.clear()

    def pixels(self, downsample: float) -> int:
        """Return how many pixels the overview has at a downsample."""
        return pixels_at(self.slide.dimensions, downsample)

    def allowed(self, downsample: float) -> float:
        """Return the downsample, or a coarser one where it would have more than `most` pixels."""
        return downsample if self.pixels(downsample) <= self.most else coarse_enough(self.slide, self.most)

    def whole_at(self, downsample: float) -> float:
        """Return the downsample, or a coarser one where it would have more than `whole` pixels."""
        return downsample if self.pixels(downsample) <= self.whole else coarse_enough(self.slide, self.whole)

    def rgb(self, downsample: float) -> Pixels:
        """Return the pixels of `at`, (h, w, 3). Errors as there."""
        return self.at(downsample).pixels

    def at(self, downsample: float) -> Overview:
        """Return the whole slide, white beyond it; read once for each downsample.

        Raises:
            InputError: more pixels than fit in one array.
            UnsupportedSlideError: not brightfield.
            TileReadError: the file's pixels could not be read.
        """
        if downsample not in self._kept:
            pixels = self.pixels(downsample)
            if pixels > self.whole:
                raise InputError(
                    f"{self.slide.path}: an overview at downsample {downsample:g} has {pixels / 1e6:.3g} Mpx, the most"
                    f" in one piece is {self.whole / 1e6:g}; ask `overview_downsample` first, and for strips above that"
                )
            self._kept[downsample] = self._read(downsample)
        return self._kept[downsample]

    def strips(self, downsample: float, rows: int, halo: int) -> Iterator[Strip[Pixels]]:
        """Return the same in strips with `halo` rows around them; above `whole` pixels each is read when asked for.

        Raises:
            InputError: more pixels than an overview may have.
            UnsupportedSlideError: not brightfield.
            TileReadError: the file's pixels could not be read.
        """
        if self.pixels(downsample) <= self.whole:
            return cut(self.rgb(downsample), rows, halo)
        if self.pixels(downsample) > self.most:
            raise InputError(
                f"{self.slide.path}: an overview at downsample {downsample:g} has {self.pixels(downsample) / 1e6:.3g}"
                f" Mpx, the most is {self.most / 1e6:g}; ask `overview_downsample` first"
            )
        self.rgb(self.whole_at(downsample))  # for what only the whole slide can say: whether it is brightfield
        return self._counted(View(self.slide, downsample), rows, halo)

    def tissue(self, downsample: float) -> TissueMask:
        """Find tissue on the overview at a downsample; errors as in `strips`.

        Above `whole` pixels the glass's colour and the threshold come from the finest overview that is whole; all else
        is as on one array (`slide.tissue`).
        """
        mpp, whole = self.slide.mpp, self.whole_at(downsample)
        if whole == downsample:
            return find_tissue(self.rgb(downsample), downsample, mpp, self.at(downsample).glass)
        known = staining(self.rgb(whole), whole, mpp, self.at(whole).glass)
        width, height = View(self.slide, downsample).size
        halo = surroundings((height, width), downsample, mpp)
        strips = self.strips(downsample, rows_of(width, STRIP_PIXELS), halo)
        return find_tissue_in_strips(strips, (height, width), downsample, mpp, known)

    def _read(self, downsample: float) -> Overview:
        start = time.perf_counter()
        rgb, unknown, view = View(self.slide, downsample).whole()
        cost = view.bytes_read((0, 0), view.size)
        self._count(Counters(pixels=rgb.shape[0] * rgb.shape[1], bytes=cost, seconds=time.perf_counter() - start))
        check_brightfield(rgb, self.slide.path)
        return Overview(rgb, downsample, unknown)

    def _counted(self, view: View, rows: int, halo: int) -> Iterator[Strip[Pixels]]:
        self._count(Counters(bytes=view.bytes_read((0, 0), view.size)))
        start = time.perf_counter()
        for strip in read_strips(view, rows, halo):
            pixels = (strip.last - strip.first) * view.size[0]
            self._count(Counters(pixels=pixels, seconds=time.perf_counter() - start))
            yield strip
            start = time.perf_counter()

    def _count(self, cost: Counters) -> None:
        self.counters = self.counters + cost
