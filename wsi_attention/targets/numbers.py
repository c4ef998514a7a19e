"""Numbers in the cells of the labels CSV."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from wsi_attention.errors import InputError

_AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
"""A comma before three digits may part thousands; not after 0, or after more than three digits."""


_DECIMAL = re.compile(r"[+-]?\d*,\d+")


def with_points(cells: Sequence[str]) -> list[str]:
    """Return the cells of a column, with points for commas where one of them can be nothing but a decimal comma."""
    commas = [cell.strip() for cell in cells if _DECIMAL.fullmatch(cell.strip())]
    decimal = not all(map(_AMBIGUOUS.fullmatch, commas))
    return [cell.replace(",", ".") if decimal and _AMBIGUOUS.fullmatch(cell.strip()) else cell for cell in cells]


def number_in(cell: str, column: str, where: str) -> float:
    """Return the finite number in a cell; a comma may stand for the point, unless it may as well part thousands.

    Args:
        cell: its text.
        column: its column, for messages.
        where: file and line, for messages.

    Raises:
        InputError: it holds none, or one such as 1,234, which some read as 1.234 and others as 1234.
    """
    if _AMBIGUOUS.fullmatch(cell.strip()):
        raise InputError(
            f"{where}: {column} is {cell!r}, which may be {cell.strip().replace(',', '.')} or"
            f" {cell.strip().replace(',', '')}; write it without a comma"
        )
    try:
        number = float(cell.replace(",", ".")) if cell.count(",") <= 1 else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        told = f"is {cell!r}, which is no number" if cell else "is empty"
        raise InputError(f"{where}: {column} {told}; correct it, or leave the slide out")
    return number
