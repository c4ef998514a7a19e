"""One level of an OME-Zarr store as RGB rectangles: through zarr, or through tensorstore where that can read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_attention.registry import IMPORTING
from wsi_attention.slide.channels import STORED, Order
from wsi_attention.slide.readers.zarr.chunks import Rectangle
from wsi_attention.slide.resample import Pixels
from wsi_attention.slide.urls import is_url

if TYPE_CHECKING:
    import tensorstore

    from wsi_attention.slide.readers.zarr.chunks import ZarrArray

IN_FLIGHT = 16_000_000
"""Bytes of pixels that are fetched ahead."""
REQUESTS = 4
"""Chunks fetched side by side from elsewhere, for each task that reads."""


class Level(Protocol):
    """A level that is read as pixels (h, w, 3)."""

    def crop(self, rows: slice, cols: slice) -> Pixels:
        """Read one rectangle; raise whatever the library raises on a damaged chunk."""
        ...

    def fetch(self, places: Sequence[Rectangle]) -> Iterator[Pixels | Exception]:
        """Read many, in the order given; an error stands in place of what cannot be read."""
        ...


class ZarrLevel:
    """Through zarr, chunk after chunk; several at a time where they come over a network.

    Args:
        array: the level.
        axes: a letter an axis.
        remote: whether chunks come from elsewhere.
        order: of its channels.
    """

    def __init__(self, array: ZarrArray, axes: str, remote: bool, order: Order = STORED) -> None:
        self._array, self._axes, self._remote, self._order = array, axes, remote, order

    def crop(self, rows: slice, cols: slice) -> Pixels:
        """Do what `Level.crop` says."""
        return _upright(np.asarray(self._array[_selection(self._axes, rows, cols)]), self._axes, self._order)

    def fetch(self, places: Sequence[Rectangle]) -> Iterator[Pixels | Exception]:
        """Do what `Level.fetch` says."""
        if not self._remote:
            yield from (self._attempt(place) for place in places)
            return
        with ThreadPoolExecutor(REQUESTS) as pool:
            for start in range(0, len(places), REQUESTS):
                yield from pool.map(self._attempt, places[start : start + REQUESTS])

    def _attempt(self, place: Rectangle) -> Pixels | Exception:
        return _attempt(lambda: self.crop(*place))


class TensorStoreLevel:
    """Through tensorstore, which decodes chunks side by side and reads the index of a shard once a request.

    Args:
        store: the level.
        axes: a letter an axis.
        chunk: pixels of a chunk.
        order: of its channels.
    """

    def __init__(self, store: tensorstore.TensorStore, axes: str, chunk: int, order: Order = STORED) -> None:
        self._store, self._axes, self._order = store, axes, order
        self._together = max(1, IN_FLIGHT // (3 * chunk))

    def crop(self, rows: slice, cols: slice) -> Pixels:
        """Do what `Level.crop` says."""
        return self._taken(self._store[_selection(self._axes, rows, cols)].read())

    def fetch(self, places: Sequence[Rectangle]) -> Iterator[Pixels | Exception]:
        """Do what `Level.fetch` says."""
        import tensorstore

        for start in range(0, len(places), self._together):
            some = places[start : start + self._together]
            with tensorstore.Batch() as batch:
                asked = [self._store[_selection(self._axes, *place)].read(batch=batch) for place in some]
            yield from (_attempt(partial(self._taken, one)) for one in asked)

    def _taken(self, asked: tensorstore.Future[Pixels]) -> Pixels:
        return _upright(np.asarray(asked.result()), self._axes, self._order)


def level_of(array: ZarrArray, axes: str, path: str, order: Order = STORED) -> Level:
    """Return a level read by tensorstore, if that is installed and can read the store, a local folder; else by zarr.

    Args:
        array: the level.
        axes: a letter an axis.
        path: the store's.
        order: of its channels.
    """
    remote = is_url(path)
    fast = _with_tensorstore(array, axes, Path(path), order) if not remote and Path(path).is_dir() else None
    return fast or ZarrLevel(array, axes, remote, order)


def _with_tensorstore(array: ZarrArray, axes: str, folder: Path, order: Order) -> Level | None:
    try:
        with IMPORTING:
            import tensorstore
    except ImportError:
        return None
    spec = {
        "driver": "zarr3" if array.metadata.zarr_format == 3 else "zarr",
        "kvstore": {"driver": "file", "path": f"{(folder / array.path).resolve()}/"},
        "context": {"cache_pool": {"total_bytes_limit": 0}},
    }
    try:
        store = tensorstore.open(spec, open=True, read=True, write=False).result()
    except ValueError:  # a codec or a detail of the metadata that zarr knows and tensorstore does not
        return None
    x, y = axes.index("x"), axes.index("y")
    return TensorStoreLevel(store, axes, array.chunks[x] * array.chunks[y], order)


def _selection(axes: str, rows: slice, cols: slice) -> tuple[slice | int, ...]:
    return tuple({"y": rows, "x": cols, "c": slice(None)}.get(axis, 0) for axis in axes)


def _upright(pixels: NDArray[np.uint8], axes: str, order: Order) -> Pixels:
    """Return (h, w, 3) in red, green and blue, however axes and channels lie in the store."""
    kept = "".join(axis for axis in axes if axis in "yxc")
    upright = pixels.transpose([kept.index(axis) for axis in "yxc"])
    return upright if order == STORED else upright[..., list(order)]


def _attempt(read: Callable[[], Pixels]) -> Pixels | Exception:
    try:
        return read()
    except Exception as error:  # libraries and their codecs raise whatever a damaged chunk leads them to
        return error
