"""The files that one slide consists of: when they were written, and a hash of all their bytes."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from wsi_attention.errors import WsiAttentionError
from wsi_attention.slide.readers.sources import bytes_of
from wsi_attention.slide.urls import is_store_url, is_url

SMALL = 2**25
"""Bytes up to which a slide is hashed whole without being asked to: a disk reads them in a fraction of a second."""
PIECE = 2**23
"""Bytes that are hashed at once."""
HEAD = 2**16
"""Bytes at the start of a DICOM file in which its series is looked for."""

_SERIES = re.compile(rb"\x20\x00\x0e\x00.{4}([0-9.]{1,64})", re.DOTALL)


def written(path: str) -> tuple[str, str]:
    """Return the sizes of a slide's files with the times they were written, and the same with the times of any change.

    As long as the second text is the same, nobody has touched the files. A copy, a move or new permissions change the
    second text alone. Behind a URL both are the size and what the server calls the version.

    Args:
        path: a file, folder or URL.

    Returns:
        Two short texts; empty where nothing can be told: the slide is not there, or its server names no version.
    """
    try:
        if is_url(path):
            return _written_there(path)
        files = _files(path)
    except (OSError, WsiAttentionError):
        return "", ""
    times = [f"{name} {state.st_size} {state.st_mtime_ns}" for name, _, state in files]
    changes = [f"{time} {state.st_ctime_ns}" for time, (_, _, state) in zip(times, files, strict=True)]
    return _short(times), _short(changes)


def content(path: str, whole: bool = False) -> str | None:
    """Return the sha256 (hex) of all bytes of a slide's files, wherever they lie.

    Args:
        path: a file, folder or URL.
        whole: hash files of any size, and behind URLs too; else None where they are beyond `SMALL`, or remote.

    Returns:
        None also where a file cannot be read, and for an OME-Zarr store behind a URL.
    """
    try:
        if is_url(path):
            return _content_there(path) if whole and not is_store_url(path) else None
        files = _files(path)
        if not files or (not whole and sum(state.st_size for _, _, state in files) > SMALL):
            return None
        digest = hashlib.sha256()
        for name, file, state in files:
            if len(files) > 1:
                digest.update(f"{name} {state.st_size}\n".encode("utf-8", "surrogateescape"))
            with file.open("rb") as stream:
                while piece := stream.read(PIECE):
                    digest.update(piece)
    except (OSError, WsiAttentionError):
        return None
    return digest.hexdigest()


def _written_there(url: str) -> tuple[str, str]:
    if is_store_url(url):
        return "", ""
    source = bytes_of(url)
    source.close()
    version = getattr(source, "version", "")
    found = f"{source.size} {version}" if version else ""
    return found, found


def _content_there(url: str) -> str:
    source, digest = bytes_of(url), hashlib.sha256()
    try:
        for offset in range(0, source.size, PIECE):
            digest.update(source.read([(offset, min(PIECE, source.size - offset))])[0])
    finally:
        source.close()
    return digest.hexdigest()


def _files(path: str) -> list[tuple[str, Path, os.stat_result]]:
    """Return (name, path, state) of each regular file of a slide; names are relative, empty for a single file."""
    place = Path(path)
    files = sorted(_belonging(place))
    base = place if place.is_dir() else place.parent
    found = []
    for file in files:
        state = file.stat()
        if stat.S_ISREG(state.st_mode):
            found.append((file.relative_to(base).as_posix() if len(files) > 1 else "", file, state))
    return found


def _belonging(place: Path) -> set[Path]:
    suffix = place.suffix.lower()
    if place.is_dir():
        return set(_below(place, set()))
    if suffix == ".mrxs":
        return {place, *_below(place.with_suffix(""), set())}
    if suffix in (".vms", ".vmu"):
        text = place.read_bytes()[:HEAD].decode("latin-1")
        return {place, *(file for file in place.parent.iterdir() if file.is_file() and file.name in text)}
    series = _series_of(place)
    if series:
        return {place, *(file for file in place.parent.iterdir() if series & _series_of(file))}
    return {place}


def _below(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Return all files in a folder, each folder once, whatever links lead to it."""
    state = folder.stat()
    if (state.st_dev, state.st_ino) in seen:
        return
    seen.add((state.st_dev, state.st_ino))
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _below(Path(entry.path), seen)
            else:
                yield Path(entry.path)


def _series_of(file: Path) -> frozenset[bytes]:
    """Return the UIDs that may be the series of a DICOM file: all at its start that are marked as one."""
    if file.suffix.lower() in (".svs", ".tif", ".tiff", ".ndpi", ".zip") or not file.is_file():
        return frozenset()
    state = file.stat()
    return _series_in(file, state.st_size, state.st_mtime_ns)


@lru_cache(4096)
def _series_in(file: Path, size: int, time: int) -> frozenset[bytes]:
    with file.open("rb") as stream:
        head = stream.read(HEAD)
    return frozenset(_SERIES.findall(head)) if head[128:132] == b"DICM" else frozenset()


def _short(lines: list[str]) -> str:
    """Return the line itself if there is one, else how many there are and their hash."""
    if len(lines) < 2:
        return lines[0].strip() if lines else ""
    text = "\n".join(lines).encode("utf-8", "surrogateescape")
    return f"{len(lines)} files {hashlib.sha256(text).hexdigest()[:32]}"
