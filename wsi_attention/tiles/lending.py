"""Memory for pixels that is used again once nobody holds them: fresh memory costs a third of decoding into it."""

from __future__ import annotations

import math
from threading import local
from weakref import ref

import numpy as np
from numpy.typing import NDArray

MOST_KEPT = 2**26
"""Bytes that a thread keeps between two requests; 445 tiles of 224 px."""


class _Loan:
    """Stands between memory and all arrays that show it: it lives as long as one of them does."""

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self.memory = memory
        self.__array_interface__: dict[str, object] = memory.__array_interface__


class Memory(local):
    """The memory of a thread's last request; it goes when the thread ends."""

    kept: NDArray[np.uint8] | None = None
    loan: ref[_Loan] | None = None

    def lend(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return an array of that shape whose values are anything.

        It is the memory that was lent before, where that is large enough and no array or tensor shows it any more.
        """
        size = math.prod(shape)
        free = self.kept is not None and (self.loan is None or self.loan() is None)
        if not free or self.kept is None or self.kept.size < size:
            self.kept = np.empty(max(size, 1), np.uint8)
        loan = _Loan(self.kept)
        if self.kept.size <= MOST_KEPT:
            self.loan = ref(loan)
        else:
            self.kept = self.loan = None
        return np.asarray(loan)[:size].reshape(shape)
