"""The sides of `readers.py`: one function a way of reading, each (path, locations, size, out) -> None at level 0."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Locations = NDArray[np.int64]
Pixels = NDArray[np.uint8]
Read = Callable[[Locations, tuple[int, int], Pixels], None]
"""Reads (n, 2) level-0 locations of one size into (n, h, w, 3)."""


class StoredTiles:
    """The compressed tiles of a slide's level 0 in memory, and how to decode them: what no reader can be faster than.

    Args:
        path: a tiled TIFF of whole JPEG streams.
    """

    def __init__(self, path: Path) -> None:
        import tifffile

        with tifffile.TiffFile(path) as tif:
            page = tif.pages[0]
            self.side = page.tilewidth
            self.cols = -(-page.imagewidth // self.side)
            self.offsets, self.counts = np.array(page.dataoffsets), np.array(page.databytecounts)
            self.inner = page.imagewidth // self.side, page.imagelength // self.side
        self._path = path
        self._loaded: dict[int, bytes] = {}
        self._touched: dict[bytes, list[int]] = {}

    @cached_property
    def tissue(self) -> NDArray[np.int64]:
        """(m, 2) column and row of the whole tiles with tissue: those of more than twice the bytes of the smallest."""
        found = np.flatnonzero(self.counts > 2 * self.counts.min())
        cells = np.stack([found % self.cols, found // self.cols], axis=1)
        whole: NDArray[np.int64] = cells[(cells < np.array(self.inner)).all(axis=1)]
        return whole

    def touched(self, locations: Locations, size: tuple[int, int]) -> list[int]:
        """The stored tiles that regions meet, each once; found out once, so that decoding is timed without it."""
        key = locations.tobytes()
        if key not in self._touched:
            self._touched[key] = self._find(locations, size)
        return self._touched[key]

    def _find(self, locations: Locations, size: tuple[int, int]) -> list[int]:
        found: set[int] = set()
        for x, y in locations:
            rows = range(int(y) // self.side, (int(y) + size[1] - 1) // self.side + 1)
            cols = range(int(x) // self.side, (int(x) + size[0] - 1) // self.side + 1)
            found.update(row * self.cols + col for row in rows for col in cols)
        return sorted(found)

    def load(self, locations: Locations, size: tuple[int, int]) -> None:
        """Bring the bytes of all tiles that the regions meet into memory."""
        with self._path.open("rb") as file:
            for index in self.touched(locations, size):
                file.seek(int(self.offsets[index]))
                self._loaded[index] = file.read(int(self.counts[index]))

    def decoding(self, decode: Callable[[bytes, Pixels], object]) -> Read:
        """A side that only decodes: each stored tile once, from memory into one and the same buffer, no crop."""

        def read(locations: Locations, size: tuple[int, int], out: Pixels) -> None:
            buffer = np.empty((self.side, self.side, 3), np.uint8)
            for index in self.touched(locations, size):
                decode(self._loaded[index], buffer)

        return read

    def into_batch(self, decode: Callable[[bytes, Pixels], object]) -> Read:
        """A side that decodes whole tiles straight into their places of the output, which no reader can avoid."""

        def read(locations: Locations, size: tuple[int, int], out: Pixels) -> None:
            for pixels, (x, y) in zip(out, (locations // self.side).tolist(), strict=True):
                decode(self._loaded[y * self.cols + x], pixels)

        return read


def decoders(stored: StoredTiles, aligned: bool) -> dict[str, Read]:
    """Decode-only sides: imagecodecs, for whole tiles also into the batch, and simplejpeg where it is installed."""
    import imagecodecs

    def one(content: bytes, out: Pixels) -> None:
        imagecodecs.jpeg_decode(content, out=out)

    sides = {"decode imagecodecs": stored.decoding(one)}
    sides |= {"decode into batch": stored.into_batch(one)} if aligned else {}
    try:
        import simplejpeg
    except ImportError:
        print("left out: decode simplejpeg (pip install simplejpeg)")
        return sides
    return sides | {
        "decode simplejpeg": stored.decoding(lambda content, out: simplejpeg.decode_jpeg(content, buffer=out))
    }


def libraries(path: Path) -> dict[str, Read]:
    """OpenSlide and tiffslide as their users call them, one shared handle."""
    import openslide
    import tiffslide

    one, other = openslide.OpenSlide(path), tiffslide.TiffSlide(path)

    def by_openslide(locations: Locations, size: tuple[int, int], out: Pixels) -> None:
        for pixels, (x, y) in zip(out, locations.tolist(), strict=True):
            pixels[...] = np.asarray(one.read_region((x, y), 0, size))[..., :3]

    def by_tiffslide(locations: Locations, size: tuple[int, int], out: Pixels) -> None:
        for pixels, (x, y) in zip(out, locations.tolist(), strict=True):
            pixels[...] = other.read_region((x, y), 0, size, as_array=True)

    return {"OpenSlide": by_openslide, "tiffslide": by_tiffslide}


def ours(path: Path, name: str, label: str = "") -> dict[str, Read]:
    """A reader of ours: alone, through `Slide`, through `View`, and through dask as predictions read.

    Args:
        path: a slide that the reader opens.
        name: the reader's.
        label: what to call it in the table.
    """
    from wsi_attention import open_slide
    from wsi_attention.registry import READERS, load
    from wsi_attention.slide.view import View

    label = label or name
    reader, slide = load(READERS, name)(str(path)), open_slide(path, reader=name)
    view = View(slide, 1.0)
    sides = {f"{label} reader": _many(reader) or _one_by_one(lambda place, size: reader.read(place, 0, size))}
    sides[f"{label} Slide"] = _many(slide) or _one_by_one(lambda place, size: slide.read(place, 0, size))
    sides[f"{label} View"] = _view_many(view) or _one_by_one(view.read)
    return sides


class ThroughDask:
    """Reading as a prediction does: `read_tiles`, batches as dask tasks on dask's own threads.

    A prediction takes the array that `read_tiles` gives as it is, and so does this side: the last one is `pixels`, in
    memory that is used again, and nothing is written to `out`. `copied` writes it there too, one copy more.

    Args:
        path: a slide that the reader opens.
        name: the reader's.
        batch: tiles a task.
    """

    def __init__(self, path: Path, name: str, batch: int = 32) -> None:
        from wsi_attention import open_slide

        self.slide, self.batch = open_slide(path, reader=name), batch
        self.pixels: Pixels | None = None

    def __call__(self, locations: Locations, size: tuple[int, int], out: Pixels) -> None:
        from wsi_attention import TileSet
        from wsi_attention.tiles.reading import read_tiles

        self.pixels = None  # as a prediction that is over: its memory is free for the next one
        self.pixels = read_tiles(self.slide, TileSet(locations[None], size, 1.0), batch=self.batch).pixels

    def copied(self, locations: Locations, size: tuple[int, int], out: Pixels) -> None:
        """The same, and a copy into the output."""
        self(locations, size, out)
        out[:] = self.pixels


def _many(source: Any) -> Read | None:
    if not hasattr(source, "read_regions"):
        return None

    def read(locations: Locations, size: tuple[int, int], out: Pixels) -> None:
        failed = [why for why in source.read_regions(locations, 0, size, out) if why]
        if failed:
            raise RuntimeError(failed[0])

    return read


def _view_many(view: Any) -> Read | None:
    if not hasattr(view, "read_many"):
        return None

    def read(locations: Locations, size: tuple[int, int], out: Pixels) -> None:
        view.read_many(locations, size, out)

    return read


def _one_by_one(read_one: Callable[[tuple[int, int], tuple[int, int]], Pixels]) -> Read:
    def read(locations: Locations, size: tuple[int, int], out: Pixels) -> None:
        for pixels, (x, y) in zip(out, locations.tolist(), strict=True):
            pixels[...] = read_one((x, y), size)[..., :3]

    return read
