"""How much of a slide a model reads: what it draws, every tile, or as many as a wanted certainty takes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from torch import Generator

from wsi_attention.errors import InputError
from wsi_attention.models.checkpoint import Classifier
from wsi_attention.models.rounds import limits, refusal
from wsi_attention.protocols import Estimating, TileSource
from wsi_attention.structures import Output

UNLIMITED = sys.maxsize


@dataclass(frozen=True)
class Effort:
    """The ordinary draw of the model by default.

    Attributes:
        exact: every tile of the tissue is read.
        tolerance: tiles are read until the standard error of the winning class's probability is at most this, and the
            attention on tiles that were not read at most `unread`.
        budget: the most tiles read for a tolerance; None for all there are.
        unread: share of the attention; the tolerance itself where None.
    """

    exact: bool = False
    tolerance: float | None = None
    budget: int | None = None
    unread: float | None = None

    def check(self, classifier: Classifier) -> None:
        """Whether these wishes make sense together, and the model can fulfil them.

        Raises:
            InputError: they do not, or it cannot.
        """
        if self.exact and not self.tolerance == self.budget == self.unread is None:
            raise InputError("exact reads every tile: give either exact, or a tolerance with its budget")
        if self.budget is not None and self.tolerance is None:
            raise InputError("a budget is what a tolerance may cost: give a tolerance too")
        if self.unread is not None and self.tolerance is None:
            raise InputError("unread says when a tolerance may stop: give a tolerance too")
        if self.tolerance is not None:
            limits(self.tolerance, self.unread, self._most, int(getattr(classifier.model, "draws", 1)))
        if self.facts() and not isinstance(classifier.model, Estimating):
            method = classifier.config.get("method", classifier.name)
            raise InputError(
                f"method {method!r} estimates no sum over all tiles: exact and tolerance are for methods that sample"
                " one, such as ats and zoom-in"
            )
        if self.facts() and isinstance(classifier.model, Estimating) and classifier.model.other_quantity:
            raise InputError(f"model {classifier.name}: {refusal(classifier.model)}")

    def facts(self) -> dict[str, Any]:
        """What is not as usual; results with other facts are other results."""
        wishes = {"exact": self.exact or None, "tolerance": self.tolerance, "budget": self.budget}
        wishes["unread"] = self.unread if self.unread is not None or self.tolerance is None else self.tolerance
        return {name: value for name, value in wishes.items() if value is not None}

    def look(self, model: Any, source: TileSource, generator: Generator) -> Output:
        """One look of the model at the source.

        Args:
            model: in eval mode, and checked.
            source: one image.
            generator: of what is drawn.
        """
        output: Output
        if self.exact:
            output = model.exact(source)
        elif self.tolerance is not None:
            output = model.until(source, self.tolerance, self._most, generator, self.unread)
        else:
            output = model(source, generator)
        return output

    def snaps(self, wanted: bool) -> bool:
        """Whether tiles move to the file's own grid: never in an exact look, where some would meet and leave gaps."""
        return wanted and not self.exact

    def missed(self, spread: float | None, unread: float | None) -> tuple[str, ...]:
        """Say what of a tolerance was not reached when the reading ended; nothing where all was."""
        if self.tolerance is None or spread is None:
            return ()
        allowed = self.tolerance if self.unread is None else self.unread
        if spread <= self.tolerance and (unread or 0.0) <= allowed:
            return ()
        left = "" if unread is None else f" and {unread:.1%} of the attention unread"
        return (
            f"reading ended before the tolerance was met: standard error {spread:.3f}{left}, wanted at most"
            f" {self.tolerance:g} and {allowed:.1%}",
        )

    @property
    def _most(self) -> int:
        return UNLIMITED if self.budget is None else self.budget
