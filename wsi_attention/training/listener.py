"""The interface through which training reports its progress; the loop itself prints nothing."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """Receives the news of a run as it goes on."""

    def line(self, text: str) -> None:
        """Take a line that is worth showing."""
        ...

    def progress(self, stage: str, done: int, total: int) -> None:
        """Take how far a stage ("epoch 3", "validation 3") has come, in slides."""
        ...


class Silent:
    """A listener that drops everything."""

    def line(self, text: str) -> None:
        """Do nothing."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Do nothing."""
