"""How many tiles a network takes at once: found by trying, once for each network and device, then kept."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from torch import nn

SCARCE = (
    "allocate memory",
    "out of memory",
    "ALLOC_FAILED",
    "could not create a primitive",
    "could not create a memory",
)
"""Texts by which libraries that have no error of their own say so: torch on the CPU, CUDA, cuBLAS, cuDNN, oneDNN."""
GAIN = 0.1
"""Share of a tile's time that twice as many tiles must save; less is not worth the memory, nor surely measured."""


class BatchSizes:
    """The sizes found in this process, as long as their networks live; safe with several threads.

    A size once found stays, so that all slides of a process are encoded alike: the size of a batch may change the last
    bits of a feature, and another process may find another size.
    """

    def __init__(self) -> None:
        self._found: WeakKeyDictionary[nn.Module, dict[Hashable, int]] = WeakKeyDictionary()
        self._lock = Lock()

    def of(self, network: nn.Module, kind: Hashable, search: Callable[[], int]) -> int:
        """Return the size for a network and a kind of tiles on a device; search for it the first time."""
        with self._lock:
            known = self._found.setdefault(network, {})
            if kind not in known:
                known[kind] = search()
            return known[kind]

    def lower(self, network: nn.Module, kind: Hashable, size: int) -> None:
        """Take down that no more than so many tiles fit."""
        with self._lock:
            known = self._found.setdefault(network, {})
            known[kind] = min(size, known.get(kind, size))


def largest_useful(seconds: Callable[[int], float], first: int, most: int, give_back: Callable[[], None]) -> int:
    """Return how many tiles to take at once: doubled while that saves `GAIN` of a tile's time and memory suffices.

    Args:
        seconds: how long so many tiles take together; raises what a library raises when memory runs out.
        first: to begin with; returned where even these do not fit, which is whoever encodes them to settle.
        most: the most tiles.
        give_back: returns memory after it has run out.
    """
    size, each = first, _each(seconds, first, give_back)
    while each is not None and 2 * size <= most:
        doubled = _each(seconds, 2 * size, give_back)
        if doubled is None or doubled > (1 - GAIN) * each:
            break
        size, each = 2 * size, doubled
    return size


def out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Return whether an error says that memory has run out."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in SCARCE)


def _each(seconds: Callable[[int], float], size: int, give_back: Callable[[], None]) -> float | None:
    """Return seconds a tile, None where so many do not fit."""
    try:
        return seconds(size) / size
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
    give_back()  # outside `except`, where the traceback still holds the memory
    return None
