"""The models of all folds as one model folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wsi_attention.certainty.fitted import Certainty
from wsi_attention.checkpoint import Classifier, load_model, save_model
from wsi_attention.encoders.origin import NOBODY
from wsi_attention.learnt_from import LearntFrom
from wsi_attention.methods.ensemble import Ensemble, ensemble_of, same_encoder, share_encoder
from wsi_attention.model_card import ModelCard

JUDGED: Final = "judged_sha256"
"""Key in the table of a member: digest of the out-of-fold predictions that calibration and sets were fitted to."""


@dataclass(frozen=True)
class Joined:
    """The models of all folds, and what they are together.

    Attributes:
        members: each model.
        model: their mean.
    """

    members: tuple[Classifier, ...]
    model: Ensemble

    @property
    def weights(self) -> tuple[str, ...]:
        """The sha256 of the weights of each member."""
        return tuple(one.weights_sha256 for one in self.members)


def joined(members: Sequence[Path]) -> Joined:
    """Return models as one.

    Args:
        members: the folders of the models.

    Raises:
        ModelError: a model cannot be loaded.
        InputError: the models do not go together.
    """
    loaded: list[Classifier] = []
    for path in members:
        loaded.append(load_model(path))
        if len(loaded) > 1 and same_encoder([loaded[0].model, loaded[-1].model]):
            share_encoder(loaded[-1].model, loaded[0].model)  # at once: a large one is in memory twice at most
    return Joined(tuple(loaded), ensemble_of([one.model for one in loaded]).eval())


def save_ensemble(
    folder: Path,
    ensemble: Joined,
    *,
    recipe: Mapping[str, object],
    metrics: Mapping[str, object],
    fingerprint: str,
    command: str,
    certainty: Certainty,
    judged_sha256: str = "",
) -> str:
    """Write an ensemble as a model folder, beside what is there already.

    Args:
        folder: where to.
        ensemble: the models of all folds.
        recipe: of all trainings.
        metrics: name -> number, of slides that none of the models that judge them has seen.
        fingerprint: sha256 over slides and labels.
        command: the command line.
        certainty: what was fitted to predictions of such slides.
        judged_sha256: digest of these predictions, to know later whether they are still the same.

    Returns:
        The sha256 of the weights.

    Raises:
        ModelError: the folder cannot be written.
        InputError: the folder would contain weights that must not be given on.
    """
    first = ensemble.members[0]
    card = ModelCard(
        first.config["method"],
        first.config["options"],
        first.classes,
        recipe,
        metrics,
        fingerprint,
        command,
        negative=first.config.get("negative"),
        seen=LearntFrom.union(one.seen for one in ensemble.members if one.seen),
        purpose=first.purpose,
        encoder=first.encoder.origin if first.encoder else NOBODY,
        certainty=certainty,
        members=[{**_told(one, ensemble.model.shared), JUDGED: judged_sha256} for one in ensemble.members],
    )
    return save_model(folder, ensemble.model, card)


def _told(member: Classifier, shared: bool) -> dict[str, object]:
    """Return what config.json says of a member."""
    return {
        "name": member.name,
        "options": member.config["options"],
        "shared": shared,
        "weights_sha256": member.weights_sha256,
        "metrics": member.config.get("metrics", {}),
    }
