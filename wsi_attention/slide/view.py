"""View: a slide at one downsample. Chooses the stored level, reads it in bounded blocks, area-averages the rest."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import InputError, SlideOpenError, TileReadError
from wsi_attention.geometry import Box, downsample_of, same_scale
from wsi_attention.slide.levels import Block, StoredLevel, blocks, centres, spans
from wsi_attention.slide.resample import area_mean, level_location

if TYPE_CHECKING:
    from wsi_attention.slide.slide import Slide

MAX_SOURCE_PIXELS = 8_000_000
"""Stored pixels held at once: about 24 MB, and not much more than that again while they are averaged."""

FILLED_FROM = 8.0
"""Times by which a level may be finer that fills the holes of another."""

Corners = NDArray[np.int64] | NDArray[np.float64]
T = TypeVar("T")


def check_open(slide: object) -> None:
    """Raise InputError where something else was given in place of an open slide, such as its path."""
    if slide is None or isinstance(slide, str | os.PathLike | np.ndarray | list):
        raise InputError(
            f"an open slide is needed here, got {type(slide).__name__}; open it first: with open_slide(path) as slide"
        )


class Shown(NamedTuple):
    """Pixels of a view, and what they are.

    Attributes:
        pixels: (h, w, 3) uint8.
        unknown: level-0 boxes in which they are white because no stored tile shows them.
        view: the view they were read from: the one asked, or the same at a finer level.
    """

    pixels: NDArray[np.uint8]
    unknown: tuple[Box, ...]
    view: View


class View:
    """A slide seen at one downsample: a value that never changes, whatever is read.

    Output pixel (r, c) of a region at (x, y) covers the level-0 square [x + c·downsample, x + (c+1)·downsample) ×
    [y + r·downsample, …). A stored level within 5 % of the wanted downsample is taken as it is: every output pixel is
    the stored pixel at its centre, and nothing is blended. Otherwise the nearest finer level is area-averaged. Beyond
    the slide all is white.

    Attributes:
        slide: the slide that is looked at.
        downsample: level-0 pixels per output pixel, as asked but never below 1; ask at `snapped` for stored pixels.
        size: (w, h) of the whole view, ceil(extent / downsample).
    """

    def __init__(self, slide: Slide, downsample: float, level: int | None = None) -> None:
        """Choose the level; read nothing.

        Args:
            slide: an open slide.
            downsample: level-0 pixels per output pixel.
            level: index of the stored level to read; None for the one that fits best.

        Raises:
            InputError: the downsample is no positive number, or a path was given in place of an open slide.
        """
        check_open(slide)
        if not 0 < downsample < math.inf:
            raise InputError(
                f"{slide.path}: a view at downsample {downsample} was asked; it must be positive, 1 is finest"
            )
        self.slide: Final = slide
        self.downsample: Final = max(1.0, float(downsample))
        width, height = slide.dimensions
        self.size: Final = (math.ceil(width / self.downsample), math.ceil(height / self.downsample))
        self._level: Final = slide.best_level(self.downsample) if level is None else level
        self._stored: Final = float(slide.level_downsamples[self._level])
        self._step: Final = self.downsample / self._stored

    @classmethod
    def at_mpp(cls, slide: Slide, mpp: float) -> Self:
        """Return the slide at a scale in µm per pixel: at a stored level within 5 % of it, never finer than level 0.

        Raises:
            InputError: the scale is no positive number.
            MissingMppError: nobody says how large the slide's pixels are.
        """
        if not 0 < mpp < math.inf:
            raise InputError(f"{slide.path}: a view at {mpp} µm per pixel was asked; it must be a positive number")
        return cls(slide, slide.snapped(downsample_of(mpp, slide.mpp)))

    def read(self, location: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the pixels of one region.

        Args:
            location: (x, y) of the top left corner in level-0 pixels; may lie outside the slide.
            size: (w, h) of the region in output pixels.

        Returns:
            (h, w, 3) uint8, white beyond the slide.

        Raises:
            TileReadError: the file's pixels could not be read.
        """
        return self._shown(location, (0, 0), size).pixels

    def read_many(
        self, locations: NDArray[np.int64], size: tuple[int, int], out: NDArray[np.uint8]
    ) -> list[str | None]:
        """Read many regions of one size, each as `read` does.

        Stored tiles that they share are decoded once, if the reader can do that.

        Args:
            locations: (n, 2), (x, y) of the top left corners in level-0 pixels.
            size: (w, h) of a region in output pixels.
            out: (n, h, w, 3) to write to; zeros, or as it was, where a region cannot be read.

        Returns:
            For each region None, or one line that says why it cannot be read.
        """
        if len(self._blocks(size)) > 1:
            return [self._read_into(one, (int(x), int(y))) for one, (x, y) in zip(out, locations, strict=True)]
        where, shapes, starts = self._regions(locations, size)
        reasons: list[str | None] = [None] * len(locations)
        lost = partial(self._lost, where, shapes)
        for shape in sorted({(w, h) for w, h in shapes.tolist()}):
            index = np.flatnonzero((shapes == shape).all(axis=1))
            pixels = out if len(index) == len(out) else out[index]
            found = self._read_equal(where[index], shape, starts[index], pixels)
            if pixels is not out:
                out[index] = pixels
            for i, reason in zip(index.tolist(), found, strict=True):
                reasons[i] = reason if reason is not None else lost(i)
        return reasons

    def _lost(self, where: NDArray[np.int64], shapes: NDArray[np.int64], number: int) -> str | None:
        """Say why a region that was read counts as unreadable: tissue was seen where nothing is stored."""
        if self.slide.seen is None:
            return None
        (x, y), (width, height) = where[number].tolist(), shapes[number].tolist()
        holes = self.slide.holes(self._level, level_location((x, y), self._stored), (width, height))
        if not self.slide.seen.lost(holes, self._stored):
            return None
        return f"{self.slide.path}: tissue at ({x}, {y}) is not in the file (level {self._level}); an incomplete copy?"

    def _read_into(self, out: NDArray[np.uint8], location: tuple[int, int]) -> str | None:
        try:
            out[:] = self.read(location, (out.shape[1], out.shape[0]))
        except (TileReadError, SlideOpenError) as error:
            return str(error)
        return None

    def read_whole(self) -> NDArray[np.uint8]:
        """Return the whole slide, (size[1], size[0], 3) uint8, as `whole` does."""
        return self.whole().pixels

    def whole(self) -> Shown:
        """Read the whole slide, and say what the pixels are: where a level is damaged, the next finer one is averaged.

        Raises:
            TileReadError: the file's pixels could not be read at any level.
        """
        return self.or_finer(lambda view: view._shown((0, 0), (0, 0), view.size))

    def read_rows(self, first: int, count: int) -> NDArray[np.uint8]:
        """Return some rows of the whole view, (count, size[0], 3) uint8: those that `read_whole` has there.

        Args:
            first: the first row, in output pixels.
            count: of rows.

        Raises:
            TileReadError: the file's pixels could not be read.
        """
        return self.read_part((0, first), (self.size[0], count))

    def read_part(self, offset: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return some pixels of the whole view, (h, w, 3) uint8: those that `read_whole` has there.

        At a stored level whose downsample is not whole, they are moved by less than a level-0 pixel.

        Args:
            offset: (x, y) of the top left corner, in output pixels.
            size: (w, h), in output pixels.

        Raises:
            TileReadError: the file's pixels could not be read.
        """
        return self._shown((0, 0), offset, size).pixels

    def finer_ones(self) -> Iterator[View]:
        """Yield the same view averaged from each finer stored level, the coarsest of these first.

        Whoever cannot read a view asks them in turn: a level may be damaged and the finer ones sound.
        """
        downsamples, stored = self.slide.level_downsamples, self._stored
        while finer := [level for level in self.slide.levels if downsamples[level] < stored]:
            level = max(finer, key=downsamples.__getitem__)
            stored = downsamples[level]
            yield View(self.slide, self.downsample, level)

    def finer(self) -> View | None:
        """Return the same view averaged from the next finer stored level, None where there is none."""
        return next(self.finer_ones(), None)

    def or_finer(self, read: Callable[[View], T]) -> T:
        """Return what is read from this view, or from the first finer one that can be read.

        Args:
            read: takes a view.

        Raises:
            TileReadError: the file's pixels could not be read at any level.
        """
        try:
            return read(self)
        except TileReadError:
            finer = self.finer()
            if finer is None:
                raise
            return finer.or_finer(read)

    def bytes_read(self, location: tuple[int, int], size: tuple[int, int]) -> int:
        """Estimate the file bytes that `read` asks for; 0 where the reader cannot tell."""
        regions = (self._region(location, offset, block) for offset, block in self._blocks(size))
        return sum(self.slide.bytes_read(self._level, where, shape) for where, shape, _ in regions)

    def bytes_of(self, locations: NDArray[np.int64], size: tuple[int, int]) -> int:
        """Estimate the file bytes that `read_many` asks for; stored tiles that regions share count once."""
        where, shapes, _ = self._regions(locations, size)
        return self.slide.bytes_of(self._level, where, shapes)

    @property
    def stored(self) -> StoredLevel:
        """The level that is read."""
        slide, level = self.slide, self._level
        return StoredLevel(self._stored, slide.facts.tile_sizes[level], slide.level_dimensions[level])

    def stored_spans(self, locations: Corners, size: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first stored pixel (x, y) of each region, and how many across and down it needs, (n, 2) each."""
        along = [spans(locations[:, axis] / self._stored, self._step, size[axis]) for axis in (0, 1)]
        return np.stack([first for first, _ in along], axis=-1), np.stack([count for _, count in along], axis=-1)

    def _blocks(self, size: tuple[int, int]) -> list[Block]:
        return blocks(size, MAX_SOURCE_PIXELS / self._step**2)

    def _shown(self, location: tuple[int, int], offset: tuple[int, int], size: tuple[int, int]) -> Shown:
        """Read a region block by block: output pixels (w, h) from an offset of output pixels on, at a location."""
        parts = self._blocks(size)
        if len(parts) == 1:
            return self._read_block(location, offset, size)
        pixels, unknown = np.empty((size[1], size[0], 3), np.uint8), list[Box]()
        for (left, top), (width, height) in parts:
            block = self._read_block(location, (offset[0] + left, offset[1] + top), (width, height))
            pixels[top : top + height, left : left + width] = block.pixels
            unknown += block.unknown
        return Shown(pixels, tuple(unknown), self)

    def _read_block(self, location: tuple[int, int], offset: tuple[int, int], size: tuple[int, int]) -> Shown:
        where, shape, start = self._region(location, offset, size)
        pixels, unknown = self._filled(self.slide.read(where, self._level, shape), where)
        whole = self._is_stored and shape == size
        return Shown(pixels if whole else self._resampled(pixels, start, size), unknown, self)

    def has_holes(self, location: tuple[int, int], size: tuple[int, int]) -> bool:
        """Tell whether a part of a region (w, h) is not in the file; of a store elsewhere, after it was read."""
        where, shape, _ = self._region(location, (0, 0), size)
        return bool(self.slide.holes(self._level, level_location(where, self._stored), shape))

    def _filled(self, pixels: NDArray[np.uint8], where: tuple[int, int]) -> tuple[NDArray[np.uint8], tuple[Box, ...]]:
        """Return stored pixels (h, w, 3), those of tiles that are not in the file averaged from the next finer level.

        What that level has not either stays white; it is returned too, as boxes on level 0.
        """
        corner = level_location(where, self._stored)
        holes = self.slide.holes(self._level, corner, (pixels.shape[1], pixels.shape[0]))
        finer = self.finer() if holes and self.slide.all_holes_known else None
        unknown: list[Box] = []
        for hole in holes:
            location = round(hole.left * self._stored), round(hole.top * self._stored)
            size = hole.right - hole.left, hole.bottom - hole.top
            if finer is None or finer._holds_nothing(location, size, self._stored):
                extent = (round(side * self._stored) for side in size)
                if not self.slide.scanned_in_parts:
                    unknown.append(Box(*location, *extent))
                continue
            shown = View(self.slide, self._stored, finer._level)._shown(location, (0, 0), size)
            top, left = hole.top - corner[1], hole.left - corner[0]
            pixels[top : top + size[1], left : left + size[0]] = shown.pixels
            unknown += shown.unknown
        return pixels, tuple(unknown)

    def _holds_nothing(self, location: tuple[int, int], size: tuple[int, int], downsample: float) -> bool:
        """Tell whether no stored tile of this view's level lies under a region (w, h) at a downsample."""
        step = downsample / self._stored
        if step > FILLED_FROM:
            return True
        corner = level_location(location, self._stored)
        width, height = (max(1, round(side * step)) for side in size)
        holes = self.slide.holes(self._level, corner, (width, height))
        return sum((hole.right - hole.left) * (hole.bottom - hole.top) for hole in holes) >= 0.99 * width * height

    def _read_equal(
        self, where: NDArray[np.int64], shape: tuple[int, int], starts: NDArray[np.float64], out: NDArray[np.uint8]
    ) -> list[str | None]:
        """Read regions that are equally large in stored pixels, and resample each; memory stays bounded."""
        size = out.shape[2], out.shape[1]
        if self._is_stored and shape == size:
            return self.slide.read_regions(where, self._level, shape, out)
        together = max(1, MAX_SOURCE_PIXELS // (shape[0] * shape[1]))
        reasons: list[str | None] = []
        for begin in range(0, len(where), together):
            part = where[begin : begin + together]
            stored = np.empty((len(part), shape[1], shape[0], 3), np.uint8)
            reasons += self.slide.read_regions(part, self._level, shape, stored)
            if self._end_to_end(shape, starts, size) and not any(reasons[begin:]):
                below = size[0], len(part) * size[1]
                means = area_mean(stored.reshape(-1, shape[0], 3), (0.0, 0.0), self._step, below)
                out[begin : begin + len(part)] = means.reshape(-1, *out.shape[1:])
                continue
            for i, pixels in enumerate(stored, begin):
                if reasons[i] is None:
                    out[i] = self._resampled(pixels, (starts[i, 0], starts[i, 1]), size)
        return reasons

    def _end_to_end(self, shape: tuple[int, int], starts: NDArray[np.float64], size: tuple[int, int]) -> bool:
        """Tell whether regions that lie one under the other can be averaged as one: no cell ends within a pixel."""
        cells = not self._is_stored and self._step.is_integer() and not starts.any()
        return cells and shape == (self._step * size[0], self._step * size[1])

    @property
    def _is_stored(self) -> bool:
        return same_scale(self._step, 1.0)

    def _resampled(
        self, pixels: NDArray[np.uint8], start: tuple[float, float], size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Turn stored pixels, in which the first output pixel begins at `start`, into output pixels."""
        if not self._is_stored:
            return area_mean(pixels, start, self._step, size)
        rows, columns = centres(start[1], self._step, size[1]), centres(start[0], self._step, size[0])
        return pixels[rows[:, None], columns]

    def _region(
        self, location: tuple[int, int], offset: tuple[int, int], size: tuple[int, int]
    ) -> tuple[tuple[int, int], tuple[int, int], tuple[float, float]]:
        """Return what to ask the slide for, level-0 location and size in stored pixels; and where the block begins."""
        corner = np.array([[location[0] + offset[0] * self.downsample, location[1] + offset[1] * self.downsample]])
        where, shape, start = (found[0].tolist() for found in self._regions(corner, size))
        return (where[0], where[1]), (shape[0], shape[1]), (start[0], start[1])

    def _regions(
        self, corners: Corners, size: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return the same for many corners (n, 2) in level-0 pixels, (n, 2) each."""
        first, shape = self.stored_spans(corners, size)
        return np.round(first * self._stored).astype(np.int64), shape, corners / self._stored - first
