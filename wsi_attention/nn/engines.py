"""Where an encoder computes: in torch, or in an engine that somebody has set for the time of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

Engine = Callable[[nn.Module, Tensor], Tensor]
"""Takes an encoder and its input (m, c, h, w), returns the features (m, d)."""

_ENGINE: ContextVar[Engine | None] = ContextVar("engine", default=None)


@contextmanager
def computing_with(engine: Engine | None) -> Iterator[None]:
    """Let an engine compute what encoders say of tiles, in this thread and for the time of a block; None is torch."""
    token = _ENGINE.set(engine)
    try:
        yield
    finally:
        _ENGINE.reset(token)


def features_of(encoder: nn.Module, tiles: Tensor) -> Tensor:
    """Return the features (m, d) of tiles (m, c, h, w), by the engine that is set."""
    engine = _ENGINE.get()
    features: Tensor = encoder(tiles) if engine is None else engine(encoder, tiles)
    return features
