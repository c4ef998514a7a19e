"""What is wanted of every slide of a batch, as one value that goes from the caller to the worker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from wsi_attention.checkpoint import Classifier
from wsi_attention.defaults import BATCH, FEATURE_STORE_GB, LIMIT
from wsi_attention.devices import Precision
from wsi_attention.errors import InputError
from wsi_attention.export.chosen import name_of
from wsi_attention.feature_store.store import open_store
from wsi_attention.inference.alone import check_alone
from wsi_attention.inference.effort import USUAL, Effort
from wsi_attention.inference.exactness import precision_of
from wsi_attention.inference.known import warn_anew
from wsi_attention.inference.pictures import shows_pixels
from wsi_attention.inference.stored_features import check_readable, expected_of
from wsi_attention.protocols import Exporter


@dataclass(frozen=True)
class Wishes:
    """What is wanted of every slide; the arguments of `batch.classify` with the same names.

    Attributes:
        what: exporters to run.
        device: where the model computes.
        precision: what it computes in.
        chosen: why it is that precision, where it was chosen by trying.
        batch: tiles that one task reads.
        limit: seconds a slide may take.
        effort: how many tiles are read.
        snap: whether tiles move to the file's own grid.
        profile: whether to measure where the time goes.
        full_hash: whether to hash slides whole.
        feature_store: folder that keeps what the encoder says of tiles; None for none.
        feature_store_gb: limit of its size.
        features: folder of files with features of the slides' tiles, which are then not read; None reads all.
        run: what tells this run from others that the same process does.
    """

    what: tuple[Exporter, ...] = ()
    device: str = "auto"
    precision: Precision = "auto"
    batch: int = BATCH
    limit: float = LIMIT
    effort: Effort = USUAL
    snap: bool = True
    profile: bool = False
    full_hash: bool = False
    feature_store: str | None = None
    feature_store_gb: float = FEATURE_STORE_GB
    features: str | None = None
    chosen: str = ""
    run: str = ""

    def checked(self, classifier: Classifier) -> Wishes:
        """Return the wishes as this model fulfils them.

        Raises:
            InputError: a number is not above 0, the wishes contradict each other, the model cannot fulfil them, or the
                folder of the feature store holds something else.
        """
        check_positive(batch=self.batch, limit=self.limit)
        self.effort.check(classifier)
        if self.features is None:
            check_readable(classifier.model, f"model {classifier.name}")
        else:
            expected_of(classifier.model, classifier.config["options"], f"model {classifier.name}")
        kept = None if self.feature_store is None else str(Path(self.feature_store).absolute())
        usable = kept is not None and open_store(kept, self.feature_store_gb, warn_anew()) is not None
        precision, snap = precision_of(classifier, self.precision), self.effort.snaps(self.snap)
        return replace(self, snap=snap, precision=precision, feature_store=kept if usable else None)

    def without_slides(self, classifier: Classifier) -> tuple[Wishes, tuple[str, ...]]:
        """Return the wishes as bags of features alone fulfil them, and the names of exporters that are left out.

        Raises:
            InputError: the model looks at the slides themselves, or something was asked for that only slides have.
        """
        check_alone(classifier)
        if self.feature_store is not None:
            raise InputError("a feature store keeps what is read from slides, and there are none: give slides (-i)")
        kept = tuple(one for one in self.what if not shows_pixels(one))
        left_out = tuple(name_of(one) for one in self.what if shows_pixels(one))
        if left_out and not kept:
            raise InputError(f"{', '.join(left_out)}: shows pixels of slides, and there are none: give slides (-i)")
        return replace(self, what=kept), left_out

    def facts(self) -> dict[str, object]:
        """Return what the record of a run says of the wishes."""
        return {
            "what": [name_of(exporter) for exporter in self.what],
            "device": self.device,
            "precision": self.precision,
            "batch": self.batch,
            "limit": self.limit,
            "snap": self.snap,
            "full_hash": self.full_hash,
            "feature_store": self.feature_store,
            **({"features": self.features} if self.features else {}),
            **self.effort.facts(),
        }


def check_positive(**numbers: float) -> None:
    """Raise InputError unless all numbers are above 0; the text names the first that is not."""
    for name, value in numbers.items():
        if not value > 0:
            raise InputError(f"{name} must be above 0, got {value}")
