"""Sizes no slide has: files that claim them are refused before anything is allocated."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_attention.errors import SlideOpenError

MAX_SIDE = 2**21
MAX_AREA = 10**12
MAX_SEGMENT_PIXELS = 2**26
"""The largest strip, tile or chunk that is decoded at once (192 MiB of RGB)."""


def check_dimensions(path: str, levels: Sequence[tuple[int, int]]) -> None:
    """Refuse absurd or missing level dimensions.

    Args:
        path: the file's name, for the message.
        levels: (w, h) of each level, finest first.

    Raises:
        SlideOpenError: no levels, an empty one, one larger than any slide, or one larger than the level before.
    """
    if not levels:
        raise SlideOpenError(f"{path}: no image levels found; the file is damaged or holds only a label")
    for w, h in levels:
        if w < 1 or h < 1:
            raise SlideOpenError(f"{path}: a level of {w}×{h} pixels; the file is damaged")
        if max(w, h) > MAX_SIDE or w * h > MAX_AREA:
            raise SlideOpenError(
                f"{path}: claims {w}×{h} pixels, more than any slide has"
                f" (at most {MAX_SIDE} a side, {MAX_AREA:.0e} in all); the file is damaged"
            )
    for coarse, fine in zip(levels[1:], levels[:-1], strict=True):
        if coarse[0] > fine[0] or coarse[1] > fine[1]:
            raise SlideOpenError(
                f"{path}: a level of {coarse[0]}×{coarse[1]} pixels follows a smaller one of {fine[0]}×{fine[1]};"
                " the levels are not a pyramid"
            )


def downsamples(levels: Sequence[tuple[int, int]]) -> tuple[float, ...]:
    """Return each level's downsample from the dimensions, as OpenSlide takes it: the mean of both sides' ratios."""
    w, h = levels[0]
    return tuple((w / level_w + h / level_h) / 2 for level_w, level_h in levels)
