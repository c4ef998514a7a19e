"""More tiles while training begins, when attention does not know where to look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import nn


class FallingDraws(nn.Module):
    """A model whose number of draws falls in the course of training; to be mixed in before its class.

    Attributes:
        draws: tiles drawn of a slide now.
        parts: tiles drawn of a slide in each part of training, which is cut into equal ones; the last are those of
            prediction.
    """

    last_is_best = False
    draws: int

    def let_fall(self, earlier: Sequence[int]) -> Self:
        """Take the draws of earlier parts of training, and return the model; the last part has its present draws."""
        self.parts = (*earlier, self.draws)
        self.learning_draws = self.parts[0]
        return self.train(self.training)

    def start_epoch(self, epoch: int, epochs: int, shares: Sequence[float]) -> None:
        """Set the draws of epoch 1 … epochs."""
        del shares
        self.learning_draws = self.parts[(epoch - 1) * len(self.parts) // epochs]
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Take the draws of training, or those of prediction."""
        self.draws = self.learning_draws if mode else self.parts[-1]
        return super().train(mode)
