"""When a model gives no numbers any more: one error, wherever it shows first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from wsi_attention.errors import WsiAttentionError


class DivergedError(WsiAttentionError, ArithmeticError):
    """The loss, the gradient or the output is no number any more."""


@contextmanager
def diverging(where: str) -> Iterator[None]:
    """Turns the `ValueError` of a model that meets NaN or infinity into a `DivergedError` that says where.

    Raises:
        DivergedError: so it is.
    """
    try:
        yield
    except WsiAttentionError:
        raise
    except ValueError as error:
        raise DivergedError(f"the model cannot go on at {where}: {error}") from error
