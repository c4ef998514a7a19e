"""An opened slide: what it is, and its pixels at stored levels."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import InputError, MissingMppError, SlideOpenError, TileReadError
from wsi_attention.once import once
from wsi_attention.protocols import RedrawingReader, RegionsReader, SparseReader
from wsi_attention.slide import fingerprint, identity, metadata
from wsi_attention.slide.facts import Facts
from wsi_attention.slide.handles import Handles, attempt, read_one, read_together
from wsi_attention.slide.holes import CELL, Hole, holes_in, scaled_holes, transparent_cells
from wsi_attention.slide.levels import best_level, snapped
from wsi_attention.slide.opening import Choice, check_name, check_options, choose, opener
from wsi_attention.slide.readers.tiff.tag_sizes import notes_on_file
from wsi_attention.slide.resample import level_location, on_white
from wsi_attention.slide.seen import Seen
from wsi_attention.slide.urls import is_url, masked

if TYPE_CHECKING:
    from wsi_attention.slide.readers.array import ArrayLevels
    from wsi_attention.slide.readers.stored import StoredBytes

MAX_PIXELS = 2**28
"""The most pixels one read may ask for (0.8 GB of RGB)."""


def open_slide(
    path: str | os.PathLike[str] | NDArray[np.uint8] | Sequence[NDArray[np.uint8]] | ArrayLevels,
    reader: str = "auto",
    mpp: float | None = None,
    options: Mapping[str, str | int | None] | None = None,
) -> Slide:
    """Open a slide; reads metadata only.

    Args:
        path: a file, an OME-Zarr or DICOM folder, a URL; or arrays (h, w, 3) uint8, one a level, finest first.
        reader: a registered reader's name, or "auto".
        mpp: µm per level-0 pixel, in place of what the file says.
        options: what else the reader is given, by name; None counts as not given. {"series": …} is the number or the
            name of the image that is the slide, where a file holds several.

    Returns:
        The open slide; a `with` statement closes it.

    Raises:
        SlideOpenError: missing, broken, in no format that a reader knows, or without the image that was asked for.
        SeveralImagesError: several images could be the slide.
        UnsupportedSlideError: no RGB brightfield slide.
        InputError: no such reader or option, or an mpp that no slide has.
    """
    given, asked = metadata.given_mpp(mpp), check_options(options or {})
    check_name(reader)
    if isinstance(path, str | os.PathLike):
        origin: str | ArrayLevels = os.fspath(path)
        chosen = choose(str(origin), asked) if reader == "auto" else Choice(reader, "as asked")
    else:
        from wsi_attention.slide.readers.array import as_levels

        origin, chosen = as_levels(path), Choice("array", "pixels in memory")
    slide = Slide(origin, chosen, given, asked)
    _ = slide.facts
    return slide


class Slide:
    """One slide, opened by `open_slide`. Thread-safe; it pickles without its pixels and reopens on first use.

    Attributes:
        path: the path as it was given, a URL without its secrets ("array" for arrays).
        reader: the name of the reader in use.
        reader_reason: why it is that one.
        options: what else the reader is given.
        strange: levels whose pixels do not belong to the slide, and what they show instead.
        seen: where an overview showed something; set by whoever read one, so that tiles that are missing there count as
            unreadable. Does not pickle.
        levels_compared: whether `slide.strangers` has looked at the levels since the slide was opened.
    """

    def __init__(
        self,
        origin: str | ArrayLevels,
        choice: Choice,
        mpp: float | None = None,
        options: Mapping[str, str | int] = MappingProxyType({}),
        strange: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        """Open nothing yet; `origin` is the path or levels in memory, `choice` the reader and why it is that one."""
        self.path = masked(origin) if isinstance(origin, str) else origin.name
        self.reader, self.reader_reason = choice
        self.options = MappingProxyType(dict(options))
        self.strange: Mapping[int, str] = dict(strange)
        self.levels_compared = False
        self.seen: Seen | None = None
        self._origin, self._given = origin, mpp
        self._transparent: dict[int, set[tuple[int, ...]]] = {}
        self._handles = Handles(opener(origin, self.path, self.reader, self.options))

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        choice = Choice(self.reader, self.reader_reason)
        return type(self), (self._origin, choice, self._given, dict(self.options), dict(self.strange))

    def __repr__(self) -> str:
        return f"Slide({self.path!r}, reader={self.reader!r})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a thumbnail, and what the file says of itself."""
        from wsi_attention.notebook import slide_html

        return slide_html(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reads under way end first, later ones raise `SlideError`."""
        self._handles.close()

    @once
    def facts(self) -> Facts:
        """Everything that the reader says about the file: levels, tags, bounds, vendor, other images."""
        with self._handles.borrow() as lease:
            facts = Facts.of(lease.reader)
        local = isinstance(self._origin, str) and not is_url(self._origin)
        return replace(facts, notes=(*facts.notes, *notes_on_file(self.path))) if local else facts

    @once
    def fingerprint(self) -> str:
        """sha256 (hex) of the content, from little of it; the same under any name and at any place.

        What is chosen in a file by an option, such as one of several images, has another one than the file.
        """
        path = self._origin if isinstance(self._origin, str) else None
        found = fingerprint.of_slide(path, self)
        return fingerprint.of_chosen(found, self.options, self.facts.image) if self.options else found

    @property
    def identity(self) -> str:
        """sha256 (hex) of what decides its pixels: changes where the file is corrected; empty for pixels in memory."""
        return identity.of_slide(self._origin if isinstance(self._origin, str) else None, self)

    @property
    def properties(self) -> Mapping[str, str]:
        """The file's own tags."""
        return self.facts.properties

    @property
    def dimensions(self) -> tuple[int, int]:
        """(w, h) of level 0."""
        return self.facts.level_dimensions[0]

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """(w, h) of each level, finest first."""
        return self.facts.level_dimensions

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """Level-0 pixels per pixel of each level, as the file says; not powers of two."""
        return self.facts.level_downsamples

    @property
    def levels(self) -> tuple[int, ...]:
        """Indices of the levels that are read, finest first: all but those left out."""
        without = self.facts.misshapen().keys() | self.strange.keys()
        return tuple(level for level in range(len(self.level_dimensions)) if level not in without)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Which levels are not read because they do not belong to the slide, and why, a sentence for each reason."""
        levels: dict[str, list[int]] = {}
        for level, why in sorted((self.facts.misshapen() | dict(self.strange)).items()):
            levels.setdefault(why, []).append(level)
        return tuple(
            f"level{'s' if len(which) > 1 else ''} {', '.join(map(str, which))} left out: {why}"
            for why, which in levels.items()
        )

    def other(self, image: int) -> Slide:
        """Open another image of the same file; errors as in `open_slide`."""
        if not isinstance(self._origin, str):
            raise InputError(f"{self.path}: pixels in memory are one image")
        return open_slide(self._origin, mpp=self._given, options={"series": image})

    def leave_out(self, level: int, why: str) -> None:
        """Stop reading a level: pixels at its scale then come from the next finer one.

        Args:
            level: index of a coarser level.
            why: what it shows instead, for `left_out`.

        Raises:
            InputError: no such level, or level 0.
        """
        self._check(level, (1, 1))
        if level == 0:
            raise InputError(f"{self.path}: level 0 cannot be left out")
        self.strange = {**self.strange, level: why}

    def snapped(self, downsample: float) -> float:
        """Return the downsample of a level that is read, within 5 % of the wanted one; else that, but at least 1."""
        return snapped([self.level_downsamples[level] for level in self.levels], downsample)

    def best_level(self, downsample: float) -> int:
        """Return the coarsest level that is read and at least as fine as wanted."""
        return self.levels[best_level([self.level_downsamples[level] for level in self.levels], downsample)]

    @once
    def _mpp(self) -> metadata.Mpp:
        if self._given is not None:
            return metadata.Mpp((self._given, self._given), "given")
        return metadata.file_mpp(self.properties)

    @property
    def mpp(self) -> float:
        """µm per level-0 pixel: the geometric mean of x and y.

        Raises:
            MissingMppError: neither the file nor the caller says.
        """
        if self._mpp.xy is None:
            raise MissingMppError(
                f"{self.path}: {self._mpp.why_unknown}; give µm per pixel with --mpp, a mpp column in the slides CSV,"
                " or open_slide(path, mpp=…)"
            )
        x, y = self._mpp.xy
        return x if x == y else math.sqrt(x * y)

    @property
    def mpp_xy(self) -> tuple[float, float] | None:
        """µm per level-0 pixel in x and y; None where unknown."""
        return self._mpp.xy

    @property
    def mpp_source(self) -> str:
        """Which tag mpp comes from; "given" by the caller, or "none"."""
        return self._mpp.source

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results should know of how the slide was opened, and of levels left out, a sentence each."""
        scale = metadata.mpp_notes(self._mpp, metadata.file_mpp(self.properties))
        doubts = metadata.scale_doubts(self._mpp, self.properties, self.dimensions)
        return (*self.facts.notes, *self.left_out, *scale, *doubts)

    def oddities(self) -> tuple[str, ...]:
        """Say what is odd about the slide, its notes included, a sentence each; empty where nothing is."""
        unknown = () if self._mpp.xy else (f"{self._mpp.why_unknown} (no mpp)",)
        return (*self.notes, *self.facts.oddities(), *unknown)

    def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return pixels (h, w, 3) of a stored level on white; outside the slide they are white.

        Args:
            location: (x, y) of the top left corner in level-0 pixels.
            level: index of the level.
            size: (w, h) in the level's pixels.

        Raises:
            TileReadError: twice, the second time on a fresh handle, the pixels could not be read or decoded.
            InputError: no such level, or an empty or absurdly large size.
        """
        place, wanted = (int(location[0]), int(location[1])), (int(size[0]), int(size[1]))
        self._check(level, wanted)
        what = self._asked(place, level, wanted)
        see = partial(self._see, level, place)
        return attempt(self._handles, lambda reader: read_one(reader, place, level, wanted, see), what)

    def read_regions(
        self, locations: NDArray[np.int64], level: int, size: tuple[int, int], out: NDArray[np.uint8]
    ) -> list[str | None]:
        """Read many regions of one size, each as `read` does; in one request, if the reader can do that.

        Args:
            locations: (n, 2), (x, y) of the top left corners in level-0 pixels.
            level: index of the level.
            size: (w, h) of every region in the level's pixels.
            out: (n, h, w, 3) to write to; zeros, or as it was, where a region cannot be read.

        Returns:
            For each region None, or one line that says why it cannot be read.

        Raises:
            InputError: as in `read`, for one region.
        """
        wanted = (int(size[0]), int(size[1]))
        self._check(level, wanted)
        places = [(int(x), int(y)) for x, y in locations]
        try:
            reasons = read_together(self._handles, locations, level, wanted, out)
        except SlideOpenError as error:
            return [str(error)] * len(places)
        if reasons is None:
            return self._one_by_one(places, level, wanted, out)
        return [
            None if reason is None else f"{self._asked(place, level, wanted)} cannot be read: {reason}"
            for place, reason in zip(places, reasons, strict=True)
        ]

    @property
    def reads_together(self) -> bool:
        """Whether the reader reads many regions in one request, and decodes a stored tile that they share once."""
        with self._handles.borrow() as lease:
            return isinstance(lease.reader, RegionsReader)

    def _one_by_one(
        self, places: Sequence[tuple[int, int]], level: int, size: tuple[int, int], out: NDArray[np.uint8]
    ) -> list[str | None]:
        """Read neighbours one after the other, so that the reader can use again what it has decoded."""
        reasons: list[str | None] = [None] * len(places)
        height = size[1] * self.level_downsamples[level]
        for i in sorted(range(len(places)), key=lambda i: (places[i][1] // height, places[i])):
            try:
                out[i] = self.read(places[i], level, size)
            except (TileReadError, SlideOpenError) as error:
                reasons[i] = str(error)
        return reasons

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        """Return a label, macro or thumbnail image, (h, w, 3), by its name in `facts.associated`.

        Raises:
            InputError: the slide has no image of that name.
            TileReadError: it could not be read or decoded.
        """
        if name not in self.facts.associated:
            there = ", ".join(self.facts.associated) or "none"
            raise InputError(f"{self.path}: no associated image {name!r}; there are: {there}")
        what = f"{self.path}: the image {name!r}"
        return attempt(self._handles, lambda reader: on_white(reader.read_associated(name)), what)

    def holes(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> tuple[Hole, ...]:
        """Return the parts of a region that no stored tile covers; they are read as white.

        A reader that is no `SparseReader` does not know them, nor does one of every file: then they are what was read
        and found transparent.

        Args:
            level: index of the level.
            corner: (x, y) in the level's pixels.
            size: (w, h) in the level's pixels.
        """
        source = self._emptied_by(level)
        tile = self.facts.tile_sizes[source]
        if tile is not None and self._absent(source, np.empty((0, 2), np.int64)) is not None:
            step = self.level_downsamples[level] / self.level_downsamples[source]
            extent, absent = self.level_dimensions[source], partial(self.absent, source)
            return scaled_holes(corner, size, step, tile, extent, absent)
        seen = self._transparent.get(level)
        if seen is None:
            return ()

        def transparent(cells: NDArray[np.int64]) -> NDArray[np.bool_]:
            return np.array([(col, row) in seen for col, row in cells.tolist()], np.bool_)

        return holes_in(corner, size, (CELL, CELL), self.level_dimensions[level], transparent)

    def absent(self, level: int, tiles: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which stored tiles, (n, 2) of (column, row), are not in the file; False where that is not known."""
        found = self._absent(level, tiles)
        return np.zeros(len(tiles), np.bool_) if found is None else found

    def _absent(self, level: int, tiles: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        with self._handles.borrow() as lease:
            return lease.reader.absent(level, tiles) if isinstance(lease.reader, SparseReader) else None

    def _see(self, level: int, location: tuple[int, int], pixels: NDArray[np.uint8]) -> None:
        """Remember where a region (h, w, 3 or 4) is transparent, for `holes`."""
        if pixels.shape[2] == 3:
            return
        corner = level_location(location, self.level_downsamples[level])
        cells = transparent_cells(pixels, corner, self.level_dimensions[level])
        if len(cells):
            self._transparent.setdefault(level, set()).update(map(tuple, cells.tolist()))

    def _emptied_by(self, level: int) -> int:
        with self._handles.borrow() as lease:
            return lease.reader.emptied_by(level) if isinstance(lease.reader, RedrawingReader) else level

    @property
    def all_holes_known(self) -> bool:
        """Whether `holes_known` says so of every level; then a finer one may fill them."""
        return all(map(self.holes_known, range(len(self.level_dimensions))))

    def holes_known(self, level: int) -> bool:
        """Tell whether `holes` knows those of a level before anything was read; a store elsewhere cannot be listed."""
        remote_store = self.reader == "zarr" and isinstance(self._origin, str) and is_url(self._origin)
        return not remote_store and self._absent(level, np.empty((0, 2), np.int64)) is not None

    @property
    def scanned_in_parts(self) -> bool:
        """Whether transparency may mean that a place was never scanned: so with scanners' own formats."""
        if self.reader in ("tiff", "zarr", "tiffslide"):
            return False
        return self.facts.vendor not in (None, "aperio", "generic-tiff", "dicom")

    def bytes_read(self, level: int, location: tuple[int, int], size: tuple[int, int]) -> int:
        """Estimate how many file bytes a read asks for: its stored tiles, whole; 0 where that is unknown."""
        downsample = self.level_downsamples[level]
        return self._stored.touched(level, (location[0] / downsample, location[1] / downsample), size)

    def bytes_of(self, level: int, locations: NDArray[np.int64], sizes: NDArray[np.int64]) -> int:
        """Estimate how many file bytes `read_regions` asks for at (n, 2) level-0 locations; stored tiles count once."""
        corners = np.floor(locations / self.level_downsamples[level] + 0.5).astype(np.int64)
        return self._stored.touched_by_all(level, corners, sizes)

    @once
    def _stored(self) -> StoredBytes:
        from wsi_attention.slide.readers.stored import StoredBytes

        with self._handles.borrow() as lease:
            return StoredBytes.of(lease.reader, self.path if isinstance(self._origin, str) else None)

    def _check(self, level: int, size: tuple[int, int]) -> None:
        """Raise InputError unless the level exists and the size can be read."""
        if not 0 <= level < len(self.level_dimensions):
            raise InputError(f"{self.path}: no level {level}; it has levels 0 to {len(self.level_dimensions) - 1}")
        if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
            raise InputError(f"{self.path}: cannot read {size[0]}×{size[1]} pixels; 1 to {MAX_PIXELS} are possible")

    def _asked(self, place: tuple[int, int], level: int, size: tuple[int, int]) -> str:
        return f"{self.path}: {size[0]}×{size[1]} pixels at {place} of level {level}"
