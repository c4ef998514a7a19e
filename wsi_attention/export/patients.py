"""A patient's row of patients.csv: what the slides of one patient say together.

*The rule.* A patient's probabilities are the mean of those of the slides. By log loss and Brier score, both convex in
the probabilities, the mean scores no worse than the slides do on average (Jensen's inequality). No class is preferred,
a slide at 0 or 1 has no veto, and nothing grows with the number of slides, as the maximum does: of ten slides without a
finding, the highest probability is high by chance alone. Where one slide among many shows the finding, a mean hides it:
for such labels a model is trained with `bag = "patient"`, which weighs the slides by their attention.

*A withheld label.* Where the model has conformal sets, the patient's set holds the classes that are in more than half
of the sets of the slides. It lacks the right class in at most 2 alpha of patients, however the slides depend on each
other (Gasparin and Ramdas, "Merging uncertainty sets via majority vote", 2024). For one slide, and for a model that saw
all slides as one bag, it is the set itself, with alpha. The label is undecided unless the set holds the most probable
class and no other.

*What decides.* The slide that speaks most for the patient's label, by its own probability; where a model saw all slides
of the patient as one bag, these are equal, and the slide with most of the weight decides. Its tiles are those of
highest weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wsi_attention.export.measures import clipped, deciding, heaviest
from wsi_attention.export.table import set_text, share_of
from wsi_attention.structures import UNDECIDED, Prediction, warning_in

TOP = 5
"""Tiles that are named, as many as the report shows."""
TILES, BAG_SHARE = "deciding_tiles", "bag_share"
"""What the state of a slide keeps for its patient's row besides the columns of predictions.csv."""
SET = "set"
"""The column of conformal sets, here and in predictions.csv."""


@dataclass(frozen=True)
class SlideLine:
    """What a slide contributes.

    Attributes:
        name: in the results folder.
        status: done, partial, no_tissue or failed; empty where it is not done yet.
        reason: why it is not done.
        row: its `table.figures` and `deciding_figures`; empty where there is no prediction.
    """

    name: str
    status: str = ""
    reason: str = ""
    row: Mapping[str, str] | None = None

    @property
    def used(self) -> bool:
        """Whether it has a label."""
        return bool(self.row and self.row.get("label"))


def patient_columns(classes: Sequence[str]) -> list[str]:
    """Return the columns of patients.csv for a model with these classes, in order."""
    first = ["patient", "status", "label", *map(share_of, classes), SET, "slides_used", "slides"]
    return [*first, "deciding_slide", TILES, "reason", "notes"]


def deciding_figures(prediction: Prediction) -> dict[str, str]:
    """Return what a slide's state keeps for its patient: the boxes "x y w h" of its heaviest tiles, `; ` between them.

    Boxes are clipped to the slide, in level-0 pixels, heaviest first, at most `TOP`; none for a method that reads no
    tiles. Nothing is kept of a slide without a patient.
    """
    if not prediction.patient:
        return {}
    glimpse, bag = deciding(prediction), prediction.provenance.get("bag")
    share = {BAG_SHARE: f"{bag['share']:.6f}"} if isinstance(bag, dict) else {}
    if glimpse is None:
        return {TILES: "", **share}
    boxes = clipped(glimpse.tiles.boxes[0][heaviest(glimpse, TOP)], prediction.extent)
    return {TILES: "; ".join(" ".join(map(str, box)) for box in boxes.tolist()), **share}


def patient_row(patient: str, slides: Sequence[SlideLine], classes: Sequence[str]) -> dict[str, str]:
    """Return a patient's row, by column; numbers have six decimals. The module says by which rule.

    `slides_used` of `slides` have a label. `status` is done where all slides are, partial where at least one has a
    label and another is missing, failed, without tissue or partial itself, no_tissue where none has tissue, and
    failed where none has a label for another reason; `reason` names each slide that is not done.

    Args:
        patient: whose slides they are.
        slides: all slides of the patient.
        classes: of the model.
    """
    used = [slide for slide in slides if slide.used]
    reasons = [_reason(slide) for slide in slides if slide.status != "done"]
    counts = {"slides_used": str(len(used)), "slides": str(len(slides))}
    row = {"patient": patient, "status": _status(slides, used), **counts, "reason": "; ".join(reasons)}
    return row | _joined(used, classes) if used else row


def _joined(used: Sequence[SlideLine], classes: Sequence[str]) -> dict[str, str]:
    shares = np.array([[_number(slide, share_of(name)) for name in classes] for slide in used])
    mean = shares.mean(0)
    best = int(np.argmax(mean))
    first = max(range(len(used)), key=lambda n: (shares[n, best], _number(used[n], BAG_SHARE)))
    warning = warning_in((used[first].row or {}).get("notes", ""))
    among = _majority([(slide.row or {}).get(SET, "") for slide in used], classes)
    return {
        "label": classes[best] if among in (None, (classes[best],)) else UNDECIDED,
        **{share_of(name): f"{share:.6f}" for name, share in zip(classes, mean, strict=True)},
        SET: set_text(among),
        "deciding_slide": used[first].name,
        TILES: (used[first].row or {}).get(TILES, ""),
        "notes": warning,
    }


def _majority(sets: Sequence[str], classes: Sequence[str]) -> tuple[str, ...] | None:
    """Return the classes that are in more than half of the sets; None where not every slide has one."""
    if not all(sets):
        return None
    votes = [sum(name in one.split("|") for one in sets) for name in classes]
    return tuple(name for name, count in zip(classes, votes, strict=True) if 2 * count > len(sets))


def _status(slides: Sequence[SlideLine], used: Sequence[SlideLine]) -> str:
    found = {slide.status for slide in slides}
    if not used:
        return "no_tissue" if found == {"no_tissue"} else "failed"
    return "done" if found == {"done"} else "partial"


def _reason(slide: SlideLine) -> str:
    told = {"": "is not done yet", "no_tissue": "has no tissue", "failed": "failed", "partial": "is partial"}
    because = f": {slide.reason}" if slide.reason and slide.status != "no_tissue" else ""
    return f"{slide.name} {told.get(slide.status, slide.status)}{because}"


def _number(slide: SlideLine, column: str) -> float:
    text = (slide.row or {}).get(column, "")
    return float(text) if text else 0.0
