"""Checks that a slide's files are plain files: reading a device or a pipe would wait for ever."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from wsi_attention.errors import SlideOpenError

COMPANIONS = (".mrxs", ".vms", ".vmu")
"""Suffixes of index files that have the slide's other files beside them or in a folder of their name."""
INSTANCES = (".dcm", ".dicom")


def check_plain_files(path: str) -> None:
    """Raise SlideOpenError unless a path is a file, a link to one, or a folder; opens nothing.

    The files that OpenSlide would open on its own, those of a DICOM series and of a MIRAX slide, must not lead out of
    their folder.

    Raises:
        SlideOpenError: the path, or one of the slide's files, is a device, pipe or socket; or a link leads out.
    """
    try:
        mode = Path(path).stat().st_mode
    except OSError:  # whoever opens it says so
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise SlideOpenError(f"{path}: {_kind(mode)}, not a slide; give a plain file or a folder")
    for folder in _folders(Path(path), stat.S_ISDIR(mode)):
        _check_folder(path, folder)


def _folders(path: Path, is_folder: bool) -> Iterator[Path]:
    suffix = path.suffix.lower()
    if is_folder and any(entry.name.lower().endswith(INSTANCES) for entry in _entries(path)):
        yield path
    elif not is_folder and suffix in INSTANCES:
        yield path.parent
    elif not is_folder and suffix in COMPANIONS and path.with_suffix("").is_dir():
        yield path.with_suffix("")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _check_folder(path: str, folder: Path) -> None:
    root = os.path.realpath(folder)
    for entry in _entries(folder):
        try:
            mode = entry.stat().st_mode
        except OSError:  # a link to nothing
            continue
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise SlideOpenError(f"{path}: {entry.name} beside it is {_kind(mode)}; take it away")
        if entry.is_symlink() and not os.path.realpath(entry.path).startswith(f"{root}{os.sep}"):
            if Path(path).absolute() == Path(entry.path).absolute() or not _matters(entry.name, folder, path):
                continue
            raise SlideOpenError(f"{path}: {entry.name} is a link that leads out of its folder; copy the slide's files")


def _matters(name: str, folder: Path, path: str) -> bool:
    """Tell whether a file is one of the slide's: all in a MIRAX slide's own folder, instances beside a DICOM file."""
    return folder != Path(path).parent or name.lower().endswith(INSTANCES)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "no plain file")
