"""Which file of a folder holds a slide's features: TRIDENT's job folder, CLAM's results folder, STAMP's features."""

from __future__ import annotations

from pathlib import Path

from wsi_attention.bags.dialects import stem_of
from wsi_attention.errors import InputError

SUFFIX = ".h5"
COORDINATES = "patches"
"""The folder in which TRIDENT, CLAM and WSInfer keep coordinates without features."""


def feature_files(folder: str | Path) -> dict[Path, str]:
    """Return the feature files below a folder, and the name of each one's slide, without suffix.

    Files of coordinates alone, hidden and unfinished ones are left out, as far as names tell.

    Raises:
        InputError: no such folder, or no such file in it.
    """
    place = Path(folder)
    if not place.is_dir():
        raise InputError(f"{folder}: no such folder of features")
    files = [path for path in sorted(place.rglob(f"*{SUFFIX}")) if not _left_out(path.relative_to(place))]
    if not files:
        raise InputError(f"{folder}: no {SUFFIX} file with features; it takes those of TRIDENT, CLAM and STAMP")
    return {path: stem_of(path) for path in files}


def _left_out(relative: Path) -> bool:
    hidden = any(part.startswith(".") for part in relative.parts)
    return hidden or relative.parent.name == COORDINATES or relative.stem.endswith(f"_{COORDINATES}")
