"""A folder that keeps bytes of remote slides between runs: plain files, each written whole or not at all.

FOLDER/<key>/about.json          the URL without secrets, version and size that the key stands for
FOLDER/<key>/<offset>-<count>    bytes that were fetched at once
FOLDER/<key>/whole               the whole file, where the server gives no ranges
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from wsi_attention.errors import InputError
from wsi_attention.once import once
from wsi_attention.slide.readers.bytes import Range

FOLDER_VARIABLE = "WSI_ATTENTION_CACHE"
"""Names the environment variable of the folder; it reaches worker processes by itself."""
LIMIT_VARIABLE = "WSI_ATTENTION_CACHE_GB"
LIMIT_GB = 50.0
BY_DEFAULT_GB = 5.0
"""Limit of a cache that nobody asked for."""
MARK = "about.json"
WHOLE = "whole"
LOOKED_AT = 8
"""Ranges that are looked through for one that holds another; they overlap seldom."""
LOOK_AGAIN = 60.0
"""Seconds between two looks at how large the folder has become."""


@dataclass(frozen=True)
class RemoteCache:
    """Bytes of many remote files.

    Attributes:
        folder: where they lie.
        limit: bytes in all, about; the files used longest ago leave first.
        whole: whether whole files may be kept, where a server gives no ranges.
    """

    folder: Path
    limit: float
    whole: bool = True

    @classmethod
    def wanted(cls) -> RemoteCache | None:
        """Return the cache that the environment names, else the one `by_default`, else None.

        Raises:
            InputError: its limit is no positive number.
        """
        folder = os.environ.get(FOLDER_VARIABLE)
        if not folder:
            return _BY_DEFAULT[-1] if _BY_DEFAULT else None
        text = os.environ.get(LIMIT_VARIABLE, str(LIMIT_GB))
        try:
            limit = float(text)
        except ValueError:
            limit = 0.0
        if not limit > 0:
            raise InputError(f"{LIMIT_VARIABLE}={text!r} is not a positive number of GB")
        return cls(Path(folder), limit * 1e9)

    def slot(self, shown: str, version: str, size: int) -> Slot:
        """Return the place of one file in one version; remove others that were used longest ago if there is too much.

        Args:
            shown: the URL without its secrets.
            version: as the server says.
            size: in bytes; -1 if the server does not say.

        Raises:
            InputError: the folder cannot be written to.
        """
        about = json.dumps({"url": shown, "version": version, "size": size}, sort_keys=True)
        slot = Slot(self.folder / hashlib.sha256(about.encode()).hexdigest()[:32])
        try:
            slot.folder.mkdir(parents=True, exist_ok=True)
            (slot.folder / MARK).write_text(about + "\n", encoding="utf-8")  # also marks it as used just now
        except OSError as error:
            raise InputError(f"{self.folder}: the cache cannot be written to ({error.strerror})") from error
        self.make_room(slot)
        return slot

    def make_room(self, kept: Slot) -> None:
        """Remove what was used longest ago until the rest fits; look at most once a minute."""
        now = time.monotonic()
        if now - _LOOKED.get(self.folder, -LOOK_AGAIN) < LOOK_AGAIN:
            return
        _LOOKED[self.folder] = now
        slots = sorted(_slots(self.folder), key=lambda found: found[1], reverse=True)
        total = 0
        for folder, _, size in slots:
            total += size
            if total > self.limit and folder != kept.folder:
                shutil.rmtree(folder, ignore_errors=True)


_BY_DEFAULT: list[RemoteCache] = []


@contextmanager
def by_default(folder: Path) -> Iterator[None]:
    """Keep ranges in a folder while the block lasts, in all threads of this process, where no other cache is named.

    Nothing is written as long as no URL is opened.
    """
    cache = RemoteCache(folder, BY_DEFAULT_GB * 1e9, whole=False)
    _BY_DEFAULT.append(cache)
    try:
        yield
    finally:
        _BY_DEFAULT.remove(cache)


_RANGE = re.compile(r"(\d+)-(\d+)")
_LOOKED: dict[Path, float] = {}


def _name(wanted: Range) -> str:
    return f"{wanted[0]}-{wanted[1]}"


def _slots(folder: Path) -> Iterator[tuple[Path, float, int]]:
    """Yield (folder, time of last use, bytes) of each file in the cache; skip what others left there."""
    for place in folder.iterdir():
        with suppress(OSError):
            used = (place / MARK).stat().st_mtime
            yield place, used, sum(file.stat().st_size for file in place.iterdir())


@dataclass(frozen=True)
class Slot:
    """Bytes of one file in one version. What cannot be kept is fetched again; nothing here is ever run.

    What other processes keep meanwhile is seen by the next slot of the same file.
    """

    folder: Path

    def get(self, wanted: Range) -> bytes | None:
        """Return bytes that were kept, by themselves or with others around them; None where they were not."""
        offset, count = wanted
        for start, length in self._around(wanted):
            try:
                with (self.folder / _name((start, length))).open("rb", buffering=0) as file:
                    file.seek(offset - start)
                    content = file.read(count)
            except OSError:
                continue
            if len(content) == count:
                return content
        return None

    def put(self, wanted: Range, content: bytes) -> None:
        """Keep bytes; a full disk is no error."""
        with suppress(OSError):
            ranges = self._ranges  # before the file is there, which it would list
            self.write(_name(wanted), lambda path: path.write_bytes(content))
            if wanted not in ranges:
                insort(ranges, wanted)

    @once
    def _ranges(self) -> list[Range]:
        """Those that are kept, sorted."""
        found = [_RANGE.fullmatch(file.name) for file in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted((int(match[1]), int(match[2])) for match in found if match)

    def _around(self, wanted: Range) -> Iterator[Range]:
        """Yield those of the ranges kept that hold a range, among the few that begin just before it."""
        ranges = self._ranges
        last = bisect_right(ranges, (wanted[0], sys.maxsize))
        for start, length in reversed(ranges[max(last - LOOKED_AT, 0) : last]):
            if sum(wanted) <= start + length:
                yield start, length

    @property
    def whole(self) -> Path | None:
        """The whole file, None where it is not there."""
        path = self.folder / WHOLE
        return path if path.is_file() else None

    def write(self, name: str, fill: Callable[[Path], object]) -> Path:
        """Open a file that appears when it has been filled; what a killed process leaves is never taken for it.

        Raises:
            OSError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".{name}.{os.getpid()}.{time.monotonic_ns():x}.part"
        try:
            fill(part)
            return part.replace(self.folder / name)
        finally:
            part.unlink(missing_ok=True)
