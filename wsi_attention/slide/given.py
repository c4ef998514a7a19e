"""A slide as a caller may give it: open already, or what `open_slide` takes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from wsi_attention.slide.slide import Slide, open_slide

SlideLike = Slide | str | os.PathLike[str] | NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
"""An open slide; or the path, URL or pixels of one."""


@contextmanager
def as_slide(given: SlideLike) -> Iterator[Slide]:
    """Yield an open slide as it is; or open what was given, and close it at the end.

    Raises:
        InputError: nothing that a slide can be opened from.
        SlideError: as `open_slide`.
    """
    if isinstance(given, Slide):
        yield given
        return
    with open_slide(given) as slide:
        yield slide
