"""Numbers in the cells of the labels CSV."""

from __future__ import annotations

import math

from wsi_attention.errors import InputError


def number_in(cell: str, column: str, where: str) -> float:
    """Return the finite number in a cell; a comma may stand for the point.

    Args:
        cell: its text.
        column: its column, for messages.
        where: file and line, for messages.

    Raises:
        InputError: it holds none.
    """
    try:
        number = float(cell.replace(",", ".")) if cell.count(",") <= 1 else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        told = f"is {cell!r}, which is no number" if cell else "is empty"
        raise InputError(f"{where}: {column} {told}; correct it, or leave the slide out")
    return number
