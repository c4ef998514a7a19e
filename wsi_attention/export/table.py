"""Tables other programs read: a slide's tiles with WSInfer's column names, and its row in predictions.csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from wsi_attention.export.measures import area_read, map_of, percentiles
from wsi_attention.structures import Prediction

TILE_COLUMNS = (
    "minx",
    "miny",
    "width",
    "height",
    "attention",
    "attention_percentile",
    "weight",
    "glimpse",
    "read",
)
"""The first four are WSInfer's: level-0 pixels of the tile as it was asked for, also where it hangs over the slide."""


def columns(classes: Sequence[str]) -> list[str]:
    """The columns of predictions.csv for a model with these classes."""
    shares = [f"prob_{name}" for name in classes]
    return [
        "slide",
        "status",
        "label",
        *shares,
        "spread",
        "unread_mass",
        "tiles_read",
        "area_read",
        "seconds",
        "reason",
        "notes",
    ]


def prediction_row(prediction: Prediction) -> dict[str, str]:
    """A prediction as a row of predictions.csv, as text.

    Probabilities, spread, `unread_mass` (share of the attention on tiles that were not read) and `area_read` (share of
    the tissue area that tiles covered) have six decimals, seconds spent reading three. The spread is empty where
    nothing was drawn at random, `unread_mass` where attention is no distribution over tiles. `reason` joins the
    shortfalls, `notes` the notes, with what a demonstration model is worth first.
    """
    shares = zip(prediction.classes, prediction.probabilities, strict=True)
    return {
        "slide": prediction.slide,
        "status": prediction.status,
        "label": prediction.label,
        **{f"prob_{name}": f"{share:.6f}" for name, share in shares},
        "spread": "" if prediction.spread is None else f"{prediction.spread:.6f}",
        "unread_mass": "" if prediction.unread_mass is None else f"{prediction.unread_mass:.6f}",
        "tiles_read": str(sum(int(glimpse.valid.sum()) for glimpse in prediction.glimpses)),
        "area_read": f"{area_read(prediction):.6f}",
        "seconds": f"{prediction.counters.seconds:.3f}",
        "reason": "; ".join(prediction.shortfalls),
        "notes": "; ".join(filter(None, (prediction.warning, *prediction.notes))),
    }


def interval(probability: float, spread: float | None, quantile: float = 1.96) -> tuple[float, float]:
    """Where the winning probability would lie had every tile been read: a 95 % interval from its standard error.

    Symmetric on the log-odds scale, log(p / (1 − p)) ± 1.96·spread / (p·(1 − p)), because a probability near 1 can only
    err downwards. About the sampling of tiles alone: it says nothing about whether the model is right, and it cannot
    know of tissue that no draw has shown. It holds in 94 % of runs where the evidence is common; with one decisive tile
    in fifty under flat attention and 32 draws in 45 %, and in none of the runs that met no such tile. How much of the
    attention was not read stands beside it (`Prediction.unread_mass`).

    Args:
        probability: of the winning class.
        spread: its standard error, column `spread` of predictions.csv; None gives an interval without length.
        quantile: of the normal distribution, 1.96 for 95 %.
    """
    if not spread or not 0 < probability < 1:
        return probability, probability
    odds = math.log(probability / (1.0 - probability))
    reach = quantile * spread / (probability * (1.0 - probability))
    return 1.0 / (1.0 + math.exp(min(reach - odds, 700.0))), 1.0 / (1.0 + math.exp(max(-odds - reach, -700.0)))


def tile_rows(prediction: Prediction) -> Iterator[dict[str, Any]]:
    """One row a tile asked for, in the order of drawing; numbers that are not finite are left empty."""
    for number, glimpse in enumerate(prediction.glimpses):
        ranks = percentiles(glimpse.attention, map_of(prediction, number))
        boxes = glimpse.tiles.boxes[0].tolist()
        facts = zip(boxes, glimpse.attention, ranks, glimpse.weights, glimpse.valid, strict=True)
        for box, attention, rank, weight, valid in facts:
            values = (*box, _number(attention), _number(rank), _number(weight), glimpse.name, int(valid))
            yield dict(zip(TILE_COLUMNS, values, strict=True))


class TilesExporter:
    """Writes `tile_rows` as CSV; a slide where nothing was read gives the header alone."""

    suffix: ClassVar[str] = "tiles/{slide}.csv"

    def __call__(self, prediction: Prediction, path: Path) -> None:
        """Writes the file; the same prediction gives the same bytes."""
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, TILE_COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(tile_rows(prediction))


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""
