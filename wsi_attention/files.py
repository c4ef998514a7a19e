"""Files written whole: under a temporary name, then renamed; folders likewise."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from filecmp import cmp
from pathlib import Path

from wsi_attention.errors import InputError, ResultsError

KEPT = "what is finished is kept, and the same command goes on from there"
"""The end of every message about a run that cannot go on now."""

PREFIX = ".tmp-"
"""How temporary files begin; a killed run leaves some behind, the next run removes them."""

STOPS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "writing is not permitted",
    errno.EPERM: "writing is not permitted",
}
"""Errors of the results folder rather than of one slide: no other slide could be written either."""


def given_path(given: object, name: str, wanted: str) -> str | Path:
    """Return a path or URL that a caller gave.

    Args:
        given: what was given.
        name: the argument's.
        wanted: what it is the path of, such as "a CSV".

    Raises:
        InputError: it is no path.
    """
    if isinstance(given, os.PathLike):
        return Path(given)
    if isinstance(given, str):
        return given
    table = "; write it to a file first: .to_csv(path, index=False)" if hasattr(given, "to_csv") else ""
    raise InputError(f"{name} must be the path of {wanted}, got {type(given).__name__}{table}")


def given_paths(given: object, name: str, wanted: str) -> tuple[str | Path, ...]:
    """Return paths or URLs that a caller gave: one of them, or any number in a list, tuple, column of a table ….

    Raises:
        InputError: it is neither.
    """
    one = isinstance(given, str | os.PathLike | Mapping) or hasattr(given, "columns")
    paths = given if isinstance(given, Iterable) and not one else [given]
    return tuple(given_path(path, name, wanted) for path in paths)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; 0 where there is none."""
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return path.stat().st_size if path.is_file() else 0


def temporary(path: Path) -> Path:
    """Return the temporary name of a file, in the same folder and with the same suffix."""
    return path.with_name(PREFIX + path.name)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, on disk before it has its name; create its folder where needed.

    Raises:
        ResultsError: disk full, or writing is not permitted.
    """
    with results_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_pieces(temporary(path), (text,))
        temporary(path).replace(path)


def write_if_new(path: Path, pieces: Iterable[str]) -> None:
    """Do as `write_text` with pieces of a text, never whole in memory; leave a file that says the same as it is.

    Raises:
        ResultsError: disk full, or writing is not permitted.
    """
    with results_errors(path):
        unfinished = temporary(path)
        _write_pieces(unfinished, pieces)
        if path.is_file() and cmp(unfinished, path, shallow=False):
            unfinished.unlink()
        else:
            unfinished.replace(path)


def _write_pieces(path: Path, pieces: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def publish(path: Path) -> None:
    """Rename a finished temporary file or folder to its final name, in place of what had that name before.

    Raises:
        ResultsError: disk full, or writing is not permitted.
    """
    with results_errors(path):
        finished = temporary(path)
        if finished.is_file():
            _sync(finished)
        if path.is_dir():
            shutil.rmtree(path)
        try:
            finished.replace(path)
        except FileNotFoundError as error:
            raise ResultsError(
                f"{path}: was removed while it was being written; leave the results folder alone until the run ends,"
                " and give the same command again"
            ) from error


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove temporary files anywhere below a folder; finished Zarr stores are not searched."""
    for where, folders, files in os.walk(folder):
        for name in [name for name in (*folders, *files) if name.startswith(PREFIX)]:
            remove(Path(where) / name)
        folders[:] = [name for name in folders if not name.startswith(PREFIX) and not name.endswith(".zarr")]


@contextmanager
def results_errors(path: Path) -> Iterator[None]:
    """Turn errors such as a full disk or a removed folder into a `ResultsError` that says what to do."""
    try:
        yield
    except ResultsError:
        raise
    except Exception as error:
        gone = isinstance(error, FileNotFoundError) and str(error.filename or "").startswith(str(path.parent))
        reason = "its folder was removed while the run lasted" if gone else _stop_reason(error)
        if reason is None:
            raise
        raise ResultsError(f"{path}: cannot be written: {reason}; {KEPT}") from error


def _stop_reason(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in STOPS:
            return STOPS[error.errno]
        error = error.__cause__ or error.__context__
    return None


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder: a new folder appears whole; in an existing one each file is replaced whole, in order.

    The temporary folder beside it always has the same name, so the next call clears what a kill left behind.

    Args:
        folder: where to; missing parents are made.
        files: name -> content; in an existing folder the last one is exchanged last.

    Raises:
        OSError: it cannot be written; nothing temporary is left behind.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = folder.parent / f".{folder.name}.tmp"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    try:
        for name, content in files.items():
            _write(made / name, content)
        if folder.is_dir():
            for name in files:
                (made / name).replace(folder / name)
        else:
            made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
