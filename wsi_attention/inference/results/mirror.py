"""Results behind a URL: a folder of this machine while the run lasts, every slide sent on whole, its state last."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TypeVar

from wsi_attention.errors import ResultsError, SlideOpenError
from wsi_attention.export.report import ReportExporter
from wsi_attention.files import KEPT, remove, results_errors
from wsi_attention.inference.results.state import FOLDER, State
from wsi_attention.slide.failures import one_line
from wsi_attention.slide.readers.remote import system as remote_system
from wsi_attention.slide.urls import masked

T = TypeVar("T")

WORK_VARIABLE = "WSI_ATTENTION_WORK"
"""The folder in which runs with results behind a URL work; the system's folder for temporary files if unset."""
PROBE = ".write-test"
AT_ONCE = 16
"""Files on their way at one time."""


class Mirror:
    """What lies behind a URL, listed once and followed from then on.

    A state is there only while all of its exports are: it goes before they change and comes after they have.

    Attributes:
        url: as it may be shown, without secrets.
    """

    def __init__(self, url: str) -> None:
        """Open no connection yet.

        Raises:
            MissingExtraError: the scheme's package is not installed.
            ResultsError: fsspec knows no such scheme.
        """
        self.url = masked(url.rstrip("/"))
        try:
            self._system, root = remote_system.file_system(url, remote_system.PATIENCE)
        except SlideOpenError as error:
            raise ResultsError(str(error)) from error
        self._root = root.rstrip("/")
        self._there: defaultdict[str, set[str]] = defaultdict(set)  # file or folder -> the files it consists of

    def open(self, folder: Path) -> None:
        """Make sure that results can be written, list them, and fetch their states into a folder.

        Raises:
            ResultsError: they cannot be read, written or removed.
        """
        (folder / PROBE).write_text("", encoding="utf-8")
        self._put(folder, [PROBE])
        self._note(self._again("listed", self._list, ""))
        self._remove([PROBE])
        self.fetch(folder, [name for name in self._there[FOLDER] if name.endswith(".json")])

    def holds(self, export: str) -> bool:
        """Return whether an export exists behind the URL."""
        return bool(self._there[export])

    def fetch(self, folder: Path, names: Iterable[str]) -> None:
        """Fetch files that exist behind the URL and not in the folder.

        Raises:
            ResultsError: one cannot be read.
        """

        def get(name: str) -> None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            self._system.get_file(self._path(name), str(folder / name))

        missing = [name for name in names if name in self._there["."] and not (folder / name).exists()]
        self._each("read", get, missing)

    def add(self, folder: Path, state: State, before: State | None) -> None:
        """Send a slide's exports, then its state, in place of its earlier ones; only small files stay on this machine.

        Raises:
            ResultsError: they cannot be written.
        """
        own = f"{FOLDER}/{state.name}.json"
        self._remove([own])
        new = [name for export in state.exports for name in _below(folder, export)]
        replaced = {*state.exports, *(before.exports if before else ())}
        self._remove(self._among(replaced) - set(new))
        self._put(folder, new)
        self._put(folder, [own])
        for export in set(state.exports) - {ReportExporter.suffix.format(slide=state.name)}:
            remove(folder / export)

    def send(self, folder: Path, names: Sequence[str]) -> None:
        """Send files in place of those that have their names, in order; the last, a state, says that all are there.

        Raises:
            ResultsError: they cannot be written.
        """
        for name in names:
            if (folder / name).is_file():
                self._put(folder, [name])
        for name in names[:-1]:
            remove(folder / name)

    def remove_all(self, states: Mapping[str, State], *others: str) -> None:
        """Remove all slides: first their states, then their exports and other files.

        Raises:
            ResultsError: they cannot be removed.
        """
        self._remove(f"{FOLDER}/{name}.json" for name in states)
        self._remove(self._among({export for state in states.values() for export in state.exports} | {*others}))

    def finish(self, folder: Path) -> None:
        """Send the files about all slides: table, page and record of the run.

        Raises:
            ResultsError: they cannot be written.
        """
        self._put(folder, [path.name for path in folder.iterdir() if path.is_file() and path.name[0] != "."])

    def _among(self, exports: set[str]) -> set[str]:
        """Return the files behind the URL that make up exports, be these files or folders."""
        return {name for export in exports for name in self._there[export]}

    def _note(self, names: Iterable[str]) -> None:
        for name in names:
            for parent in _with_parents(name):
                self._there[parent].add(name)

    def _list(self, _: str) -> set[str]:
        self._system.invalidate_cache()
        names = {str(path)[len(self._root) + 1 :] for path in self._system.find(self._root)}
        return {name for name in names if name and ".." not in PurePosixPath(name).parts}

    def _put(self, folder: Path, names: Iterable[str]) -> None:
        def put(name: str) -> None:
            if "file" in self._system.protocol:  # the one file system that makes no folders by itself
                self._system.makedirs(self._path(name).rpartition("/")[0], exist_ok=True)
            self._system.put_file(str(folder / name), self._path(name))

        names = list(names)
        self._each("written", put, names)
        self._note(names)

    def _remove(self, names: Iterable[str]) -> None:
        def delete(name: str) -> None:
            with suppress(FileNotFoundError):  # a first attempt may have done it, and its answer been lost
                self._system.rm_file(self._path(name))

        there = self._there["."].intersection(names)
        self._each("removed", delete, there)
        for name in there:
            for parent in _with_parents(name):
                self._there[parent].discard(name)

    def _each(self, done: str, action: Callable[[str], None], names: Iterable[str]) -> None:
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            for _ in pool.map(lambda name: self._again(done, action, name), names):
                pass
        finally:
            pool.shutdown(cancel_futures=True)

    def _again(self, done: str, action: Callable[[str], T], name: str) -> T:
        """Return an action's result; it is tried again where it fails for a reason that may pass."""
        try:
            return remote_system.repeatedly(partial(action, name), remote_system.PATIENCE)
        except Exception as error:  # each file system has errors of its own
            where = f"{self.url}/{name}".rstrip("/")
            raise ResultsError(f"{where}: cannot be {done} ({masked(one_line(error))}); {KEPT}") from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


