"""Tables other programs read: a slide's tiles with WSInfer's column names, and its row in predictions.csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from wsi_attention.export.measures import area_read, map_of, percentiles
from wsi_attention.structures import UNDECIDED, AttentionMap, Glimpse, Prediction, TileSet

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
"""The first four are WSInfer's: level-0 pixels of the tile as it was asked for, which may reach beyond the slide."""


FIGURES: Mapping[str, Callable[[Prediction], str]] = {
    "set": lambda prediction: set_text(prediction.among),
    "spread": lambda prediction: _decimals(prediction.spread),
    "unread_mass": lambda prediction: _decimals(prediction.unread_mass),
    "certified": lambda prediction: prediction.certified,
    "unlike_training": lambda prediction: "" if prediction.unlike is None else f"{prediction.unlike:.3f}",
    "tiles_read": lambda prediction: str(sum(int(glimpse.valid.sum()) for glimpse in prediction.glimpses)),
    "area_read": lambda prediction: _decimals(area_read(prediction)),
}
"""Columns of predictions.csv that come from a prediction, and their text; a new column is one line here.

The set is empty where the model has no conformal sets, the spread where nothing was drawn at random. `unread_mass` is
the share of the attention on tiles that were not read, empty where attention is no distribution over tiles. `certified`
is "proof", a confidence or "no", empty where nobody asked. `unlike_training` is above 1 for a slide unlike those of the
training, empty where the model does not know. `area_read` is the share of the tissue area that tiles covered.
"""


def columns(classes: Sequence[str], others: Sequence[str] = ()) -> list[str]:
    """Return the columns of predictions.csv for a model with these classes, in order.

    Args:
        classes: one probability each.
        others: columns that stand in their place, for a target beyond one label.
    """
    shares = [*others] or [*map(share_of, classes)]
    return ["slide", "status", "label", *shares, *FIGURES, "seconds", "reason", "notes"]


def row(slide: str, status: str, seconds: float, reason: str, known: Mapping[str, str]) -> dict[str, str]:
    """Return a slide's whole row of predictions.csv, by column.

    Args:
        slide: its name in the results folder.
        status: done, partial, no_tissue or failed.
        seconds: how long the slide took, waiting left out.
        reason: why it is not done; empty where it is.
        known: the `figures` of its prediction; empty where there is none.
    """
    return {**known, "slide": slide, "status": status, "seconds": f"{seconds:.3f}", "reason": reason}


def figures(prediction: Prediction) -> dict[str, str]:
    """Return what predictions.csv says of a prediction, as text by column; numbers have six decimals.

    `notes` joins the notes; the warning of a demonstration model comes first.
    """
    shares = zip(prediction.classes, prediction.probabilities, strict=True)
    return {
        "label": prediction.label,
        **{share_of(name): _decimals(share) for name, share in shares},
        **{name: _decimals(value) for name, value in prediction.values},
        **{name: figure(prediction) for name, figure in FIGURES.items()},
        "notes": "; ".join(filter(None, (prediction.warning, *prediction.notes))),
    }


NO_CLASS = "{}"
"""A conformal set without a class."""


def set_text(among: tuple[str, ...] | None) -> str:
    """Write a conformal set: "benign|lesion", "{}" where no class is in it; nothing where there are no sets."""
    return "" if among is None else "|".join(among) or NO_CLASS


def highest_share(row: Mapping[str, str]) -> str:
    """Return the probability that stands beside a row's label, that of the most probable class where it is undecided.

    Args:
        row: of predictions.csv, by column.
    """
    own = row.get(share_of(row.get("label", "")))
    every = [text for name, text in row.items() if name.startswith(share_of("")) and text]
    return own or (max(every, key=_as_number, default="") if row.get("label") == UNDECIDED else "")


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -math.inf


def share_of(name: str) -> str:
    """Return the column that holds the probability of a class."""
    return f"prob_{name}"


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def interval(probability: float, spread: float | None, quantile: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval for the winning probability that reading every tile would give, from its standard error.

    The interval is symmetric on the log-odds scale, log(p / (1 − p)) ± 1.96·spread / (p·(1 − p)), because a probability
    near 1 can only err downwards. It is about the sampling of tiles alone: it does not say whether the model is right,
    and it cannot know of tissue that no draw has shown. It contains the true value in 94 % of runs where the evidence
    is common; in 45 % with one decisive tile in fifty, flat attention and 32 draws; and in none of the runs that did
    not meet such a tile. `Prediction.unread_mass` is the share of the attention that was not read.

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


def tile_values(prediction: Prediction) -> dict[str, NDArray[np.generic]]:
    """Return (n,) values for each of `TILE_COLUMNS`: one for each tile asked for, in the order of drawing."""
    looks = [_values(glimpse, map_of(prediction, number)) for number, glimpse in enumerate(prediction.glimpses)]
    nothing = TileSet(np.empty((1, 0, 2), np.int64), (1, 1), 1.0)
    looks.append(_values(Glimpse(nothing, np.empty(0), np.empty(0), np.empty(0, np.bool_)), None))
    return {name: np.concatenate([look[name] for look in looks]) for name in TILE_COLUMNS}


def _values(glimpse: Glimpse, found: AttentionMap | None) -> dict[str, NDArray[np.generic]]:
    names = np.full(len(glimpse.valid), glimpse.name, object)
    shares = (glimpse.attention, percentiles(glimpse.attention, found), glimpse.weights)
    return dict(zip(TILE_COLUMNS, (*glimpse.tiles.boxes[0].T, *shares, names, glimpse.valid), strict=True))


def tile_rows(prediction: Prediction) -> Iterator[dict[str, str | int]]:
    """Yield one row for each tile asked for, in the order of drawing; numbers that are not finite are left empty."""
    columns = [values.tolist() for values in tile_values(prediction).values()]
    for *box, attention, rank, weight, name, valid in zip(*columns, strict=True):
        values = (*box, _number(attention), _number(rank), _number(weight), name, int(valid))
        yield dict(zip(TILE_COLUMNS, values, strict=True))


class TilesExporter:
    """Write `tile_rows` as CSV; the header alone for a slide where nothing was read."""

    suffix: ClassVar[str] = "tiles/{slide}.csv"

    def __call__(self, prediction: Prediction, path: str | Path) -> None:
        """Write the file; the same prediction gives the same bytes."""
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, TILE_COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(tile_rows(prediction))


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""
