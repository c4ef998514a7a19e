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

*What decides.* The slide that speaks most for the most probable class, by its own probability. Where a model saw all
slides of the patient as one bag, these are equal, and the slide with most of the weight decides. Its tiles are those of
highest weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True)
class Meaning:
    """What the numbers of slides are, and what people are told of their mean.

    Attributes:
        columns: of numbers, in order.
        measured: those of the columns that are averaged.
        classes: names that `measured` are the probabilities of; none where they are something else.
        told: (m,) means in the order of `measured` -> the label, and the number of each column.
    """

    columns: tuple[str, ...]
    measured: tuple[str, ...]
    classes: tuple[str, ...]
    told: Callable[[NDArray[np.float64]], tuple[str, Mapping[str, float]]]


def of_classes(classes: Sequence[str]) -> Meaning:
    """Return the meaning of one class a slide: probabilities, and the most probable class, the first of equals."""
    names, columns = tuple(classes), tuple(map(share_of, classes))

    def told(mean: NDArray[np.float64]) -> tuple[str, Mapping[str, float]]:
        return names[int(np.argmax(mean))], dict(zip(columns, mean.tolist(), strict=True))

    return Meaning(columns, columns, names, told)


def patient_columns(meaning: Meaning) -> list[str]:
    """Return the columns of patients.csv, in order."""
    first = ["patient", "status", "label", *meaning.columns, SET, "slides_used", "slides"]
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


def patient_row(patient: str, slides: Sequence[SlideLine], meaning: Meaning) -> dict[str, str]:
    """Return a patient's row, by column; numbers have six decimals. The module says by which rule.

    `slides_used` of `slides` have a label. `status` is done where all slides are, partial where at least one has a
    label and another is missing, failed, without tissue or partial itself, no_tissue where none has tissue, and
    failed where none has a label for another reason; `reason` names each slide that is not done.

    Args:
        patient: whose slides they are.
        slides: all slides of the patient.
        meaning: of the slides' numbers.
    """
    used = [slide for slide in slides if slide.used]
    reasons = [_reason(slide) for slide in slides if slide.status != "done"]
    counts = {"slides_used": str(len(used)), "slides": str(len(slides))}
    row = {"patient": patient, "status": _status(slides, used), **counts, "reason": "; ".join(reasons)}
    return row | _joined(used, meaning) if used else row


def _joined(used: Sequence[SlideLine], meaning: Meaning) -> dict[str, str]:
    every = np.array([[_number(slide, column) for column in meaning.measured] for slide in used])
    mean = every.mean(axis=0)
    label, numbers = meaning.told(mean)
    among = _majority([(slide.row or {}).get(SET, "") for slide in used], meaning.classes)
    decides = _deciding(used, every[:, int(np.argmax(mean))] if meaning.classes else None)
    return {
        "label": label if among in (None, (label,)) else UNDECIDED,
        **{column: f"{number:.6f}" for column, number in numbers.items()},
        SET: set_text(among),
        "deciding_slide": decides.name if decides else "",
        TILES: (decides.row or {}).get(TILES, "") if decides else "",
        "notes": warning_in((used[0].row or {}).get("notes", "")),
    }


def _deciding(used: Sequence[SlideLine], lead: NDArray[np.float64] | None) -> SlideLine | None:
    """Return the slide that decides; None where a mean of numbers has no such slide.

    Args:
        used: slides with a label.
        lead: (n,) how much each speaks for the most probable class; None without classes.
    """
    if lead is None and not all((slide.row or {}).get(BAG_SHARE) for slide in used):
        return used[0] if len(used) == 1 else None
    first = np.zeros(len(used)) if lead is None else lead
    return used[max(range(len(used)), key=lambda n: (first[n], _number(used[n], BAG_SHARE)))]


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
