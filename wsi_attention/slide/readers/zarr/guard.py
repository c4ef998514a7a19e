"""A zarr store that returns no more than its arrays' shapes allow: bombs, devices and links that lead out are refused.

Codecs unpack whatever they receive, so the size that a chunk declares is checked before; for codecs that declare none,
a bounded attempt is made.
"""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from zarr.abc.store import Store
from zarr.storage import WrapperStore, ZipStore

from wsi_attention.errors import TileReadError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from wsi_attention.slide.readers.zarr.chunks import ZarrArray

METADATA = ("zarr.json", ".zattrs", ".zarray", ".zgroup", ".zmetadata")
LARGEST_METADATA = 2**24
"""Bytes of a metadata file."""
SLACK = 2**16
"""Bytes that a packed chunk may have beyond twice its pixels."""
HARMLESS = 2**26
"""Bytes that nobody minds unpacking."""
DEFLATED = 1032
"""Times that deflate can pack at most."""
ABSENT = 2**64 - 1
FOLDERS = 4096
"""Folders of a store of which is kept whether they lie in it: following links for each file costs a tenth of a read."""
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Packing:
    """How the chunks of a level are stored.

    Attributes:
        pixels: bytes of an unpacked chunk.
        chunks: of a file: 1, or those of a shard.
        codec: that packs a chunk, "" for none.
        trailer: bytes after a packed chunk.
    """

    pixels: int
    chunks: int
    codec: str
    trailer: int

    @classmethod
    def of(cls, array: ZarrArray, codecs: list[str]) -> Packing:
        """Return the packing of an array with the named codecs."""
        packers = [name for name in codecs if name in UNPACKED]
        pixels = int(np.prod(array.chunks))
        chunks = int(np.prod(array.shards)) // pixels if array.shards else 1
        inner = codecs[: codecs.index("crc32c") + 1] if "crc32c" in codecs else []
        trailer = 4 if not array.shards and inner else 0
        return cls(pixels, chunks, packers[0] if packers else "", trailer)

    @property
    def largest(self) -> int:
        """The most bytes that such a file may have."""
        return self.chunks * self.largest_chunk

    @property
    def largest_chunk(self) -> int:
        """The most bytes that such a packed chunk may have."""
        return 2 * self.pixels + SLACK

    def check(self, content: bytes) -> None:
        """Raise TileReadError for a file, or a chunk of one, that unpacks to more than its pixels.

        Raises:
            TileReadError: it unpacks to more.
        """
        for chunk in self._chunks_of(content):
            unpacked = UNPACKED[self.codec](chunk, self.pixels) if self.codec else len(chunk)
            if unpacked > self.pixels + self.trailer:
                raise TileReadError(f"a chunk that unpacks to more than its {self.pixels} bytes")

    def _chunks_of(self, content: bytes) -> Iterator[bytes]:
        if self.chunks == 1 or len(content) < 16 * self.chunks + 4:
            yield content
            return
        index = np.frombuffer(content[-16 * self.chunks - 4 : -4], "<u8").reshape(-1, 2)
        for start, count in index.tolist():
            if start != ABSENT:
                yield content[start : start + count]


def _deflated(wbits: int) -> Callable[[bytes, int], int]:
    def unpacked(chunk: bytes, pixels: int) -> int:
        if len(chunk) * DEFLATED <= max(HARMLESS, pixels):
            return 0
        unpacker = zlib.decompressobj(wbits)
        try:
            found = len(unpacker.decompress(chunk, pixels + 1))
        except zlib.error:  # whoever decodes it says so
            return 0
        return found + len(unpacker.unused_data)

    return unpacked


def _with_limit(module: str, name: str) -> Callable[[bytes, int], int]:
    def unpacked(chunk: bytes, pixels: int) -> int:
        import importlib

        unpacker = getattr(importlib.import_module(module), name)()
        try:
            return len(unpacker.decompress(chunk, pixels + 1)) + len(unpacker.unused_data)
        except Exception:  # whoever decodes it says so
            return 0

    return unpacked


def _blosc(chunk: bytes, pixels: int) -> int:
    del pixels
    return int.from_bytes(chunk[4:8], "little")


def _lz4(chunk: bytes, pixels: int) -> int:
    del pixels
    return int.from_bytes(chunk[:4], "little")


def _zstd(chunk: bytes, pixels: int) -> int:
    """Return the size that a frame declares (RFC 8878, 3.1.1.1); where it declares none, that of an attempt."""
    if chunk[:4] != ZSTD_MAGIC or len(chunk) < 18:
        return 0
    told, single = chunk[4] >> 6, chunk[4] >> 5 & 1
    at = 5 + (0 if single else 1) + (0, 1, 2, 4)[chunk[4] & 3]
    length = (1 if single else 0, 2, 4, 8)[told]
    if length:
        return int.from_bytes(chunk[at : at + length], "little") + (256 if told == 1 else 0)
    import imagecodecs

    try:
        return len(imagecodecs.zstd_decode(chunk, out=pixels))
    except Exception:  # no room for more than its pixels, or damaged
        return pixels + 1


UNPACKED: dict[str, Callable[[bytes, int], int]] = {
    "blosc": _blosc,
    "bz2": _with_limit("bz2", "BZ2Decompressor"),
    "gzip": _deflated(31),
    "lz4": _lz4,
    "lzma": _with_limit("lzma", "LZMADecompressor"),
    "zlib": _deflated(15),
    "zstd": _zstd,
}
"""Bytes that a packed chunk unpacks to, or that it is harmless (0); at most a byte more than its pixels is made."""


