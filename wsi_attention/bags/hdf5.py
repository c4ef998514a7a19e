"""HDF5 opened with care: shapes, kinds and links are checked before anything is read; nothing is unpickled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_attention.bags.rows import Rows
from wsi_attention.errors import InputError, MissingExtraError, ResultsError
from wsi_attention.extras import how_to_install

if TYPE_CHECKING:
    import h5py

MAX_TILES = 5_000_000
"""Tiles of one slide; a slide of 100,000² cut into tiles of 64 pixels has half as many."""
MAX_BYTES = 8 * 2**30
"""Of one dataset, and of one of its chunks, when it has been read."""
LARGEST = 2**53
"""Coordinates beyond this are no pixels, and floats no longer hold them."""


def library() -> ModuleType:
    """Return h5py.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError(
            f"feature files are HDF5, which needs the package h5py; {how_to_install('features')}"
        ) from error
    found: ModuleType = h5py
    return found


@contextmanager
def opened(path: str | Path) -> Iterator[h5py.File]:
    """Yield the file, open for reading.

    Raises:
        InputError: missing, no HDF5, or damaged where it is read.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    library()
    try:
        with library().File(path, "r", locking=False) as file:
            yield file
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable HDF5 file ({reason}); copy or make it again") from error


@contextmanager
def created(path: str | Path) -> Iterator[h5py.File]:
    """Yield a new file, there whole or not at all; an older one of the name is replaced.

    Raises:
        ResultsError: it cannot be written.
    """
    path = Path(path)
    unfinished = path.with_name(f".tmp-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with library().File(unfinished, "w", track_order=True) as file:
            yield file
        unfinished.replace(path)
    except OSError as error:
        raise ResultsError(f"{path}: cannot be written ({error})") from error
    finally:
        unfinished.unlink(missing_ok=True)


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset that lies in this file itself and fits into memory.

    Raises:
        InputError: missing, a group, a link, stored elsewhere, or too large.
    """
    link = file.get(name, getlink=True)
    if link is None:
        raise InputError(f"{file.filename}: no dataset {name}; found: {', '.join(file) or 'nothing'}")
    if not isinstance(link, library().HardLink):
        raise InputError(f"{file.filename}: {name} is a link to another place, which is not followed")
    found = file[name]
    if not isinstance(found, library().Dataset):
        raise InputError(f"{file.filename}: {name} is a group, a dataset is needed")
    if found.is_virtual or found.external:
        raise InputError(f"{file.filename}: {name} keeps its values in other files, which are not read")
    sizes = [math.prod(found.shape or ()), math.prod(found.chunks or ())]
    if max(sizes) * found.dtype.itemsize > MAX_BYTES:
        gib = max(sizes) * found.dtype.itemsize / 2**30
        raise InputError(f"{file.filename}: {name} has shape {found.shape}, {gib:.0f} GiB; at most 8 GiB are read")
    return found


def is_own(file: h5py.File, name: str) -> bool:
    """Return whether a dataset or group of that name lies in this file itself."""
    return isinstance(file.get(name, getlink=True), library().HardLink)


def coordinates(file: h5py.File, name: str = "coords") -> NDArray[Any]:
    """Return (n, 2) numbers as they are stored, finite and of sensible size.

    Raises:
        InputError: another shape or kind, or values that are no pixels.
    """
    found = dataset(file, name)
    if found.ndim != 2 or found.shape[1] != 2 or found.shape[0] > MAX_TILES:
        raise InputError(f"{file.filename}: {name} has shape {found.shape}, (n, 2) with n up to {MAX_TILES} is needed")
    if found.dtype.kind not in "iuf":
        raise InputError(f"{file.filename}: {name} holds {found.dtype}, numbers are needed")
    values = np.asarray(found[()])
    if not np.isfinite(values).all() or (np.abs(values.astype(np.float64)) > LARGEST).any():
        raise InputError(f"{file.filename}: {name} holds values that are no coordinates")
    return values


def whole_coordinates(file: h5py.File, name: str = "coords") -> NDArray[np.int64]:
    """Return (n, 2) int64 of a dataset in pixels; floats are taken where they are whole.

    Raises:
        InputError: as `coordinates`, or fractions of pixels.
    """
    values = coordinates(file, name)
    whole: NDArray[np.int64] = np.rint(values).astype(np.int64)
    if values.dtype.kind == "f" and not np.array_equal(whole, values):
        raise InputError(f"{file.filename}: {name} holds fractions ({values.dtype}); whole level-0 pixels are needed")
    return whole


def features(file: h5py.File, name: str, tiles: int) -> Rows | None:
    """Return (n, d) floating point numbers that are not yet read, one row a tile; (0, 0) of no tile.

    Returns:
        None where the file has no such dataset.

    Raises:
        InputError: another shape or kind, or another number of rows.
    """
    if not name or file.get(name, getlink=True) is None:
        return None
    found = dataset(file, name)
    if tiles == 0:
        return np.empty((0, 0), np.float32)
    if found.dtype.kind != "f" or found.ndim != 2 or found.shape[0] != tiles:
        wanted = f"({tiles}, d) of floating point, one row a tile"
        raise InputError(f"{file.filename}: {name} has shape {found.shape} of {found.dtype}, {wanted} is needed")
    rows: Rows = found
    return rows


def weights(file: h5py.File, tiles: int) -> NDArray[np.float64] | None:
    """Return (n,), our own addition, dataset `weights`; None where it is missing or of another kind."""
    link = file.get("weights", getlink=True)
    if not isinstance(link, library().HardLink):
        return None
    found = file["weights"]
    fits = isinstance(found, library().Dataset) and found.shape == (tiles,) and found.dtype.kind == "f"
    return np.asarray(dataset(file, "weights")[()], np.float64) if fits else None


def number(attributes: Mapping[str, Any], name: str, where: str) -> float:
    """Return a positive, finite attribute; of a pair of equal numbers, one of them.

    Raises:
        InputError: missing, or no such number.
    """
    if name not in attributes:
        raise InputError(f"{where}: no attribute {name}; found: {', '.join(sorted(attributes)) or 'none'}")
    values = np.asarray(attributes[name]).ravel()
    sound = values.dtype.kind in "iuf" and values.size in {1, 2} and np.isfinite(values).all() and (values > 0).all()
    if not sound or abs(float(values[0]) - float(values[-1])) > 0.01 * float(values[0]):
        raise InputError(f"{where}: attribute {name} is {attributes[name]!r:.60}, one positive number is needed")
    return float(values[0])


def whole_pair(attributes: Mapping[str, Any], names: tuple[str, ...], where: str) -> tuple[int, int]:
    """Return (w, h) from two attributes, or from one that holds two numbers.

    Raises:
        InputError: missing, or no positive whole numbers.
    """
    parts = [np.asarray(attributes.get(name, ())).ravel() for name in names]
    values = np.concatenate(parts) if parts else np.empty(0)
    if values.dtype.kind not in "iuf" or values.size != 2 or not ((values >= 1) & (values < LARGEST)).all():
        raise InputError(f"{where}: {' and '.join(names)} give no width and height; found {values.tolist()}")
    return int(values[0]), int(values[1])


def text(attributes: Mapping[str, Any], name: str) -> str:
    """Return a text attribute, empty where it is missing or something else."""
    value = attributes.get(name, "")
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return str(value) if isinstance(value, str) else ""
