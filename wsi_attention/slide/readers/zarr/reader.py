"""OME-Zarr slides: 0.4 on zarr format 2 and 0.5 on format 3, as a folder or in a zip file."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import SlideOpenError, TileReadError, UnsupportedSlideError
from wsi_attention.geometry import Box
from wsi_attention.registry import IMPORTING
from wsi_attention.slide.channels import STORED, reordered, rgb_order
from wsi_attention.slide.failures import opening
from wsi_attention.slide.holes import whitened
from wsi_attention.slide.images import Series
from wsi_attention.slide.metadata import check_metadata
from wsi_attention.slide.readers.bytes import is_tiff
from wsi_attention.slide.readers.limits import MAX_SEGMENT_PIXELS, check_dimensions
from wsi_attention.slide.readers.zarr.absence import Absence, known_keys
from wsi_attention.slide.readers.zarr.chunks import Codec, Grid, Rectangle, read_regions
from wsi_attention.slide.readers.zarr.guard import UNPACKED, GuardedStore, Packing, sizes_of
from wsi_attention.slide.readers.zarr.images import pick
from wsi_attention.slide.readers.zarr.levels import level_of
from wsi_attention.slide.readers.zarr.ome_metadata import Multiscale, channels
from wsi_attention.slide.resample import level_location, padded
from wsi_attention.slide.urls import is_store_url, is_url

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import Store

    from wsi_attention.slide.readers.zarr.chunks import ZarrArray

_MARKERS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
_CODECS = {"bytes", "blosc", "bz2", "crc32c", "delta", "gzip", "lz4", "lzma", "sharding_indexed", "shuffle"}
_CODECS |= {"transpose", "zlib", "zstd"}
"""Codecs that only pack bytes; others (pickle above all) are refused, whatever is installed."""


class ZarrReader:
    """One OME-Zarr store, opened read-only. Locations are taken to the level's nearest whole pixel."""

    name: ClassVar[str] = "zarr"

    def __init__(self, path: str, series: Series = None) -> None:
        with opening(path, self.name):
            root = _root(path)
            if root is None:
                raise SlideOpenError(f"{path}: no zarr metadata there; give an OME-Zarr folder or zip file")
            self._store = _open_store(path)
        with opening(path, self.name, self._store.close):
            guarded = GuardedStore(self._store, sizes_of(self._store, path), path)
            picked = pick(guarded, root, path, series)
            group, pyramid = picked.image.group, picked.image.pyramid
            self._axes = pyramid.axes
            self._arrays = picked.image.arrays
            self.level_dimensions = tuple(self._extent(array, path) for array in self._arrays)
            check_dimensions(path, self.level_dimensions)
            for array in self._arrays:
                guarded.packings[array.path] = _checked_packing(array, path)
            self.properties: Mapping[str, str] = _properties(group, pyramid)
            check_metadata(path, self.properties)
            guarded.check_all(self._store)
            order = rgb_order(*channels(group.attrs.asdict()), path) or STORED
            self._levels = [level_of(array, self._axes, path, order) for array in self._arrays]
            has = known_keys(self._store, path)
            self._absences = [Absence(array, self._axes, has) for array in self._arrays]
        self.level_downsamples = pyramid.downsamples(self.level_dimensions)
        self.tile_sizes: tuple[tuple[int, int] | None, ...] = tuple(map(self._chunk, range(len(self._arrays))))
        self.bounds: Box | None = None
        self.associated: tuple[str, ...] = ()
        self.images, self.image = picked.images, picked.image.about.index
        doubts = pyramid.doubts(self.level_dimensions)
        self.notes = (*picked.notes, *((reordered(order),) if order != STORED else ()), *doubts)

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Tell whether a folder or zip file holds zarr metadata at its top or in its only folder; a URL, by name."""
        try:
            return is_store_url(path) if is_url(path) else _root(path) is not None
        except Exception:  # zipfile raises more than BadZipFile on broken archives, and a probe must not fail
            return False

    def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return pixels (h, w, 3); outside the slide they are white.

        Raises:
            TileReadError: a chunk could not be read or decoded.
        """
        corner = level_location(location, self.level_downsamples[level])
        try:
            return padded(partial(self._crop, level), self.level_dimensions[level], corner, size)
        except Exception as error:  # zarr and its codecs raise whatever a damaged chunk leads them to
            raise TileReadError(str(error) or type(error).__name__) from error

    def read_regions(
        self, locations: NDArray[np.int64], level: int, size: tuple[int, int], out: NDArray[np.uint8]
    ) -> list[str | None]:
        """Do what `RegionsReader.read_regions` says; every chunk is read whole and once."""
        downsample = self.level_downsamples[level]
        corners = np.array([level_location((int(x), int(y)), downsample) for x, y in locations]).reshape(-1, 2)
        del size
        return read_regions(self._grid(level), corners, out, partial(self._fetch, level))

    def absent(self, level: int, tiles: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell whether chunks (column, row) are not in the store; of one elsewhere, those that were asked for."""
        return self._absences[level].of(tiles)

    def _crop(self, level: int, rows: slice, cols: slice) -> NDArray[np.uint8]:
        pixels = self._levels[level].crop(rows, cols)
        return whitened(pixels, (cols.start, rows.start), self._chunk(level), partial(self.absent, level))

    def _fetch(self, level: int, places: list[Rectangle]) -> Iterator[NDArray[np.uint8] | Exception]:
        """Fetch chunks, white where they are not in the store, whatever fill value it names."""
        for (rows, cols), pixels in zip(places, self._levels[level].fetch(places), strict=True):
            if isinstance(pixels, Exception):
                yield pixels
            else:
                yield whitened(pixels, (cols.start, rows.start), self._chunk(level), partial(self.absent, level))

    def _chunk(self, level: int) -> tuple[int, int]:
        array, x, y = self._arrays[level], self._axes.index("x"), self._axes.index("y")
        return array.chunks[x], array.chunks[y]

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        """Raise InputError: OME-Zarr keeps no label or macro image.

        Raises:
            KeyError: always.
        """
        raise KeyError(name)

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _grid(self, level: int) -> Grid:
        array, x, y = self._arrays[level], self._axes.index("x"), self._axes.index("y")
        shard = array.shards or array.chunks
        return Grid(self.level_dimensions[level], self._chunk(level), (shard[x], shard[y]))

    def _extent(self, array: ZarrArray, path: str) -> tuple[int, int]:
        length = dict(zip(self._axes, array.shape, strict=False))
        planes = {axis: n for axis, n in length.items() if axis in "tz" and n != 1}
        if array.dtype != np.uint8 or len(array.shape) != len(self._axes) or length["c"] != 3 or planes:
            raise UnsupportedSlideError(
                f"{path}: level {array.path!r} is {array.dtype} {array.shape} with axes {self._axes};"
                " only 8-bit RGB brightfield slides (3 channels, one plane) can be classified"
            )
        return length["x"], length["y"]


def _root(path: str) -> str | None:
    """Return the folder of the zarr metadata: "" at the top, a name inside a zip, None where there is none."""
    if is_url(path):
        return ""
    file = Path(path)
    if file.is_dir():
        return "" if any((file / marker).is_file() for marker in _MARKERS) else None
    if is_tiff(path) or not zipfile.is_zipfile(file):  # which reads the last 64 KB of any file
        return None
    with zipfile.ZipFile(file) as archive:
        places = [PurePosixPath(name) for name in archive.namelist()]
    found = {str(place.parent) for place in places if place.name in _MARKERS and len(place.parts) <= 2}
    if "." in found:
        return ""
    return found.pop() if len(found) == 1 else None


def _open_store(path: str) -> Store:
    with IMPORTING:
        from zarr.storage import LocalStore, ZipStore

    if is_url(path):
        with IMPORTING:
            from wsi_attention.slide.readers.remote.store import RemoteStore

        return RemoteStore.at(path)
    if Path(path).is_dir():
        return LocalStore(path, read_only=True)
    return ZipStore(path, mode="r", read_only=True)


class Numcodec(Protocol):
    """A codec of zarr format 2, once zarr has made it."""

    codec_id: str


def _checked_packing(array: ZarrArray, path: str) -> Packing:
    """Return how a level is packed; refuse chunks too large to decode, and codecs that do more than pack bytes once."""
    if int(np.prod(array.chunks)) > 3 * MAX_SEGMENT_PIXELS:
        raise SlideOpenError(f"{path}: chunks of {array.chunks}, too large to decode in pieces; rechunk it first")
    for codec in _codec_names(array):
        if codec not in _CODECS:
            raise UnsupportedSlideError(f"{path}: zarr codec {codec!r} is not accepted; write it with blosc or zstd")
    packers = [codec for codec in _codec_names(array) if codec in UNPACKED]
    if len(packers) > 1:
        raise UnsupportedSlideError(f"{path}: chunks packed by {' and '.join(packers)}; write it with one of them")
    return Packing.of(array, _codec_names(array))


def _codec_names(array: ZarrArray) -> list[str]:
    stored = array.metadata.to_dict()
    if stored.get("zarr_format") == 2:
        packed = [stored.get("compressor"), *cast(Sequence[object], stored.get("filters") or ())]
        made = cast(Sequence[Mapping[str, str] | Numcodec], [codec for codec in packed if codec])
        return [str(codec["id"] if isinstance(codec, Mapping) else codec.codec_id) for codec in made]
    return _nested_names(cast(Sequence[Codec], stored.get("codecs") or ()))


def _nested_names(codecs: Sequence[Codec]) -> list[str]:
    found = []
    for codec in codecs:
        found.append(str(codec["name"]).removeprefix("numcodecs."))
        inner = codec.get("configuration") or {}
        found += _nested_names(inner.get("codecs") or ()) + _nested_names(inner.get("index_codecs") or ())
    return found


def _properties(group: zarr.Group, pyramid: Multiscale) -> dict[str, str]:
    found = {
        "openslide.vendor": "ome-zarr",
        "ome-zarr.axes": pyramid.axes,
        "zarr.format": str(group.metadata.zarr_format),
    }
    found["ome-zarr.channels"] = ", ".join(channels(group.attrs.asdict())[0])
    mpp = pyramid.mpp()
    if mpp is not None:
        found |= {"ome-zarr.mpp-x": repr(mpp[0]), "ome-zarr.mpp-y": repr(mpp[1])}
    return found
