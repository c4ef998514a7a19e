"""What a batch tells while it runs: which stage it is in, and each slide that is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from wsi_attention.inference.results.state import State

Watch = Callable[[str, int, int], None]
"""Called with a slide's name, how many are done, and how many there are."""


@dataclass(frozen=True)
class News:
    """A slide that is done.

    Attributes:
        state: its outcome.
        kept: whether an earlier run had finished it.
        done: how many slides are done, this one included.
        failed: how many of these failed.
        total: how many slides there are.
    """

    state: State
    kept: bool
    done: int
    failed: int
    total: int

    @property
    def label(self) -> str:
        """The label and its probability, such as "tumor 0.93"; what kept it from having one otherwise."""
        row = self.state.row
        label = row.get("label", "")
        if not label:
            return self.state.status.replace("_", " ")
        probability = row.get(f"prob_{label}", "")
        return f"{label} {float(probability):.2f}" if probability else label


class Listener(Protocol):
    """Is told how a batch goes on; it prints, or moves a bar."""

    def stage(self, text: str) -> None:
        """Take the name of what begins now, such as "looking for slides"."""
        ...

    def slide(self, news: News) -> None:
        """Take a slide that is done."""
        ...


class Silent:
    """A listener that drops everything."""

    def stage(self, text: str) -> None:
        """Do nothing."""

    def slide(self, news: News) -> None:
        """Do nothing."""


class Watching(Silent):
    """A listener that passes each slide on to a function.

    Args:
        watch: the function.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def slide(self, news: News) -> None:
        """Pass a slide on."""
        self._watch(news.state.name, news.done, news.total)
