"""How a URL is asked: the file system behind its scheme, how long to wait, what to try again, and what went wrong."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from wsi_attention.errors import MissingExtraError, SlideOpenError, TileReadError, WsiAttentionError
from wsi_attention.extras import how_to_install
from wsi_attention.slide.failures import one_line
from wsi_attention.slide.urls import masked

if TYPE_CHECKING:
    from aiohttp import ClientTimeout
    from fsspec.asyn import AsyncFileSystem  # one whose `async_impl` is False has no `loop`

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for, in seconds.

    Attributes:
        connect: until it takes the connection.
        silent: without a byte from it.
        total: for one call, all attempts and the pauses between them.
        attempts: how often a request that fails for a passing reason is made.
        pause: before the second attempt; doubles with each further one.
        rest: how long a URL that was given up is not asked again.
    """

    connect: float = 10.0
    silent: float = 20.0
    total: float = 90.0
    attempts: int = 4
    pause: float = 0.5
    rest: float = 30.0


AZURE = ("abfs", "abfss", "az")
"""Schemes of Azure."""
EXTRAS = dict.fromkeys(("http", "https", "s3", "s3a", "gs", "gcs"), "remote") | dict.fromkeys(AZURE, "azure")
"""The extra that brings a scheme's packages; for other schemes, fsspec's own message names the package."""
PATIENCE = Patience()
"""In use for every URL that is opened from now on."""

_LASTING = (
    *(FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError),
    *(WsiAttentionError, ValueError, TypeError, AttributeError),
)
_LASTING_NAMES = {"NoCredentialsError", "PartialCredentialsError", "ClientConnectorCertificateError", "InvalidURL"}
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}


def file_system(url: str, patience: Patience, *, asynchronous: bool = False) -> tuple[AsyncFileSystem, str]:
    """Return the fsspec file system of a URL's scheme, and the URL's path on it; open no connection.

    Options of a scheme, such as an endpoint or `anon`, come from fsspec's own configuration (FSSPEC_S3_ANON=true …).

    Raises:
        MissingExtraError: the scheme's package is not installed.
        SlideOpenError: fsspec knows no such scheme, or its options are wrong.
    """
    from fsspec import core

    scheme = scheme_of(url)
    options: dict[str, object] = {"asynchronous": True} if asynchronous else {}
    try:
        if scheme in ("http", "https"):
            options[scheme] = {"client_kwargs": {"timeout": _http_timeout(patience)}}
        system, path = core.url_to_fs(url, **options)
    except ImportError as error:
        raise MissingExtraError(
            f"{masked(url)}: {scheme}:// needs a package that is not installed ({one_line(error)}){_remedy(scheme)}"
        ) from error
    except Exception as error:  # each package checks its options with errors of its own
        raise SlideOpenError(
            f"{masked(url)}: cannot be asked for ({masked(one_line(error))}); check the URL"
        ) from error
    return system, str(path)


def scheme_of(url: str) -> str:
    """Return the scheme that a URL is asked by: "s3" for s3://…, "https" for zip::https://…."""
    return url.partition("://")[0].rpartition("::")[2]


def _remedy(scheme: str) -> str:
    """Return how to install what a scheme needs; nothing for a scheme that none of our extras brings."""
    return f"; {how_to_install(EXTRAS[scheme])}" if scheme in EXTRAS else ""


def _http_timeout(patience: Patience) -> ClientTimeout:
    from aiohttp import ClientTimeout

    return ClientTimeout(total=None, sock_connect=patience.connect, sock_read=patience.silent)


class Attempts:
    """Decides whether a request that failed is made again, and after which pause."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._end = time.monotonic() + patience.total
        self._made = 0

    @property
    def left(self) -> float:
        """Seconds left for all attempts together, a little above 0 where they are used up."""
        return max(self._end - time.monotonic(), 0.001)

    def pause_after(self, error: Exception) -> float:
        """Return how many seconds to wait before the next attempt.

        Raises:
            Exception: the error itself, where its reason lasts, or attempts or time are used up.
        """
        self._made += 1
        pause = self._patience.pause * 2.0 ** (self._made - 1) * random.uniform(0.75, 1.25)
        if self._made >= self._patience.attempts or not passing(error) or time.monotonic() + pause >= self._end:
            raise error
        return pause


async def persistently(attempt: Callable[[], Awaitable[T]], patience: Patience) -> T:
    """Return the result of a request, which is made again after a pause where it fails for a reason that may pass.

    Raises:
        TimeoutError: the time for all attempts was used up.
        Exception: that of the last attempt.
    """
    attempts = Attempts(patience)
    while True:
        try:
            return await asyncio.wait_for(attempt(), attempts.left)
        except Exception as error:
            pause = attempts.pause_after(error)
        await asyncio.sleep(pause)


def repeatedly(attempt: Callable[[], T], patience: Patience) -> T:
    """Return the result of a request as `persistently` does, for one that blocks its thread.

    Raises:
        Exception: that of the last attempt.
    """
    attempts = Attempts(patience)
    while True:
        try:
            return attempt()
        except Exception as error:
            pause = attempts.pause_after(error)
        time.sleep(pause)


def passing(error: BaseException) -> bool:
    """Tell whether the same request may succeed later: the server is busy or away, or a connection broke."""
    if isinstance(error, _LASTING):
        return False
    if type(error).__name__ in _LASTING_NAMES:
        return False
    status = _status(error)
    return status is None or status in _PASSING_STATUS


def reason(error: BaseException) -> str:
    """Say what went wrong with a request, in a few words without secrets, and what to do about it."""
    status = _status(error)
    if isinstance(error, IsADirectoryError):
        return "a folder on the server, not a file; check the URL"
    if isinstance(error, FileNotFoundError) or status == 404:
        return "there is no such file on the server; check the URL"
    if isinstance(error, PermissionError) or status in (401, 403):
        return "the server refuses access; check the credentials, or whether the URL has expired"
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return "no credentials were found; set them up as the storage's own tools do, or FSSPEC_S3_ANON=true"
    if isinstance(error, TimeoutError):
        return "the server did not answer in time; try again later"
    told = " ".join(str(getattr(error, "message", "")).split()) or "no reason given"
    answer = f"the server answers {status} ({told})"
    return f"{answer if status is not None else masked(one_line(error)).rstrip('.')}; try again later"


def _status(error: BaseException) -> int | None:
    """Return the status of an HTTP answer that became an error; Azure's errors name it otherwise than aiohttp's."""
    found = getattr(error, "status", None) or getattr(error, "status_code", None)
    return found if isinstance(found, int) else None


class _GivenUp:
    """URLs that were given up a moment ago, and why."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, str]] = {}
        self._lock = Lock()

    def add(self, url: str, line: str, seconds: float) -> None:
        """Give up a URL, as it is shown, for so many seconds; the line says why."""
        with self._lock:
            self._until[url] = (time.monotonic() + seconds, line)

    def failed(self, url: str, error: Exception, seconds: float) -> TileReadError:
        """Return the error of a request that failed for good; where the reason may pass, give the URL up for now."""
        line = f"{url}: {reason(error)}"
        if passing(error):
            self.add(url, line, seconds)
        return TileReadError(line)

    def check(self, url: str) -> None:
        """Raise TileReadError if the URL was given up.

        Raises:
            TileReadError: it was, a moment ago.
        """
        with self._lock:
            until, line = self._until.get(url, (0.0, ""))
            if time.monotonic() >= until:
                self._until.pop(url, None)
                return
        raise TileReadError(line)


GIVEN_UP = _GivenUp()
