"""One object on a server, asked for ranges of its bytes: over HTTP several in one request, elsewhere one."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import urlsplit

from wsi_attention.slide.readers.bytes import Range

if TYPE_CHECKING:
    from aiohttp import ClientResponse
    from fsspec.asyn import AsyncFileSystem
    from fsspec.implementations.http import HTTPFileSystem

_LOG = logging.getLogger("wsi_attention.download")
HEAD = 2**12
"""Bytes that the first request over HTTP asks for; it tells the size, and whether the server gives ranges at all."""
PIECE = 2**20
"""Bytes of a download that are held at once."""
MANY = 32
"""Ranges in one HTTP request; servers refuse requests with very many."""


class NoRangesError(ValueError):
    """The server answers a request for a range with the whole file."""


class OneRangeError(ValueError):
    """The server takes one range by request only."""


@dataclass(frozen=True)
class Facts:
    """What the first request tells.

    Attributes:
        size: bytes in all.
        version: changes with the content where the server says: ETag, else time of the last change, else empty.
        head: the first bytes, as far as they came along.
        ranged: whether ranges can be asked for.
    """

    size: int
    version: str = ""
    head: bytes = b""
    ranged: bool = True


class Progress:
    """Tells the log how far a download is, at each tenth of it.

    Args:
        name: the URL without its secrets.
        size: bytes in all; -1 if unknown.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name, self._size, self._next = name, size, 0.0

    def __call__(self, done: int) -> None:
        """Note how many bytes are there."""
        if done >= self._next:
            whole = f" of {self._size / 1e6:,.0f}" if self._size > 0 else ""
            _LOG.info("%s: %.0f%s MB fetched", self._name, done / 1e6, whole)
            self._next = done + max(self._size / 10, 1e7)


class RemoteObject(Protocol):
    """Ranges of one object.

    Attributes:
        most: how many ranges go into one request.
        sure: whether the server has been seen to take so many.
    """

    most: int
    sure: bool

    async def facts(self) -> Facts:
        """Ask for size and version."""
        ...

    async def get(self, ranges: Sequence[Range]) -> list[bytes]:
        """Fetch at most `most` ranges, in rising order and apart from each other, by one request.

        Raises:
            OneRangeError: the server takes one range only; `most` is now 1.
            NoRangesError: it gives no ranges at all.
        """
        ...

    async def download(self, path: Path, told: Callable[[int], None]) -> None:
        """Fetch the whole into a file, from the start; `told` is called with the number of bytes that are there."""
        ...


def remote_object(system: AsyncFileSystem, path: str) -> RemoteObject:
    """Return the object at a path of an fsspec file system."""
    over_http = "http" in system.protocol if isinstance(system.protocol, tuple) else system.protocol == "http"
    return HttpObject(cast("HTTPFileSystem", system), path) if over_http else StoredObject(system, path)


class StoredObject:
    """An object of any fsspec file system: one range a request."""

    most = 1
    sure = True

    def __init__(self, system: AsyncFileSystem, path: str) -> None:
        self._system, self._path = system, path

    async def facts(self) -> Facts:
        """Take size and version from the file system's listing."""
        found = await self._ask("info", self._path)
        if found.get("type") == "directory":
            raise IsADirectoryError(self._path)
        version = next((str(found[key]) for key in ("ETag", "etag", "mtime", "LastModified") if found.get(key)), "")
        return Facts(int(found["size"]), version)

    async def get(self, ranges: Sequence[Range]) -> list[bytes]:
        """Fetch the one range asked for."""
        ((offset, count),) = ranges
        return [await self._ask("cat_file", self._path, start=offset, end=offset + count)]

    async def download(self, path: Path, told: Callable[[int], None]) -> None:
        """Fetch the whole file; never needed, because these file systems serve ranges."""
        await self._ask("get_file", self._path, str(path))

    async def _ask(self, method: str, *arguments: str, **options: int) -> Any:
        if self._system.async_impl:
            return await getattr(self._system, f"_{method}")(*arguments, **options)
        return await asyncio.to_thread(getattr(self._system, method), *arguments, **options)


_ONE_RANGE: set[str] = set()
"""Servers that are known to take one range by request only."""
STORES = ("x-amz-request-id", "x-guploader-uploadid", "x-ms-request-id")
"""Headers of the object stores of Amazon (and those that speak its language), Google and Microsoft. They take one range
by request; asked for several, one would begin to send the whole object."""


