"""QuPath's reading rules for the classification of an object."""

from __future__ import annotations

from typing import Any


def classification_problem(found: Any) -> str | None:
    """What is wrong with a classification that is not null; None where QuPath reads it."""
    if isinstance(found, str):
        return _name_problem(found)
    if not isinstance(found, dict):
        return f"must be an object with name and color, found {short(found)}; QuPath drops the file"
    if not found or "colorRGB" in found or "parentClass" in found:
        return None
    if not ({"name", "names"} & found.keys()) or "color" not in found:
        return f"needs both name and color, found {short(sorted(found))}; QuPath drops the file"
    color = found["color"]
    if not (isinstance(color, list) and len(color) in (3, 4) and all(map(is_byte, color))):
        return f"color must be [red, green, blue] of 0 to 255, found {short(color)}; QuPath may drop the file"
    names = found["names"] if found.get("name") is None else [found["name"]]
    problems = map(_name_problem, names if isinstance(names, list) and names else [names])
    return next((problem for problem in problems if problem), None)


def classification_remark(found: Any) -> str | None:
    """An old form that QuPath still reads rightly; None where it is none."""
    if isinstance(found, str):
        return "classification as plain text, without a colour"
    if isinstance(found, dict) and ("colorRGB" in found or "parentClass" in found):
        return "classification with a packed colour (QuPath 0.2, 0.3)"
    return None


def _name_problem(name: Any) -> str | None:
    if not isinstance(name, str):
        return f"name must be text, found {short(name)}; QuPath drops the file"
    if not all(part.strip() for part in name.split(":")) or "\n" in name or "\r" in name:
        return f"name {short(name)} is blank, has a blank part or a line break; QuPath drops the file"
    return None


def is_byte(value: Any) -> bool:
    """Whether a value is a whole number from 0 to 255."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def short(value: Any) -> str:
    """A value as messages show it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
