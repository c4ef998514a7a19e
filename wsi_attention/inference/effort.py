"""How much of a slide is read: the model's ordinary draw, every tile, or until a tolerance or a certificate is met."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Generator

from wsi_attention.checkpoint import Classifier
from wsi_attention.errors import InputError
from wsi_attention.inference.certify import check_certify, word_of
from wsi_attention.methods.rounds import limits, refusal
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
        certify: tiles are read until the label of the sum over all tiles is settled: 1 by proof, or with this
            confidence; None where nobody asks. The budget holds for it too.
    """

    exact: bool = False
    tolerance: float | None = None
    budget: int | None = None
    unread: float | None = None
    certify: float | None = None

    def check(self, classifier: Classifier) -> None:
        """Raise InputError unless these wishes make sense together and the model can fulfil them.

        Raises:
            InputError: they do not, or it cannot.
        """
        if classifier.config.get("plain_images"):
            raise InputError(
                f"model {classifier.name} learnt from plain images, without tissue and µm per pixel, and knows no"
                " slides: label plain images with wsi-attention classify-images"
            )
        if self.exact and not self.tolerance == self.budget == self.unread is None:
            raise InputError("exact reads every tile: give either exact, or a tolerance with its budget")
        if self.certify is not None:
            self._check_certify(self.certify, classifier)
            return
        if self.budget is not None and self.tolerance is None:
            raise InputError("a budget is what a tolerance or a certificate may cost: give one of them too")
        if self.unread is not None and self.tolerance is None:
            raise InputError("unread says when a tolerance may stop: give a tolerance too")
        if self.tolerance is not None:
            draws = classifier.model.draws if isinstance(classifier.model, Estimating) else 1
            limits(self.tolerance, self.unread, self._most, draws)
            if classifier.target.kind == "regression":
                raise InputError(
                    f"model {classifier.name} predicts a number, a tolerance is the standard error of a probability: "
                    "leave it out, or read every tile (exact)"
                )
        if self.facts() and not isinstance(classifier.model, Estimating):
            method = classifier.config.get("method", classifier.name)
            raise InputError(
                f"method {method!r} estimates no sum over all tiles: exact and tolerance are for methods that sample"
                " one, such as ats, grow and zoom-in"
            )
        if self.facts() and isinstance(classifier.model, Estimating) and classifier.model.other_quantity:
            raise InputError(f"model {classifier.name}: {refusal(classifier.model)}")

    def _check_certify(self, level: float, classifier: Classifier) -> None:
        if self.exact or not self.tolerance == self.unread is None:
            raise InputError("certify reads until the label is settled: give either certify, or exact or a tolerance")
        check_certify(classifier, level, self.budget)

    def facts(self) -> dict[str, object]:
        """Return the wishes that differ from the default; results with other facts do not lie in one folder."""
        wishes: dict[str, object] = {"exact": self.exact or None, "tolerance": self.tolerance, "budget": self.budget}
        wishes["unread"] = self.unread if self.unread is not None or self.tolerance is None else self.tolerance
        wishes["certify"] = None if self.certify is None else word_of(self.certify)
        return {name: value for name, value in wishes.items() if value is not None}

    def look(
        self,
        model: Any,
        source: TileSource,
        generator: Generator,
        calibration: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> Output:
        """Run the model once over the source.

        Args:
            model: in eval mode, and checked.
            source: one image.
            generator: of what is drawn.
            calibration: factor and shift of each class's logit, for the label of a certificate.
        """
        output: Output
        if self.exact:
            output = model.exact(source)
        elif self.tolerance is not None:
            output = model.until(source, self.tolerance, self._most, generator, self.unread)
        elif self.certify is not None:
            output = model.certified(source, self.certify, self._most, generator, calibration)
        else:
            output = model(source, generator)
        return output

    def snaps(self, wanted: bool) -> bool:
        """Return whether tiles move to the file's own grid; never where the exact sum, without gaps, is the point."""
        return wanted and not self.exact and self.certify is None

    def missed(self, spread: float | None, unread: float | None, calibrated: bool = False) -> tuple[str, ...]:
        """Say what of a tolerance was not reached when the reading ended; nothing where all was.

        Args:
            spread: standard error of the model's own winning probability, by which reading ends.
            unread: share of the attention.
            calibrated: whether people are shown another probability than the model's own.
        """
        if self.tolerance is None or spread is None:
            return ()
        allowed = self.tolerance if self.unread is None else self.unread
        if spread <= self.tolerance and (unread or 0.0) <= allowed:
            return ()
        of = " of the probability before calibration" if calibrated else ""
        left = "" if unread is None else f" and {unread:.1%} of the attention unread"
        return (
            f"reading ended before the tolerance was met: standard error {spread:.3f}{of}{left}, wanted at most"
            f" {self.tolerance:g} and {allowed:.1%}",
        )

    @property
    def _most(self) -> int:
        return UNLIMITED if self.budget is None else self.budget


USUAL = Effort()
