"""Text that others chose, made harmless for a screen, a picture or the cells of a table; and times in words."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = [
    "HARMFUL",
    "from_cell",
    "in_cell",
    "lasting",
    "visible",
]

HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # controls: line ends, escape sequences
    "\u2028\u2029"  # line and paragraph separators
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that turn the direction of what follows
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # byte-order mark, interlinear marks, tags: never seen
    "\ud800-\udfff]"  # bytes of a file name that are no text
)
"""Characters that end lines, steer terminals, reorder what is shown, or cannot be shown at all."""

_FORMULA = re.compile("'*[=+\\-@\t\r\n＝＋－＠]")
"""How a cell begins that a spreadsheet takes for a formula, behind any number of our own marks."""


def visible(text: str) -> str:
    """Return the text with harmful characters as escapes, such as \\x1b or \\u202e; on one line therefore."""
    return text if text.isprintable() else HARMFUL.sub(_escape, text)


def in_cell(text: str) -> str:
    """Return the text for a cell of a CSV: with an apostrophe in front where a spreadsheet would take it for a formula.

    `from_cell` takes it away again.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    """Return what `in_cell` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def counted(number: int, what: str) -> str:
    """Return a number of things in words: "1 slide", "2 slides"."""
    return f"{number} {what}{'s' * (number != 1)}"


def first_names(names: Sequence[str]) -> str:
    """Return the first three names, and whether there are more."""
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def lasting(seconds: float) -> str:
    """Return a time in at most two units: "3.1 s", "45 s", "12 min", "3 h 05 min", "2 d 4 h"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(minutes / 60)
    return f"{hours // 24} d {hours % 24} h"