@runtime_checkable
class SizelessStore(Protocol):
    """A store that cannot say how large a file is before it is fetched."""

    async def get_at_most(self, key: str, prototype: BufferPrototype, most: int) -> Buffer | None:
        """Return the value of a key, None where there is none.

        Raises:
            TileReadError: it has more than so many bytes.
        """
        ...


class GuardedStore(WrapperStore[Store]):
    """A store that checks files before it reads them, and chunks before they are unpacked.

    Args:
        store: that is read.
        size: bytes of a key's file, None where there is none; raises `TileReadError` for what is no plain file inside.
        path: of the slide, for messages.
        packings: by the path of an array; filled in by whoever opens the arrays.
    """

    def __init__(
        self, store: Store, size: Callable[[str], int | None], path: str, packings: dict[str, Packing] | None = None
    ) -> None:
        super().__init__(store)
        self._size, self._path = size, path
        self.packings: dict[str, Packing] = {} if packings is None else packings

    def _with_store(self, store: Store) -> GuardedStore:
        return type(self)(store, self._size, self._path, self.packings)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return the value of a key, None where there is none.

        Raises:
            TileReadError: it is larger than it can be, or lies elsewhere.
        """
        packing = self._packing(key)
        size = self._size(key)
        if size is None:
            return None
        largest = packing.largest if packing else LARGEST_METADATA
        if byte_range is None and size > largest:
            raise TileReadError(self._too_large(key, size, largest))
        if packing is not None and _length(byte_range) > packing.largest_chunk:
            raise TileReadError(self._too_large(f"a chunk in {key}", _length(byte_range), packing.largest_chunk))
        if byte_range is None and isinstance(self._store, SizelessStore):
            found = await self._store.get_at_most(key, prototype, largest)
        else:
            found = await self._store.get(key, prototype, byte_range)
        if found is not None and packing is not None:
            self._check(packing, found, byte_range)
        return found

    def _packing(self, key: str) -> Packing | None:
        if key.rpartition("/")[2] in METADATA:
            return None
        owner = max((path for path in self.packings if key.startswith(f"{path}/".lstrip("/"))), key=len, default=None)
        return None if owner is None else self.packings[owner]

    def check_all(self, store: Store) -> None:
        """Check the kind of every file of a folder, and the size of every entry of a zip file.

        Raises:
            TileReadError: one is no plain file inside, or larger than it can be.
        """
        if isinstance(store, ZipStore):
            for name, entry in store._zf.NameToInfo.items():
                packing = self._packing(name)
                if packing is not None and (_entry_size(entry, self._path) or 0) > packing.largest:
                    raise TileReadError(self._too_large(name, entry.file_size, packing.largest))
        elif Path(self._path).is_dir():
            for key in _odd_files(self._path):
                self._size(key)

    def _too_large(self, key: str, size: int, largest: int) -> str:
        return f"{self._path}: {key} has {size} bytes, more than the {largest} it can have; leave the slide out"

    @staticmethod
    def _check(packing: Packing, found: Buffer, byte_range: ByteRequest | None) -> None:
        from zarr.abc.store import RangeByteRequest

        if byte_range is None:
            packing.check(found.to_bytes())
        elif isinstance(byte_range, RangeByteRequest):
            Packing(packing.pixels, 1, packing.codec, packing.trailer).check(found.to_bytes())

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return the values of many keys, as `get` does."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        async for found in Store._get_many(self, requests):
            yield found


def _length(byte_range: ByteRequest | None) -> int:
    """Return the bytes of a range whose ends are known; 0 for others."""
    from zarr.abc.store import RangeByteRequest

    return byte_range.end - byte_range.start if isinstance(byte_range, RangeByteRequest) else 0


def sizes_of(store: Store, path: str) -> Callable[[str], int | None]:
    """Return a function from a key to the bytes of its file in a folder or a zip file.

    For other stores it returns 0: no more than allowed is fetched there anyway.
    """
    if isinstance(store, ZipStore):
        if not store._is_open:
            store._sync_open()
        entries = store._zf.NameToInfo
        return lambda key: _entry_size(entries.get(key), path)
    return _sizes_in_folder(path) if Path(path).is_dir() else lambda key: 0


def _entry_size(entry: zipfile.ZipInfo | None, path: str) -> int | None:
    if entry is None:
        return None
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise TileReadError(f"{path}: {entry.filename} is packed in a way that zip files of slides are not")
    return entry.file_size


def _odd_files(path: str) -> Iterator[str]:
    """Yield the keys of what is neither a plain file nor a folder; ask no file for its size."""
    folders = [path]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    yield os.path.relpath(entry.path, path)


def _sizes_in_folder(path: str) -> Callable[[str], int | None]:
    root = os.path.realpath(path)

    @lru_cache(FOLDERS)
    def leads_out(file: str) -> bool:
        return not f"{os.path.realpath(file)}{os.sep}".startswith(f"{root}{os.sep}")

    def size(key: str) -> int | None:
        folder, _, name = f"{root}{os.sep}{key}".rpartition("/")
        file = f"{folder}/{name}"
        try:
            state = os.lstat(file)
            linked = stat.S_ISLNK(state.st_mode)
            state = os.stat(file) if linked else state  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise TileReadError(f"{path}: {key} cannot be read ({error.strerror})") from error
        if stat.S_ISDIR(state.st_mode):
            return None
        if not stat.S_ISREG(state.st_mode):
            raise TileReadError(f"{path}: {key} is no plain file but a device, pipe or socket")
        if leads_out(folder) or (linked and leads_out(file)):
            raise TileReadError(f"{path}: {key} is a link that leads out of the store")
        return state.st_size

    return size