class HttpObject:
    """An object behind http:// or https://. Several ranges go into one request while the server takes that."""

    def __init__(self, system: HTTPFileSystem, url: str) -> None:
        self._system, self._url = system, url
        self._size = 0
        self._host = urlsplit(url).netloc
        self.most = 1 if self._host in _ONE_RANGE else MANY
        self.sure = self.most == 1

    async def facts(self) -> Facts:
        """Ask for the first bytes: the answer names the size, and HEAD, which some servers refuse, is not needed."""
        async with await self._request([(0, HEAD)]) as answer:
            version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            if answer.status == 416:
                return Facts(0, version)
            answer.raise_for_status()
            if any(header in answer.headers for header in STORES):
                self._take_one()
            if answer.status != 206:
                answer.close()  # the rest of the body would be the whole file
                return Facts(int(answer.headers.get("Content-Length") or -1), version, ranged=False)
            _, self._size = _content_range(answer.headers.get("Content-Range", ""))
            return Facts(self._size, version, await answer.read())

    async def get(self, ranges: Sequence[Range]) -> list[bytes]:
        """Fetch the ranges by one request."""
        if len(ranges) == 1:
            return [await self._one(ranges[0])]
        async with await self._request(ranges) as answer:
            if answer.status in (200, 400, 416):
                answer.close()  # the rest of a body would be the whole file
                self._take_one()
                raise OneRangeError
            answer.raise_for_status()
            parts = await self._parts(answer)
        found = [content for each in ranges if (content := _inside(parts, each)) is not None]
        if len(found) < len(ranges):
            self._take_one()
            raise OneRangeError
        self.sure = True
        return found

    def _take_one(self) -> None:
        self.most, self.sure = 1, True
        _ONE_RANGE.add(self._host)

    async def _one(self, wanted: Range) -> bytes:
        async with await self._request([wanted]) as answer:
            answer.raise_for_status()
            if answer.status != 206:
                answer.close()
                raise NoRangesError
            content = _inside(await self._parts(answer), wanted)
        if content is None:
            raise ConnectionError(f"it gave other bytes than the {wanted[1]} at {wanted[0]}")
        return content

    async def download(self, path: Path, told: Callable[[int], None]) -> None:
        """Fetch the whole into a file, from the start."""
        session, done = await self._system.set_session(), 0
        url, headers = self._system.encode_url(self._url), {"Accept-Encoding": "identity"}
        async with session.get(url, headers=headers) as answer:
            answer.raise_for_status()
            with path.open("wb") as file:  # a local disk is faster than the line: no other request waits long for it
                async for content in answer.content.iter_chunked(PIECE):
                    file.write(content)
                    done += len(content)
                    told(done)

    async def _request(self, ranges: Sequence[Range]) -> ClientResponse:
        session = await self._system.set_session()
        wanted = ",".join(f"{offset}-{offset + count - 1}" for offset, count in ranges)
        headers = {"Range": f"bytes={wanted}", "Accept-Encoding": "identity"}
        answer: ClientResponse = await session.get(self._system.encode_url(self._url), headers=headers)
        return answer

    async def _parts(self, answer: ClientResponse) -> list[tuple[int, bytes]]:
        """Return (offset, content) of each part of a 206 answer."""
        if not answer.headers.get("Content-Type", "").startswith("multipart/byteranges"):
            return [(self._start(answer.headers), await answer.read())]
        from aiohttp import BodyPartReader, MultipartReader

        found: list[tuple[int, bytes]] = []
        reader = MultipartReader.from_response(answer)
        while (part := await reader.next()) is not None:
            found.append((self._start(part.headers), bytes(await cast(BodyPartReader, part).read())))
        return found

    def _start(self, headers: Mapping[str, str]) -> int:
        start, size = _content_range(headers.get("Content-Range", ""))
        if size != self._size:
            raise ValueError(f"its size has changed from {self._size} to {size} bytes since it was opened")
        return start


def _inside(parts: Sequence[tuple[int, bytes]], wanted: Range) -> bytes | None:
    """Cut a range out of the part that holds it; servers may join ranges, or leave some out."""
    offset, count = wanted
    for start, content in parts:
        if start <= offset and offset + count <= start + len(content):
            return content[offset - start : offset - start + count]
    return None


def _content_range(text: str) -> Range:
    """Return (first byte, size of the whole) from a Content-Range header.

    Raises:
        NoRangesError: the header is missing, or does not say.
    """
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", text.strip())
    if match is None:
        raise NoRangesError
    return int(match[1]), int(match[2])
