"""Writing a folder so that a reader, or a kill, never meets half of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes the files: a new folder appears whole; in an existing one each file is exchanged whole, in order.

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
