"""The bytes of a slide behind a URL: only the ranges asked for, few requests side by side, and never for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from wsi_attention.errors import SlideError, SlideOpenError, TileReadError
from wsi_attention.slide.failures import one_line
from wsi_attention.slide.readers.bytes import LocalBytes, Range, cut_out, gap_within, merged
from wsi_attention.slide.readers.remote import system as remote_system
from wsi_attention.slide.readers.remote.cache import LIMIT_VARIABLE, WHOLE, RemoteCache
from wsi_attention.slide.readers.remote.file import RemoteFile, blocks_of
from wsi_attention.slide.readers.remote.objects import Facts, NoRangesError, OneRangeError, Progress, remote_object
from wsi_attention.slide.readers.remote.recent import RECENT
from wsi_attention.slide.readers.remote.system import GIVEN_UP, file_system, persistently
from wsi_attention.slide.urls import masked

T = TypeVar("T")
REQUESTS = 16
"""Requests side by side for one slide."""
SMALL_GAP = 2**9
"""Bytes between two ranges that are fetched with them where one request takes several ranges, each with a header."""
GAP = 2**18
"""The same where each range needs a request of its own, at most: as long as a request takes, a line brings so much."""
SPARE, LEAST_SPARE = 0.5, 2**15
"""There the bytes of all gaps together, at most, as a share of the bytes that are wanted; but so many in any case."""
SLOWEST = 1e5
"""Bytes a second that a line must bring for its requests to be waited for."""
LARGEST = 2**23
"""Bytes of one request, at most, unless a single range is larger."""


class RemoteBytes:
    """One object on a server, through fsspec. Thread-safe.

    A URL that had to be given up fails at once for a while, so that a server that is gone costs its time once.

    Attributes:
        path: the URL without its secrets, for messages.
        size: bytes in all.
        version: changes with the content where the server says; else empty.
    """

    def __init__(self, url: str) -> None:
        """Ask the server for the size.

        Raises:
            SlideOpenError: no such file, no access, no answer, or the server gives whole files only.
            MissingExtraError: the scheme's package is not installed.
        """
        self.path = masked(url)
        self._patience = remote_system.PATIENCE
        self._system, path = file_system(url, self._patience)
        self._object = remote_object(self._system, path)
        self._closed = False
        try:
            facts = self._run(lambda: persistently(self._object.facts, self._patience))
        except TileReadError as error:
            raise SlideOpenError(str(error)) from error
        if facts.size == 0:
            raise SlideOpenError(f"{self.path}: the file is empty (0 bytes); check the URL")
        cache = RemoteCache.wanted()
        kept = cache is not None and (cache.whole or facts.version)  # unasked, only what tells one version from another
        self._slot = cache.slot(self.path, facts.version, facts.size) if cache and kept else None
        self._whole = None if facts.ranged else self._local(facts, cache)
        self.size = self._whole.size if self._whole else facts.size
        self.version = facts.version
        self._file: Hashable = (url, facts.version, facts.size) if facts.version else object()
        RECENT.put(self._file, blocks_of(facts.head, facts.size))

    def _local(self, facts: Facts, cache: RemoteCache | None) -> LocalBytes:
        """Open the whole file from the cache, fetched first if need be."""
        size = f"{facts.size / 1e6:,.{facts.size < 10_000_000:d}f} MB" if facts.size > 0 else "the file"
        if cache is None or self._slot is None or not cache.whole:
            raise SlideOpenError(
                f"{self.path}: the server gives whole files only, no ranges of bytes;"
                f" with --cache FOLDER {size} will be fetched once and kept there"
            )
        if facts.size > cache.limit:
            raise SlideOpenError(
                f"{self.path}: {size} do not fit into a cache of {cache.limit / 1e9:g} GB; set {LIMIT_VARIABLE}"
            )
        try:
            return LocalBytes(
                str(self._slot.whole or self._slot.write(WHOLE, lambda path: self._download(path, facts)))
            )
        except OSError as error:
            if isinstance(error, SlideError):
                raise
            raise SlideOpenError(f"{self.path}: cannot be kept in {cache.folder} ({one_line(error)})") from error

    def _download(self, path: Path, facts: Facts) -> None:
        told = Progress(self.path, facts.size)
        total = facts.size / SLOWEST if facts.size > 0 else 24 * 3600.0
        patience = replace(self._patience, total=self._patience.total + total)
        try:
            self._run(lambda: persistently(lambda: self._object.download(path, told), patience), more=total)
        except TileReadError as error:
            raise SlideOpenError(str(error)) from error

    def read(self, ranges: Sequence[Range]) -> list[bytes]:
        """Return the bytes of each range, in the order given.

        Raises:
            TileReadError: a range reaches past the end, or cannot be fetched.
            SlideError: it was closed.
        """
        if self._closed:
            raise SlideError(f"{self.path}: the file was closed; open it again")
        if self._whole:
            return self._whole.read(ranges)
        for offset, count in ranges:
            if offset < 0 or count < 0 or offset + count > self.size:
                raise TileReadError(
                    f"{self.path}: {count} bytes at {offset} asked, the file has {self.size}; it is truncated"
                )
        wanted = sorted({each for each in ranges if each[1]})
        found = self._recent(wanted)
        if missing := [each for each in wanted if each not in found]:
            more = self._kept(missing)
            more |= self._fetched(left) if (left := [each for each in missing if each not in more]) else {}
            RECENT.put(self._file, more)
            found |= more
        return [found[each] if each[1] else b"" for each in ranges]

    def _recent(self, ranges: Sequence[Range]) -> dict[Range, bytes]:
        return RECENT.get(self._file, ranges)

    def _kept(self, wanted: Sequence[Range]) -> dict[Range, bytes]:
        """Return what the cache folder has of some ranges."""
        slot = self._slot
        return {each: content for each in wanted if (content := slot.get(each)) is not None} if slot else {}

    def _fetched(self, wanted: Sequence[Range]) -> dict[Range, bytes]:
        """Fetch ranges in rising order from the server; keep them, if there is a cache."""
        spans = list(merged(wanted, self._gap(wanted), LARGEST))
        contents = self._run(lambda: self._fetch(spans), more=sum(count for _, count in spans) / SLOWEST)
        if self._slot:
            for span, content in zip(spans, contents, strict=True):
                self._slot.put(span, content)
        return dict(zip(wanted, cut_out(spans, contents, wanted), strict=True))

    def _gap(self, wanted: Sequence[Range]) -> int:
        """Return how far apart ranges are that are fetched as one."""
        if self._object.most > 1:
            return SMALL_GAP
        spare = max(int(SPARE * sum(count for _, count in wanted)), LEAST_SPARE)
        return gap_within(wanted, spare, GAP)

    async def _fetch(self, spans: Sequence[Range]) -> list[bytes]:
        """Make several requests side by side; the first goes ahead where it is not known what the server accepts."""
        turn = asyncio.Semaphore(REQUESTS)

        async def part(request: Sequence[Range]) -> list[bytes]:
            async with turn:
                try:
                    return await persistently(lambda: self._get(request), self._patience)
                except OneRangeError:
                    return [content for each in request for content in await self._get([each])]

        first: list[bytes] = []
        if not self._object.sure and len(spans) > 1:
            with suppress(OneRangeError):
                first = await persistently(lambda: self._get(_packed(spans, self._object.most)[0]), self._patience)
        tasks = [asyncio.ensure_future(part(each)) for each in _packed(spans[len(first) :], self._object.most)]
        try:
            return first + [content for found in await asyncio.gather(*tasks) for content in found]
        finally:
            for task in tasks:
                task.cancel()

    async def _get(self, request: Sequence[Range]) -> list[bytes]:
        found = await self._object.get(request)
        for content, (offset, count) in zip(found, request, strict=True):
            if len(content) != count:
                raise ConnectionError(f"{count} bytes at {offset} asked, {len(content)} came")
        return found

    def _run(self, work: Callable[[], Awaitable[T]], more: float = 0.0) -> T:
        """Run the work on fsspec's event loop, within the time there is and `more` seconds.

        Raises:
            TileReadError: it failed, or the URL was given up a moment ago.
        """
        from fsspec import asyn

        GIVEN_UP.check(self.path)
        loop = self._system.loop if self._system.async_impl else asyn.get_loop()
        try:
            return cast(T, asyn.sync(loop, work, timeout=self._patience.total + more))
        except NoRangesError as error:
            raise TileReadError(
                f"{self.path}: the server gives no ranges of bytes any more; try again later"
            ) from error
        except Exception as error:  # aiohttp, botocore and gcsfs raise errors of their own
            raise GIVEN_UP.failed(self.path, error, self._patience.rest) from None

    def file(self) -> BinaryIO:
        """Open the whole as a seekable binary file that fetches blocks and keeps them."""
        if self._whole:
            return self._whole.file()
        return cast(BinaryIO, RemoteFile(self._recent, self.read, self.size))

    def close(self) -> None:
        """Refuse later reads; connections stay open for other slides of the same server."""
        self._closed = True
        if self._whole:
            self._whole.close()


def _packed(spans: Sequence[Range], most: int) -> list[list[Range]]:
    """Group spans into requests, with at most so many spans and bytes in one."""
    requests: list[list[Range]] = []
    for span in spans:
        last = requests[-1] if requests else None
        if last is None or len(last) >= most or sum(count for _, count in last) + span[1] > LARGEST:
            requests.append([span])
        else:
            last.append(span)
    return requests
