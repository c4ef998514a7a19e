"""The models of all folds as one model folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from wsi_attention.checkpoint import Classifier, load_model, save_model
from wsi_attention.encoders.origin import NOBODY
from wsi_attention.learnt_from import LearntFrom
from wsi_attention.methods.ensemble import ensemble_of
from wsi_attention.model_card import ModelCard


def save_ensemble(
    folder: Path,
    members: Sequence[Path],
    *,
    recipe: Mapping[str, object],
    metrics: Mapping[str, object],
    fingerprint: str,
    command: str,
) -> str:
    """Write the mean of models as a model folder, beside what is there already.

    Args:
        folder: where to.
        members: the folders of the models.
        recipe: of all trainings.
        metrics: name -> number, of slides that none of the models that judge them has seen.
        fingerprint: sha256 over slides and labels.
        command: the command line.

    Returns:
        The sha256 of the weights.

    Raises:
        ModelError: a model cannot be loaded, or the folder cannot be written.
        InputError: the models do not go together.
    """
    loaded = [load_model(path) for path in members]
    first = loaded[0]
    model = ensemble_of([one.model for one in loaded])
    card = ModelCard(
        first.config["method"],
        first.config["options"],
        first.classes,
        recipe,
        metrics,
        fingerprint,
        command,
        negative=first.config.get("negative"),
        seen=LearntFrom.union(one.seen for one in loaded if one.seen),
        purpose=first.purpose,
        encoder=first.encoder.origin if first.encoder else NOBODY,
        members=[_told(one, model.shared) for one in loaded],
    )
    return save_model(folder, model.eval(), card)


def _told(member: Classifier, shared: bool) -> dict[str, object]:
    """Return what config.json says of a member."""
    return {
        "name": member.name,
        "options": member.config["options"],
        "shared": shared,
        "weights_sha256": member.weights_sha256,
        "metrics": member.config.get("metrics", {}),
    }
