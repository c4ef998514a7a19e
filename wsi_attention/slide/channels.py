"""In which order a file's three channels are red, green and blue, by their names and colours."""

from __future__ import annotations

import re
from collections.abc import Sequence

from wsi_attention.errors import UnsupportedSlideError

Order = tuple[int, int, int]
"""The stored channel that is red, the one that is green, the one that is blue."""

STORED: Order = (0, 1, 2)
_NEUTRAL = re.compile(
    r"(channel|chan|ch|c|band|sample|s|rgb|brightfield|bright field|transmitted|tl|image|h&e|he)?[\s_:#.-]*\d*"
)
_RGB = re.compile(r"(?:channel|ch|c)?[\s_:#.-]*(red|green|blue|r|g|b)(?:[\s_:#.-]*(?:channel|\d+))?")
_COLOURS = {"FF0000": "r", "00FF00": "g", "0000FF": "b"}


def rgb_order(names: Sequence[str], colours: Sequence[str], path: str) -> Order | None:
    """Find the order of three channels; None where neither names nor colours say anything.

    Args:
        names: of the channels, as stored; empty where the file gives none.
        colours: of the channels, RRGGBB; empty where the file gives none.
        path: the file's, for messages.

    Raises:
        UnsupportedSlideError: they are called or coloured something else, or names and colours contradict each other.
    """
    if len(names) != 3 and len(colours) != 3:
        return None
    by_name, by_colour = _by_name(names, path), _by_colour(colours, path)
    if by_name and by_colour and by_name != by_colour:
        raise UnsupportedSlideError(
            f"{path}: its channels are called {', '.join(names)} but coloured {', '.join(colours)};"
            " correct one of the two in its metadata"
        )
    return by_name or by_colour


def reordered(order: Order) -> str:
    """Say in a note that channels were put in order."""
    stored = ", ".join(name for _, name in sorted(zip(order, ("red", "green", "blue"), strict=True)))
    return f"its channels are stored as {stored} and were put in the order red, green, blue"


def _by_name(names: Sequence[str], path: str) -> Order | None:
    plain = [name.strip().lower() for name in names]
    if len(plain) != 3 or len(set(plain)) == 1 or all(_NEUTRAL.fullmatch(name) for name in plain):
        return None
    found = [match[1][0] if (match := _RGB.fullmatch(name)) else "" for name in plain]
    if sorted(found) != ["b", "g", "r"]:
        raise UnsupportedSlideError(
            f"{path}: its channels are called {', '.join(map(repr, names))}, not red, green and blue;"
            " only RGB brightfield slides can be classified"
        )
    return _order(found)


def _by_colour(colours: Sequence[str], path: str) -> Order | None:
    plain = [colour.strip().lstrip("#").upper()[:6] for colour in colours]
    if len(plain) != 3 or len(set(plain)) == 1:
        return None
    found = [_COLOURS.get(colour, "") for colour in plain]
    if sorted(found) != ["b", "g", "r"]:
        raise UnsupportedSlideError(
            f"{path}: its channels are coloured {', '.join(plain)}, not red, green and blue;"
            " only RGB brightfield slides can be classified"
        )
    return _order(found)


def _order(letters: Sequence[str]) -> Order:
    return letters.index("r"), letters.index("g"), letters.index("b")
