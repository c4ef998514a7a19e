"""One file of features: a Zarr group in a zip file, written whole under another name and then renamed.

Layout: attributes `format`, `kind`, `slide`, `dtype`; the arrays `tiles` (n, 5) int64: x, y, w, h, turn, `downsamples`
(n,) float64 and `features` (n, d). The zip file has a checksum for each of them, so a damaged file is noticed.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_attention.files import PREFIX

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer

FORMAT = 1
SUFFIX = ".zarr.zip"
ARRAYS = ("tiles", "downsamples", "features")
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The date of every entry: a file's bytes do not depend on when it was written."""

Place = tuple[int, int, int, int, int, float]
"""Which pixels were encoded: x and y in level-0 pixels, w and h in pixels, turn, downsample."""


@dataclass(frozen=True, eq=False)
class Shard:
    """Features of some tiles of one slide by one encoder.

    Attributes:
        kind: `Kind.key`.
        slide: the slide's identity.
        places: of each tile.
        features: (n, d), floating.
        dtype: the features' type in torch before they were stored, such as "bfloat16".
    """

    kind: str
    slide: str
    places: Sequence[Place]
    features: NDArray[Any]
    dtype: str = "float32"


class DamagedError(ValueError):
    """A file that holds no features, or those of something else."""


def write_shard(path: Path, shard: Shard) -> None:
    """Write a file whole: it has its name only when all of it is there.

    Raises:
        OSError: it cannot be written; nothing of it is left behind.
    """
    content = packed(shard)
    part = path.with_name(f"{PREFIX}{path.name}")
    try:
        write_bytes(part, content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file's bytes; the only place where this room writes to the disk."""
    path.write_bytes(content)


def packed(shard: Shard) -> bytes:
    """Return the bytes of a file."""
    import zarr
    from zarr.storage import MemoryStore

    written: dict[str, Buffer] = {}
    facts: Any = {"format": FORMAT, "kind": shard.kind, "slide": shard.slide, "dtype": shard.dtype}
    root = zarr.open_group(MemoryStore(written), mode="w", zarr_format=3, attributes=facts)
    tiles = np.array([place[:5] for place in shard.places], np.int64).reshape(-1, 5)
    downsamples = np.array([place[5] for place in shard.places], np.float64)
    for name, values in zip(ARRAYS, (tiles, downsamples, shard.features), strict=True):
        array = root.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=values.shape, compressors=None, fill_value=0
        )
        array[:] = values
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as file:
        for name in sorted(written):
            file.writestr(zipfile.ZipInfo(name, EARLIEST), written[name].to_bytes())
    return content.getvalue()


def read_shard(path: Path, kind: str, slide: str) -> Shard:
    """Return what a file holds.

    Args:
        path: of the file.
        kind: that it must be of.
        slide: that it must be of.

    Raises:
        FileNotFoundError: another process has removed it.
        DamagedError: it is cut short, damaged, of another version, or of something else.
    """
    try:
        size = path.stat().st_size
        found = _read(path, size)
    except FileNotFoundError:
        raise
    except DamagedError:
        raise
    except Exception as error:  # zarr, zipfile and the codecs raise whatever a damaged file leads them to
        raise DamagedError(f"{type(error).__name__}: {error}") from error
    if (found.kind, found.slide) != (kind, slide):
        raise DamagedError("it is of another slide or encoder")
    return found


def _read(path: Path, size: int) -> Shard:
    import zarr
    from zarr.storage import ZipStore

    with zipfile.ZipFile(path) as checked:
        if any(entry.file_size > size or entry.compress_type for entry in checked.infolist()):
            raise DamagedError("it says that it is larger than it is")
        if (bad := checked.testzip()) is not None:
            raise DamagedError(f"the checksum of {bad} is wrong")
    with ZipStore(path, mode="r") as store:
        root = zarr.open_group(store, mode="r", zarr_format=3)
        facts = dict(root.attrs)
        if facts.get("format") != FORMAT:
            raise DamagedError(f"it has format {facts.get('format')!r}, this version reads {FORMAT}")
        arrays: list[Any] = [root[name] for name in ARRAYS]
        if sum(array.dtype.itemsize * int(np.prod(array.shape, dtype=np.float64)) for array in arrays) > size:
            raise DamagedError("its arrays are larger than the file")
        tiles, downsamples, features = (np.asarray(array[:]) for array in arrays)
    _check(tiles, downsamples, features)
    rows = zip(tiles.tolist(), downsamples.tolist(), strict=True)
    places = [(x, y, w, h, turn, downsample) for (x, y, w, h, turn), downsample in rows]
    return Shard(str(facts["kind"]), str(facts["slide"]), places, features, str(facts["dtype"]))


def _check(tiles: NDArray[Any], downsamples: NDArray[Any], features: NDArray[Any]) -> None:
    n = len(tiles)
    shapes = tiles.shape == (n, 5) and downsamples.shape == (n,) and features.ndim == 2 and len(features) == n
    types = tiles.dtype == np.int64 and downsamples.dtype == np.float64 and features.dtype.kind == "f"
    if not shapes or not types or not bool(np.isfinite(features).all()):
        raise DamagedError("its arrays are no features of tiles")


def new_name() -> str:
    """Return a name that no other process, here or elsewhere, gives to a file."""
    return f"{os.getpid()}-{os.urandom(8).hex()}{SUFFIX}"
