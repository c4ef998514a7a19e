"""The folder of a feature store: what it is, how large it may become, and what is said when it cannot be used.

FOLDER/feature_store.json                              what the folder is, and its format
FOLDER/<kind>/about.json                               which encoder, for people
FOLDER/<kind>/<slide>/<process>-<random>.zarr.zip      features of tiles, see `shards`

Any number of processes use one folder at once, and any of them may be killed at any moment: each writes files of its
own, whole, and never changes one.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from wsi_attention.errors import InputError
from wsi_attention.feature_store.kind import Kind, slide_folder
from wsi_attention.feature_store.shards import FORMAT, Shard, write_bytes, write_shard
from wsi_attention.feature_store.shelf import Shelf
from wsi_attention.files import PREFIX, STOPS
from wsi_attention.json_values import parse

MARK, ABOUT = "feature_store.json", "about.json"
MEMORY = 1 << 29
"""Bytes of features that a process holds in memory, about; those of the slides used longest ago leave first."""
LOOK_AGAIN = 60.0
"""Seconds between two looks at how large the folder has become, unless much is written meanwhile."""
MUCH = 0.05
"""Share of the limit that may be written before the next look."""
STALE = 3600.0
"""Age in seconds of an unfinished file that a killed process left behind."""

Told = Callable[[str], None]


def open_store(folder: str | Path, gigabytes: float, tell: Told) -> FeatureStore | None:
    """Return the store in a folder, which need not exist yet.

    Args:
        folder: where features are kept.
        gigabytes: limit of its size, about.
        tell: is told once of each kind of trouble; the run goes on without what could not be kept.

    Returns:
        None where nothing is to be kept: the limit is 0, or the store is of another version or damaged, which is told.

    Raises:
        InputError: the folder holds something else, or the limit is no size.
    """
    folder = Path(folder)
    if not (math.isfinite(gigabytes) and gigabytes >= 0):
        raise InputError(f"the limit of a feature store is a number of GB, 0 for none; got {gigabytes}")
    if gigabytes == 0:
        return None
    why = _unusable(folder)
    if why:
        tell(f"features are neither kept nor looked up: {why}; remove that folder, or name another (--feature-store)")
        return None
    return FeatureStore(folder, gigabytes * 1e9, tell)


def _unusable(folder: Path) -> str:
    """Return why an existing store cannot be used; empty where it can, or where there is none yet.

    Raises:
        InputError: the folder holds something else.
    """
    mark = folder / MARK
    try:
        text = mark.read_text(encoding="utf-8")
    except FileNotFoundError:
        _check_empty(folder)
        return ""
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            raise InputError(f"{folder} is no folder; a feature store is one") from error
        return f"{mark} cannot be read ({error.strerror})"
    except ValueError:
        return f"{mark} is damaged"
    try:
        found = parse(text)["format"]
    except (ValueError, KeyError, TypeError):
        return f"{mark} is damaged"
    return "" if found == FORMAT else f"{mark} has format {found!r}, this version has {FORMAT}"


def _check_empty(folder: Path) -> None:
    try:
        others = sorted(path.name for path in folder.iterdir() if not path.name.startswith(PREFIX))
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{folder} cannot be used as a feature store ({error.strerror})") from error
    if others:
        shown = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        raise InputError(
            f"{folder} holds other files ({shown}); a feature store needs a folder of its own, empty or new"
        )


class FeatureStore:
    """Features of tiles in a folder. Thread-safe.

    Args:
        folder: takes them.
        limit: bytes in all, about; slides that were used longest ago leave first.
        tell: is told once of each kind of trouble.

    Attributes:
        folder: as given.
        limit: as given.
        stopped: whether nothing is kept any more, because the folder cannot be written to.
    """

    def __init__(self, folder: Path, limit: float, tell: Told) -> None:
        self.folder, self.limit = folder, limit
        self.stopped = False
        self._tell, self._told = tell, set[str]()
        self._shelves: OrderedDict[tuple[str, str], Shelf] = OrderedDict()
        self._lock = Lock()
        self._looked, self._since = -math.inf, 0

    @contextmanager
    def shelf(self, kind: Kind, slide: str) -> Iterator[Shelf]:
        """Yield the features of a slide, those that other processes have added since included; new ones are written.

        Args:
            kind: of features.
            slide: what tells the slide, as it is now, from all others.
        """
        shelf = self._shelf(kind, slide)
        with suppress(OSError):
            os.utime(shelf.folder)  # marks it as used just now
        shelf.refresh()
        try:
            yield shelf
        finally:
            shelf.flush()
            self._make_room(shelf.folder)

    def _shelf(self, kind: Kind, slide: str) -> Shelf:
        with self._lock:
            key = kind.key, slide
            if key not in self._shelves:
                folder = self.folder / kind.key[:24] / slide_folder(slide)
                self._shelves[key] = Shelf(folder, kind, slide, self._writer(kind), self._damaged)
            self._shelves.move_to_end(key)
            while len(self._shelves) > 1 and sum(one.bytes for one in self._shelves.values()) > MEMORY:
                self._shelves.popitem(last=False)
            return self._shelves[key]

    def _writer(self, kind: Kind) -> Callable[[Path, Shard], bool]:
        def write(path: Path, shard: Shard) -> bool:
            if self.stopped:
                return False
            try:
                self._write(path, shard, kind)
            except OSError as error:
                self._stop(error)
                return False
            self._since += shard.features.nbytes
            return True

        return write

    def _write(self, path: Path, shard: Shard, kind: Kind) -> None:
        for attempt in range(2):  # once more where another process has removed the folder meanwhile to make room
            self._mark(kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                write_shard(path, shard)
            except FileNotFoundError:
                if attempt:
                    raise
            else:
                return

    def _mark(self, kind: Kind) -> None:
        """Say in files what the folder and the kind are, where that is not said yet; the folder's comes first."""
        about = {"kind": kind.key, **kind.about}
        for path, content in ((self.folder / MARK, {"format": FORMAT}), (self._kind_folder(kind) / ABOUT, about)):
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_name(f"{PREFIX}{os.getpid()}-{os.urandom(4).hex()}-{path.name}")
                try:
                    write_bytes(part, (json.dumps(content, indent=1, default=str) + "\n").encode())
                    part.replace(path)
                finally:
                    part.unlink(missing_ok=True)

    def _kind_folder(self, kind: Kind) -> Path:
        return self.folder / kind.key[:24]

    def _stop(self, error: OSError) -> None:
        self.stopped = True
        reason = STOPS.get(error.errno or 0, error.strerror or str(error))
        self._once("stopped", f"features are no longer kept: {self.folder}: {reason}; the run goes on without")

    def _damaged(self, path: Path, why: str) -> None:
        self._once("damaged", f"{path}: not used, its tiles are read again: {why} (said once for all such files)")

    def _once(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._tell(text)

    def _make_room(self, kept: Path) -> None:
        """Remove the slides used longest ago until the rest fits, and what killed processes have left behind."""
        now = time.monotonic()
        with self._lock:
            if now - self._looked < LOOK_AGAIN and self._since < MUCH * self.limit:
                return
            self._looked, self._since = now, 0
        with suppress(OSError):
            total = 0.0
            for folder, _, size in sorted(self._slides(), key=lambda found: found[1], reverse=True):
                total += size
                if total > self.limit and folder != kept:
                    total -= size
                    shutil.rmtree(folder, ignore_errors=True)

    def _slides(self) -> Iterator[tuple[Path, float, int]]:
        """Yield (folder, time of last use, bytes) of each slide."""
        for folder in self.folder.glob("*/*/"):
            with suppress(OSError):
                used, size = folder.stat().st_mtime, 0
                for file in folder.iterdir():
                    state = file.stat()
                    size += state.st_size
                    if file.name.startswith(PREFIX) and time.time() - state.st_mtime > STALE:
                        file.unlink(missing_ok=True)
                yield folder, used, size
