"""A property computed once for each object."""

from __future__ import annotations

import ast
import threading
from pathlib import Path

import wsi_attention
from wsi_attention.once import once


class Counting:
    def __init__(self, waits_for: threading.Event | None = None) -> None:
        self.computed = 0
        self._waits_for = waits_for

    @once
    def value(self) -> int:
        """What it is worth."""
        if self._waits_for is not None:
            self._waits_for.wait(60)
        self.computed += 1
        return 42


def test_the_value_is_computed_once_and_can_be_forgotten() -> None:
    one = Counting()
    assert (one.value, one.value, one.computed) == (42, 42, 1)
    del one.value  # type: ignore[attr-defined]
    assert (one.value, one.computed) == (42, 2)
    assert Counting.value.__doc__ == "What it is worth."


def test_an_object_that_hangs_stops_no_other() -> None:
    release = threading.Event()
    thread = threading.Thread(target=lambda: Counting(release).value, daemon=True)
    thread.start()
    found: list[int] = []
    other = threading.Thread(target=lambda: found.append(Counting().value), daemon=True)
    other.start()
    other.join(10)
    hung = thread.is_alive()
    release.set()
    thread.join(10)
    assert (found, hung) == ([42], True)


def test_nothing_here_shares_a_lock_between_objects() -> None:
    for path in Path(wsi_attention.__file__).parent.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        names |= {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert "cached_property" not in names, path
