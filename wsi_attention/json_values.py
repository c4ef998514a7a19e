"""JSON that others wrote, read so that whatever is wrong with it is one kind of error."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object from a file; whoever reads a value in it checks what it is."""


def parse(text: str | bytes) -> Any:
    """Return the value that a JSON text stands for.

    Raises:
        ValueError: it is no JSON, or nested more deeply than can be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
