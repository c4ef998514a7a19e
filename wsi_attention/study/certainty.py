"""How far to believe the labels of an ensemble: fitted on predictions by models that had not seen the slide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from wsi_attention.certainty.fitted import Certainty
from wsi_attention.certainty.logits import too_few
from wsi_attention.certainty.traits import spaced as spread_out
from wsi_attention.checkpoint import CONFIG, certainty_of, read_config
from wsi_attention.devices import device_of, fabric_on, precision_on
from wsi_attention.errors import ModelError
from wsi_attention.protocols import contract_of
from wsi_attention.study.ensemble import JUDGED
from wsi_attention.study.out_of_fold import Judged
from wsi_attention.study.plan import StudyPlan
from wsi_attention.targets.one_label import OneLabel
from wsi_attention.training.certainty import MOST, Looks, fitted, looked, with_familiar
from wsi_attention.training.data import OverviewMemory, slide_examples, survey
from wsi_attention.training.labels import find_slides, with_series
from wsi_attention.training.listener import Listener
from wsi_attention.training.open_slides import OpenSlides

ALONE = "there are features alone, and no slides to look at"


@dataclass(frozen=True)
class Sight:
    """Where the slides of a study are seen once more.

    Attributes:
        slides: as in `crossvalidate`; empty where there are features alone.
        device: where the ensemble computes.
        series: as in `crossvalidate`.
    """

    slides: tuple[str, ...]
    device: str = "auto"
    series: str | None = None


def study_certainty(model: nn.Module, found: Judged, plan: StudyPlan, sight: Sight, listener: Listener) -> Certainty:
    """Return what the recipe asks to fit: calibration, conformal sets, and what the slides look like.

    Calibration and sets rest on the out-of-fold predictions. Each is of one fold's model, or a mean over repeats, while
    the ensemble is a mean over all: its own errors are a little smaller than those that were seen here.

    Args:
        model: the ensemble.
        found: the out-of-fold predictions beside the truth.
        plan: of the study.
        sight: where its slides are seen once more.
        listener: told how it goes.

    Raises:
        WsiAttentionError: slides cannot be found, or the device is not there.
    """
    recipe = plan.recipe
    fits = replace(fitted(found.logits, found.labels.tolist(), found.patients, recipe, found.classes), folds=True)
    if not recipe.familiar:
        return with_familiar(fits, Looks(), set(), recipe)
    reason = too_few(found.patients) if sight.slides else ALONE
    if reason:
        return replace(fits, missing={**fits.missing, "familiar": reason})
    return with_familiar(fits, look_again(model, plan, sight, listener), set(), recipe)


def known_before(study: Path, members: Sequence[str], judged_sha256: str) -> Certainty | None:
    """Return what was fitted for an ensemble of the same members on the same predictions; None where it was not.

    Args:
        study: the folder of the ensemble.
        members: the sha256 of the weights of each.
        judged_sha256: of the out-of-fold predictions (`Judged.sha256`).
    """
    if not (study / CONFIG).is_file():
        return None
    try:
        config = read_config(study)
        found = [(one.get("weights_sha256"), one.get(JUDGED)) for one in config.get("members", [])]
        same = found == [(member, judged_sha256) for member in members]
        return certainty_of(config, study / CONFIG) if same else None
    except ModelError:
        return None


def look_again(model: nn.Module, plan: StudyPlan, sight: Sight, listener: Listener) -> Looks:
    """Look at the slides of the study once more with the ensemble; at some of them where there are many."""
    rows = [plan.rows[i] for i in spread_out(len(plan.rows), MOST)]
    rows = list(with_series(rows, sight.series))
    slides: Mapping[str, str | Path] = find_slides([row.slide for row in rows], sight.slides, plan.table.path)
    device = sight.device.split(",", maxsplit=1)[0]
    fabric = fabric_on(device, 1, precision_on(device_of(device), plan.recipe.precision))
    doors, views = OpenSlides(), OverviewMemory()
    try:
        seen, mpp = survey(slides, rows, doors), contract_of(model).overview_mpp
        target = OneLabel(plan.classes)
        examples = slide_examples(rows, slides, seen, target, views, mpp, plan.recipe.snap, doors=doors)
        model = model.to(fabric.device).eval()
        found = looked(fabric, model, examples, True, lambda done: listener.progress("all folds", done, len(rows)))
    finally:
        doors.close()
    model.cpu()
    return found
