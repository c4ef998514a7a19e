"""Which chunks of a level are not in its store: zarr reads the fill value for them, as if it had been measured."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import TileReadError
from wsi_attention.slide.readers.zarr.chunks import Codec

if TYPE_CHECKING:
    from zarr.abc.store import Store

    from wsi_attention.slide.readers.zarr.chunks import ZarrArray

ABSENT = 2**64 - 1
"""Offset and length that a shard's index has for a chunk that is not in it."""
SHARDS = 256
"""Indices of shards that are kept."""


class Absence:
    """The missing chunks of one level.

    Args:
        array: the level.
        axes: a letter an axis.
        has: whether a key is in the store; of a store elsewhere, whether it was not found to be missing.
    """

    def __init__(self, array: ZarrArray, axes: str, has: Callable[[str], bool]) -> None:
        self._array, self._axes, self._has = array, axes, has
        chunks, self._file = array.chunks, array.shards or array.chunks
        self._counts = [-(-n // step) for n, step in zip(array.shape, chunks, strict=True)]
        self._steps = [big // small for big, small in zip(self._file, chunks, strict=True)]
        self._index = lru_cache(SHARDS)(self._read_index) if array.shards and _plain_index(array) else None

    def of(self, tiles: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (n,): whether a part of each chunk (column, row), (n, 2), is not stored."""
        found = np.array([self._absent(int(col), int(row)) for col, row in tiles], np.bool_)
        return found.reshape(len(tiles))

    def _absent(self, col: int, row: int) -> bool:
        places = ((row,) if a == "y" else (col,) if a == "x" else range(n) if a == "c" else (0,)
                  for a, n in zip(self._axes, self._counts, strict=True))  # fmt: skip
        return any(map(self._chunk_absent, itertools.product(*places)))

    def _chunk_absent(self, chunk: tuple[int, ...]) -> bool:
        file = tuple(at // step for at, step in zip(chunk, self._steps, strict=True))
        if not self._has(self._key(file)):
            return True
        if self._index is None:
            return False
        index = self._index(file)
        inside = tuple(at % step for at, step in zip(chunk, self._steps, strict=True))
        return index is not None and bool((index[inside] == ABSENT).all())

    def _key(self, file: tuple[int, ...]) -> str:
        name = self._array.metadata.encode_chunk_key(file)
        return f"{self._array.path}/{name}".lstrip("/")

    def _read_index(self, file: tuple[int, ...]) -> NDArray[np.uint64] | None:
        """Return (…, 2): where each chunk lies in a shard, and how many bytes it has; None where that is not known."""
        from zarr.abc.store import SuffixByteRequest
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        length = 16 * int(np.prod(self._steps))
        asked = SuffixByteRequest(length + 4)
        try:
            found = sync(self._array.store.get(self._key(file), default_buffer_prototype(), asked))
        except (OSError, TileReadError):  # reading the chunk says why
            return None
        if found is None or len(found) != length + 4:
            return None
        return np.frombuffer(found.to_bytes()[:length], "<u8").reshape(*self._steps, 2)


def _plain_index(array: ZarrArray) -> bool:
    """Tell whether a shard ends with an index in plain numbers and a checksum, as is usual."""
    for codec in cast(Sequence[Codec], array.metadata.to_dict().get("codecs") or ()):
        if codec["name"] == "sharding_indexed":
            told = codec.get("configuration") or {}
            names = [one["name"] for one in told.get("index_codecs") or ()]
            return told.get("index_location", "end") == "end" and names == ["bytes", "crc32c"]
    return False


def known_keys(store: Store, path: str) -> Callable[[str], bool]:
    """Tell whether a key is in a store: a local folder, a zip file, or a remote one, if it has been asked for."""
    from zarr.storage import ZipStore

    if isinstance(store, ZipStore):
        names = frozenset(store._zf.namelist())
        return names.__contains__
    missing = getattr(store, "missing", None)
    if missing is not None:
        return lambda key: key not in missing
    return lambda key: os.path.exists(f"{path}/{key}")  # noqa: PTH110
