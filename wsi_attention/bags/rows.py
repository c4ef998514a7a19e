"""Features in a file: rows that are read when they are needed, and a fingerprint that needs a few of them."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import InputError


class Rows(Protocol):
    """(n, d) numbers in a file or in memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Their type."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """Return some of them, read now."""
        ...


def whole(rows: Rows, where: object) -> NDArray[np.floating]:
    """Return all rows, read now.

    Raises:
        InputError: some are no finite numbers.
    """
    values = np.asarray(rows[()])
    if not np.isfinite(values).all():
        raise InputError(f"{where} holds values that are not finite; extract the features again")
    return values


def unread(rows: Rows) -> NDArray[np.floating]:
    """Return zeros of the same shape, which take no memory."""
    return np.broadcast_to(np.zeros((), np.float32), rows.shape)


def fingerprint_of(locations: NDArray[np.int64], rows: Rows) -> str:
    """Return the sha256 of all places and of the first and the last feature, as samples of its bytes tell a slide."""
    digest = hashlib.sha256(np.ascontiguousarray(locations).tobytes())
    digest.update(f"{rows.dtype} {tuple(rows.shape)}".encode())
    for row in (0, len(locations) - 1) if len(locations) else ():
        digest.update(np.ascontiguousarray(rows[row]).tobytes())
    return digest.hexdigest()
