"""A zarr store behind a URL, read-only: zarr's own fsspec store with a limit on waiting, and second attempts."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest
from zarr.storage import FsspecStore, WrapperStore

from wsi_attention.errors import SlideOpenError, TileReadError
from wsi_attention.slide.readers.remote import system as remote_system
from wsi_attention.slide.readers.remote.system import AZURE, GIVEN_UP, file_system, persistently, scheme_of
from wsi_attention.slide.urls import last_part, masked

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

T = TypeVar("T")
KEPT = 2**25
"""Bytes of whole chunks and of indices of shards that are kept, so that neighbouring tiles fetch them once."""
PIECE = 2**16
"""Bytes of an answer that are taken at once."""


class RemoteStore(WrapperStore[FsspecStore]):
    """Fetches chunks side by side, as many as zarr's `async.concurrency` says.

    Attributes:
        path: the URL without its secrets, for messages.
        missing: keys that were asked for and are not there.
    """

    def __init__(self, store: FsspecStore, url: str) -> None:
        super().__init__(store)
        self.path = masked(url)
        self._patience = remote_system.PATIENCE
        self._kept: OrderedDict[str, Buffer | None] = OrderedDict()
        self._bytes = 0
        self._gives_ends = scheme_of(url) not in AZURE  # it takes a part by its first byte only
        self.missing: set[str] = set()

    @classmethod
    def at(cls, url: str) -> RemoteStore:
        """Return the store at a URL; send no request yet.

        Raises:
            MissingExtraError: the scheme's package is not installed.
            SlideOpenError: fsspec knows no such scheme, or it is a zip file.
        """
        if last_part(url).lower().endswith((".zip", ".ozx")):
            raise SlideOpenError(f"{masked(url)}: a zip file at a URL cannot be read in pieces; download it first")
        system, path = file_system(url.rstrip("/"), remote_system.PATIENCE, asynchronous=scheme_of(url) not in AZURE)
        if not (system.async_impl and system.asynchronous):
            from fsspec.implementations import asyn_wrapper

            system = cast(Any, asyn_wrapper).AsyncFileSystemWrapper(system, asynchronous=True)
        return cls(FsspecStore(system, read_only=True, path=path.rstrip("/")), url)

    def _with_store(self, store: FsspecStore) -> RemoteStore:
        return type(self)(store, self.path)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return the value of a key, None where there is none.

        Raises:
            TileReadError: it cannot be fetched.
        """
        if byte_range is None:
            return await self.get_at_most(key, prototype, sys.maxsize)
        if isinstance(byte_range, SuffixByteRequest) and (kept := _name_of_end(key, byte_range)) in self._kept:
            self._kept.move_to_end(kept)
            return self._kept[kept]
        found = await self._persistently(lambda: self._part(key, prototype, byte_range))
        if found is None:
            self.missing.add(key)
        elif _is_other_part(byte_range, len(found)):
            raise TileReadError(
                f"{self.path}: the server gives whole files only, no ranges of bytes; download it first"
            )
        if isinstance(byte_range, SuffixByteRequest):
            self._keep(_name_of_end(key, byte_range), found)
        return found

    async def _part(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest) -> Buffer | None:
        """Return a part of the value of a key; where the server gives no last bytes, it is asked for the size first."""
        if not isinstance(byte_range, SuffixByteRequest):
            return await self._store.get(key, prototype, byte_range)
        if self._gives_ends:
            found = await self._store.get(key, prototype, byte_range)
            if found is None or not _is_other_part(byte_range, len(found)):
                return found
            self._gives_ends = False
        try:
            size = await self._store.getsize(key)
        except FileNotFoundError:
            return None
        return await self._store.get(key, prototype, RangeByteRequest(max(0, size - byte_range.suffix), size))

    async def get_at_most(self, key: str, prototype: BufferPrototype, most: int) -> Buffer | None:
        """Return the value of a key that may have so many bytes; None where there is none.

        Raises:
            TileReadError: it has more, of which little was fetched; or it cannot be fetched.
        """
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        found = await self._persistently(lambda: self._beginning(key, prototype, most))
        if found is None:
            self.missing.add(key)
        elif len(found) > most:
            raise TileReadError(
                f"{self.path}: {key} has more than the {most} bytes that it can have; leave the slide out"
            )
        self._keep(key, found)
        return found

    async def _beginning(self, key: str, prototype: BufferPrototype, most: int) -> Buffer | None:
        """Return the value of a key, or its first bytes, one more than allowed, where it is longer."""
        system: Any = self._store.fs
        if most == sys.maxsize:
            return await self._store.get(key, prototype)
        if not isinstance(system.protocol, tuple) or "http" not in system.protocol:
            return await self._store.get(key, prototype, RangeByteRequest(0, most + 1))
        url, session = f"{self._store.path}/{key}", await system.set_session()
        async with session.get(system.encode_url(url), **system.kwargs) as answer:
            if answer.status == 404:
                return None
            answer.raise_for_status()
            content = bytearray()
            async for piece in answer.content.iter_chunked(PIECE):
                content += piece
                if len(content) > most:
                    answer.close()  # the rest stays where it is
                    break
        return prototype.buffer.from_bytes(bytes(content[: most + 1]))

    def _keep(self, key: str, value: Buffer | None) -> None:
        self._kept[key] = value
        self._bytes += len(value) if value else 0
        while self._bytes > KEPT:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest) if oldest else 0

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

    async def _persistently(self, request: Callable[[], Awaitable[T]]) -> T:
        GIVEN_UP.check(self.path)
        try:
            return await persistently(request, self._patience)
        except Exception as error:  # aiohttp, botocore and gcsfs raise errors of their own
            raise GIVEN_UP.failed(self.path, error, self._patience.rest) from None

    def close(self) -> None:
        """Drop what was kept; connections stay open for other slides of the same server."""
        self._kept.clear()
        self._bytes = 0
        self._store.close()


def _name_of_end(key: str, asked: SuffixByteRequest) -> str:
    """Return the name under which the end of a value is kept: a shard's index, which each of its chunks needs."""
    return f"{key} -{asked.suffix}"


def _is_other_part(asked: ByteRequest, count: int) -> bool:
    """Tell from the number of bytes of an answer whether it is another part than the one asked for."""
    if isinstance(asked, RangeByteRequest):
        return 0 < count != asked.end - asked.start
    return isinstance(asked, SuffixByteRequest) and count > asked.suffix
