"""The same figures within groups of slides: a site, a scanner, any column of the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from wsi_attention.csv_table import Table, read_table
from wsi_attention.errors import InputError
from wsi_attention.evaluation.judged import Judged
from wsi_attention.statistics.metrics import Scores, score

EMPTY = "(empty)"
"""What a group is called whose cells are empty."""
MOST = 50
"""Groups of a column, at most."""


@dataclass(frozen=True)
class Group:
    """Slides with one value in a column.

    Attributes:
        column: of the labels.
        value: of all of them.
        scores: AUROC, accuracy and each class's share right, with intervals.
    """

    column: str
    value: str
    scores: Scores


def group_values(labels: str | Path, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the value of each slide of the labels, by column and then by the slide's name there.

    Raises:
        InputError: there is no such column, or it stands there twice.
    """
    table = read_table(labels).known_as(("slide",))
    return {column: _values(table, _column(table, column, labels)) for column in columns}


def _column(table: Table, column: str, labels: str | Path) -> str:
    table.check_once((column,))
    folded = [name for name in table.columns if name.casefold() == column.strip().casefold()]
    if column in table.columns:
        return column
    if len(folded) == 1:
        return folded[0]
    raise InputError(f"{labels}: column {column!r} is missing; found: {', '.join(table.columns)}")


def _values(table: Table, column: str) -> dict[str, str]:
    return {cells["slide"].replace("\\", "/"): cells[column] or EMPTY for _, cells in table.rows}


def groups(judged: Judged, column: str, values: Mapping[str, str]) -> tuple[Group, ...]:
    """Return the groups of a column, sorted by value.

    Args:
        judged: slides that judge.
        column: its name.
        values: of each slide, by its name in `judged`.

    Raises:
        InputError: there are more groups than a page can hold, as of a column of numbers.
    """
    own = np.array([values[name] for name in judged.names])
    found = sorted(set(own.tolist()))
    if len(found) > MOST:
        raise InputError(
            f"column {column!r} has {len(found)} values, {MOST} at most make groups; give one of few values"
        )
    return tuple(Group(column, value, _scores(judged.taken(own == value))) for value in found)


def _scores(judged: Judged) -> Scores:
    return score(torch.from_numpy(judged.probabilities), torch.from_numpy(judged.labels), patients=judged.owners)
