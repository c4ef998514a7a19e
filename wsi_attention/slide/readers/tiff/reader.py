"""Tiled TIFFs by their stored tiles: SVS, Philips, generic pyramids, OME-TIFF. No lock, no cache, OpenSlide's pixels.

A tile is read by its offset and decoded by imagecodecs, straight into the result where a region is a whole tile; else
each tile that several regions of a request share is decoded once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import TileReadError
from wsi_attention.geometry import Box, Size
from wsi_attention.slide.failures import opening, what_is_wrong
from wsi_attention.slide.images import Series
from wsi_attention.slide.readers.bytes import ByteRanges, is_tiff
from wsi_attention.slide.readers.limits import MAX_SEGMENT_PIXELS
from wsi_attention.slide.readers.sources import bytes_of
from wsi_attention.slide.readers.tiff.coding import Decoder, decoder
from wsi_attention.slide.readers.tiff.index import FAULTS, MISSING, SOUND, TiffIndex, TiffLevel, read_index
from wsi_attention.slide.readers.tiff.openslide_pixels import WHOLE, Part, blended, parts
from wsi_attention.slide.readers.tiff.philips import PhilipsText
from wsi_attention.slide.readers.tiff.tags import IN_TEXT, pages_of
from wsi_attention.slide.resample import Pixels


class TiffReader:
    """One open TIFF."""

    name: ClassVar[str] = "tiff"

    def __init__(self, path: str, series: Series = None) -> None:
        with opening(path, self.name):
            self._source: ByteRanges = bytes_of(path)
        with opening(path, self.name, self._source.close):
            self._index: TiffIndex = read_index(self._source, series)
            self._decoders = [decoder(level.coding) for level in self._index.levels]
        levels = self._index.levels
        self.level_dimensions: tuple[Size, ...] = tuple(level.size for level in levels)
        self.level_downsamples: tuple[float, ...] = tuple(level.downsample for level in levels)
        self.tile_sizes: tuple[Size | None, ...] = tuple(level.tile for level in levels)
        self.properties: Mapping[str, str] = self._index.properties
        self.bounds: Box | None = None
        self.associated: tuple[str, ...] = tuple(self._index.associated)
        self.images, self.image, self.notes = self._index.images, self._index.image, self._index.notes

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Tell whether it is a URL, or a file that begins as a TIFF does."""
        return "://" in path or is_tiff(path)

    @property
    def first(self) -> bool:
        """Whether the slide begins with the file's first directory."""
        return self._index.first

    @property
    def levels(self) -> tuple[TiffLevel, ...]:
        """Where each level's tiles lie and how they are stored."""
        return self._index.levels

    @property
    def stored_counts(self) -> tuple[NDArray[np.int64], ...]:
        """Bytes of each level's stored tiles, (rows, columns)."""
        return tuple(level.counts.reshape(-1, level.columns) for level in self.levels)

    def stored_head(self, level: int, tile: int, count: int) -> bytes:
        """Return the first bytes of a stored tile, at most `count`; errors as in `read`."""
        index = self.levels[level]
        return self._source.read([(int(index.offsets[tile]), min(count, int(index.counts[tile])))])[0]

    def read(self, location: Size, level: int, size: Size) -> Pixels:
        """Return pixels (h, w, 3) on white.

        Raises:
            TileReadError: a tile is damaged, or the file could not be read.
        """
        out = np.empty((1, size[1], size[0], 3), np.uint8)
        reason = self._request(level, size, out).read([location])[0]
        if reason is not None:
            raise TileReadError(reason)
        pixels: Pixels = out[0]
        return pixels

    def read_regions(self, locations: NDArray[np.int64], level: int, size: Size, out: Pixels) -> list[str | None]:
        """Do what `RegionsReader.read_regions` says; a region that fails is filled with zeros."""
        return self._request(level, size, out).read([(x, y) for x, y in locations.tolist()])

    def absent(self, level: int, tiles: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell whether stored tiles (column, row) are not in the file."""
        index = self.levels[level]
        return np.asarray(index.states[tiles[:, 1] * index.columns + tiles[:, 0]] == MISSING)

    def _request(self, level: int, size: Size, out: Pixels) -> TiffRequest:
        return TiffRequest(self._source, self._index.levels[level], self._decoders[level], size, out)

    def read_associated(self, name: str) -> Pixels:
        """Return a label, macro or thumbnail image, (h, w, 3)."""
        return read_associated(self._source, name, self._index.associated[name])

    def close(self) -> None:
        """Close the file."""
        self._source.close()


AT_ONCE = 2**25
"""Stored bytes that are held at once."""


@dataclass(slots=True, eq=False)
class Piece:
    """Stored pixels that a part of a region needs.

    Attributes:
        region: its number in the request.
        part: where it lies.
        target: where it goes, (h, w, 3).
        canvas: (h, w, 3) for the stored pixels; the target itself, unless they are blended.
        there: (h, w), False where nothing is stored; None if all is, or if that is white in the canvas already.
        waiting: stored tiles still to come.
    """

    region: int
    part: Part
    target: Pixels
    canvas: Pixels
    there: NDArray[np.bool_] | None = None
    waiting: int = 0


class TiffRequest:
    """Regions of one level.

    Args:
        source: of the bytes.
        level: that is read.
        decode: decodes its tiles.
        size: (w, h) of each region.
        out: (n, h, w, 3) to write to.
    """

    def __init__(self, source: ByteRanges, level: TiffLevel, decode: Decoder, size: Size, out: Pixels) -> None:
        self._source, self._level, self._decode, self._size, self._out = source, level, decode, size, out
        self._wanted: dict[int, list[Piece]] = {}
        self._reasons: list[str | None] = [None] * len(out)
        self._spare: Pixels | None = None

    def read(self, locations: Sequence[Size]) -> list[str | None]:
        """Fill the output; return for each region None, or why it cannot be read, which leaves zeros.

        Raises:
            TileReadError: the file's bytes could not be read at all.
        """
        for region, location in enumerate(locations):
            for part in parts(location, self._level.downsample, self._level.tile, self._size):
                self._plan(region, part)
        for tiles in self._groups():
            ranges = [(int(self._level.offsets[tile]), int(self._level.counts[tile])) for tile in tiles]
            for tile, content in zip(tiles, self._source.read(ranges), strict=True):
                self._place(tile, content)
        for region, reason in enumerate(self._reasons):
            if reason is not None:
                self._out[region] = 0
        return self._reasons

    def _plan(self, region: int, part: Part) -> None:
        """Note which tiles a part needs, and make white what no tile covers."""
        between = part.place.fraction != WHOLE
        target = self._out[region]
        if part.size != self._size:
            target = target[part.top : part.top + part.size[1], part.left : part.left + part.size[0]]
        piece = Piece(region, part, target, target)
        covered = self._want(piece, (part.size[0] + between, part.size[1] + between)) if target.size else True
        if not covered or part.size != self._size:
            self._out[region] = 255
        if between and target.size:
            piece.canvas = np.empty((part.size[1] + 1, part.size[0] + 1, 3), np.uint8)
            piece.there = None if covered else np.zeros(piece.canvas.shape[:2], np.bool_)

    def _want(self, piece: Piece, size: Size) -> bool:
        """Note the tiles under a piece; return whether they cover it wholly."""
        level, (x, y, _) = self._level, piece.part.place
        (wide, high), (across, down) = level.size, level.tile
        right, bottom = x + size[0], y + size[1]
        covered = right <= wide and bottom <= high
        if x >= wide or y >= high:
            return False
        for row in range(y // down, -(-min(bottom, high) // down)):
            for tile in range(row * level.columns + x // across, row * level.columns - (-min(right, wide) // across)):
                state = level.states[tile]
                if state == SOUND:
                    self._wanted.setdefault(tile, []).append(piece)
                    piece.waiting += 1
                elif state == MISSING:
                    covered = False
                else:
                    self._fail(piece.region, tile, FAULTS[int(state)])
        return covered

    def _groups(self) -> Iterator[list[int]]:
        """Yield the wanted tiles in the order of the file, in groups of limited size."""
        offsets, counts = self._level.offsets, self._level.counts
        group: list[int] = []
        held = 0
        for tile in sorted(self._wanted, key=offsets.__getitem__):
            held += int(counts[tile])
            if group and held > AT_ONCE:
                yield group
                group, held = [], int(counts[tile])
            group.append(tile)
        if group:
            yield group

    def _place(self, tile: int, content: bytes) -> None:
        """Decode a tile and put it where it is needed."""
        pieces = self._wanted.pop(tile)
        row, column = divmod(tile, self._level.columns)
        left, top = column * self._level.tile[0], row * self._level.tile[1]
        straight = len(pieces) == 1 and self._fits(pieces[0], left, top)
        pixels = pieces[0].canvas if straight else self._room()
        try:
            self._decode(content, pixels)
        except Exception as error:  # the codecs raise whatever a damaged tile leads them to
            for piece in pieces:
                self._fail(piece.region, tile, f"cannot be decoded: {what_is_wrong(error)}")
            return
        for piece in pieces:
            if not straight:
                self._paste(pixels, left, top, piece)
            piece.waiting -= 1
            if piece.waiting == 0 and piece.canvas is not piece.target:
                self._blend(piece)

    def _fits(self, piece: Piece, left: int, top: int) -> bool:
        """Tell whether a piece is just this tile, and lies in memory as the decoder needs it."""
        (across, down), (wide, high) = self._level.tile, self._level.size
        return (
            piece.canvas.shape == (down, across, 3)
            and piece.part.place == (left, top, WHOLE)
            and left + across <= wide
            and top + down <= high
            and piece.canvas.flags.c_contiguous
        )

    def _room(self) -> Pixels:
        if self._spare is None:
            self._spare = np.empty((self._level.tile[1], self._level.tile[0], 3), np.uint8)
        return self._spare

    def _paste(self, pixels: Pixels, left: int, top: int, piece: Piece) -> None:
        """Copy the part of a tile, at (left, top) of the level, that lies in a piece."""
        x, y, _ = piece.part.place
        height, width = piece.canvas.shape[:2]
        across, down = self._level.tile
        first, upper = max(x, left), max(y, top)
        last = min(x + width, left + across, self._level.size[0])
        lower = min(y + height, top + down, self._level.size[1])
        there = slice(upper - y, lower - y), slice(first - x, last - x)
        piece.canvas[there] = pixels[upper - top : lower - top, first - left : last - left]
        if piece.there is not None:
            piece.there[there] = True

    def _blend(self, piece: Piece) -> None:
        x, y, fraction = piece.part.place
        piece.target[...] = blended(piece.canvas, piece.there, (x, y), self._level.tile, fraction)

    def _fail(self, region: int, tile: int, why: str) -> None:
        row, column = divmod(tile, self._level.columns)
        self._reasons[region] = f"the stored tile in row {row}, column {column} {why}"


def read_associated(source: ByteRanges, name: str, directory: int) -> NDArray[np.uint8]:
    """Return an image in a directory of its own, or in the first one's XML, (h, w, 3).

    Raises:
        TileReadError: too large, no RGB, or damaged.
    """
    import tifffile

    try:
        with source.file() as stream, tifffile.TiffFile(stream, name=source.path) as tif:
            if directory == IN_TEXT:
                return PhilipsText(tif.pages.first.description, source.path).picture(name)
            page = pages_of(tif, source.path)[directory]
            if page.imagewidth * page.imagelength > MAX_SEGMENT_PIXELS:
                raise TileReadError(f"{page.imagewidth}×{page.imagelength} pixels, too large for a label or macro")
            pixels = page.asarray()
    except TileReadError:
        raise
    except Exception as error:  # tifffile and the codecs raise whatever a damaged image leads them to
        raise TileReadError(str(error) or type(error).__name__) from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise TileReadError(f"an image of {pixels.dtype} {pixels.shape}, no RGB")
    return np.ascontiguousarray(pixels)