@contextmanager
def workplace(results: str | Path) -> Iterator[tuple[Path, Mirror | None]]:
    """Yield the folder that a run works in, and the mirror it sends its results to, if they go to a URL.

    Raises:
        MissingExtraError: a URL's package is not installed.
        ResultsError: a URL that cannot take results.
    """
    scheme = scheme_of(results)
    if scheme is None:
        yield Path(results), None
        return
    _check(results, scheme)
    mirror = Mirror(str(results))
    parent = os.environ.get(WORK_VARIABLE) or None
    with results_errors(Path(parent or ".")):
        if parent:
            Path(parent).mkdir(parents=True, exist_ok=True)
        work = TemporaryDirectory(prefix="wsi-attention-results-", dir=parent, ignore_cleanup_errors=True)
    with work as folder:
        yield Path(folder), mirror


def scheme_of(results: str | Path) -> str | None:
    """Return the scheme of a URL, also of one that lost a slash as a `Path`; None for a folder."""
    found = re.match(r"([a-z][a-z0-9+.-]+):/", str(results))
    return found[1] if found else None


def check_folder(results: str | Path) -> None:
    """Raise ResultsError unless results can be read in place.

    Raises:
        ResultsError: they lie behind a URL.
    """
    scheme = scheme_of(results)
    if scheme:
        raise ResultsError(
            f"{masked(str(results))}: results behind {scheme}:// are not looked at in place; download them, and give"
            " the folder"
        )


def _check(results: str | Path, scheme: str) -> None:
    if scheme in ("http", "https"):
        raise ResultsError(
            f"{masked(str(results))}: {scheme}:// can be read, not written; give a folder or an object store, such as"
            " s3:// or gs://"
        )
    if not str(results).startswith(f"{scheme}://"):
        raise ResultsError(f"{results}: a URL has two slashes, and a Path keeps one; give results as a str")


def _below(folder: Path, export: str) -> list[str]:
    """Return the files of an export, relative to the results folder."""
    path = folder / export
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return [file.relative_to(folder).as_posix() for file in files]


def _with_parents(name: str) -> list[str]:
    """Return the name, the folders it lies in, and "."."""
    return [name, *map(str, PurePosixPath(name).parents)]
