"""The targets there are: by what a recipe asks for, and by what a model folder says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from wsi_attention.errors import InputError
from wsi_attention.protocols import AnyTarget
from wsi_attention.targets import one_label, ordinal, regression, several_labels, survival
from wsi_attention.targets.one_label import LABEL, OneLabel
from wsi_attention.targets.ordinal import Grades, WantedGrade
from wsi_attention.targets.regression import Numbers, WantedNumbers
from wsi_attention.targets.several_labels import JOINT, SeveralLabels, WantedLabels
from wsi_attention.targets.survival import Survival, WantedSurvival
from wsi_attention.targets.target import Asked, Target

KINDS = (one_label.KIND, ordinal.KIND, several_labels.KIND, regression.KIND, survival.KIND)
"""What a recipe's key `target` may say."""
TAKEN = ("slide", "patient", "mpp", "split", "series")
"""Columns of the labels CSV that say something else."""


def wanted_of(kind: str, order: Sequence[str] = (), columns: Sequence[str] = (), intervals: int = 4) -> Asked:
    """Return what a recipe asks for.

    Args:
        kind: one of `KINDS`.
        order: the grades, lowest first.
        columns: of the labels CSV, where they are not the usual ones.
        intervals: that survival is cut into.

    Raises:
        InputError: they do not go together.
    """
    _check_names(kind, order, columns)
    if kind == ordinal.KIND:
        if len(order) < 2:
            raise InputError('target = "ordinal" needs order = [...], two grades or more, lowest first')
        return WantedGrade(tuple(order), _columns(kind, columns, ("label",)))
    if kind == several_labels.KIND:
        return _several(columns)
    if kind == regression.KIND:
        if not columns:
            raise InputError('target = "regression" needs columns = [...], the columns of the labels with the numbers')
        return WantedNumbers(tuple(columns))
    if kind == survival.KIND:
        return WantedSurvival(intervals, _columns(kind, columns, survival.COLUMNS))
    if columns:
        raise InputError('columns are of targets beyond one label; target = "label" reads the column label')
    return LABEL


def target_of(said: object, classes: Sequence[str]) -> Target:
    """Return the target of a model from its config.json.

    Args:
        said: what stands there under `target`; None for one label.
        classes: what stands there under `classes`.

    Raises:
        InputError: it is none of this version's.
    """
    if said is None:
        return OneLabel(tuple(classes))
    kind = said.get("kind") if isinstance(said, Mapping) else None
    if not isinstance(said, Mapping) or not isinstance(kind, str) or kind not in _READERS:
        raise InputError(f"'target' is {str(said)[:80]}, which this version does not know; it knows {', '.join(KINDS)}")
    try:
        target = _READERS[kind](said)
        _check_target(target, classes)
        return target
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"'target' is damaged ({error}): {str(said)[:80]}") from error


def aim(model: nn.Module, target: Target) -> None:
    """Tell a model what its logits mean, in place; a model for one label knows it.

    Raises:
        InputError: it can be asked for one label alone.
    """
    if target.kind == one_label.KIND:
        return
    if not isinstance(model, AnyTarget):
        raise InputError(f"a {type(model).__name__} can be asked for one label a slide alone, not for {target.kind!r}")
    model.target = target


def _check_target(target: Target, classes: Sequence[str]) -> None:
    """Raise ValueError unless its names are those of the model, and no two columns have the same name."""
    if classes and target.names != tuple(classes):
        raise ValueError(f"its names are not the model's 'classes', {', '.join(classes)[:40]}")
    if len(set(target.columns)) < len(target.columns):
        raise ValueError("two of its columns have the same name")


def _grades(said: Mapping[str, object]) -> Target:
    wanted = wanted_of(ordinal.KIND, _texts(said["order"]), _texts(said["columns"]))
    assert isinstance(wanted, WantedGrade)
    return Grades(wanted.order, wanted)


def _several(columns: Sequence[str]) -> WantedLabels:
    joined = [name for name in columns if JOINT in name]
    if joined:
        raise InputError(f"column {joined[0]!r} cannot be a label: {JOINT!r} stands between labels; rename it")
    return WantedLabels(tuple(columns), False) if columns else WantedLabels()


def _labels(said: Mapping[str, object]) -> Target:
    names = _texts(said["names"])
    wanted = WantedLabels(_texts(said["columns"]), said["listed"] is True)
    if not names or any(JOINT in name for name in names):
        raise ValueError("'names' must be labels")
    return SeveralLabels(names, wanted)


def _values(said: Mapping[str, object]) -> Target:
    names, mean, deviation = _texts(said["columns"]), _numbers(said["mean"]), _numbers(said["deviation"])
    if not len(names) == len(mean) == len(deviation) > 0 or min(deviation) <= 0:
        raise ValueError("each column needs a mean, and a deviation above 0")
    return Numbers(names, mean, deviation, WantedNumbers(names))


def _survival(said: Mapping[str, object]) -> Target:
    ends, intervals = _numbers(said["ends"]), said["intervals"]
    count = intervals if isinstance(intervals, int) and not isinstance(intervals, bool) else 0
    if not ends or list(ends) != sorted(set(ends)) or ends[0] <= 0 or count < 1:
        raise ValueError("'ends' must be times that rise, 'intervals' a whole number")
    wanted = wanted_of(survival.KIND, (), _texts(said["columns"]), count)
    assert isinstance(wanted, WantedSurvival)
    return Survival(ends, wanted)


_READERS: Mapping[object, Callable[[Mapping[str, object]], Target]] = {
    ordinal.KIND: _grades,
    several_labels.KIND: _labels,
    regression.KIND: _values,
    survival.KIND: _survival,
}


def _numbers(value: object) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not all(type(one) in (int, float) for one in value):
        raise TypeError(f"expected a list of numbers, found {str(value)[:40]}")
    found = tuple(map(float, value))
    if not all(map(math.isfinite, found)):
        raise ValueError("a number is not finite")
    return found


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise TypeError(f"expected a list of names, found {str(value)[:40]}")
    return tuple(value)


def _columns(kind: str, columns: Sequence[str], usual: tuple[str, ...]) -> tuple[str, ...]:
    if columns and len(columns) != len(usual):
        raise InputError(
            f'target = "{kind}" needs {len(usual)} column{"s" * (len(usual) > 1)}, such as {", ".join(usual)};'
            f" columns names {len(columns)}"
        )
    return tuple(columns) or usual


def _check_names(kind: str, order: Sequence[str], columns: Sequence[str]) -> None:
    for key, names in (("order", order), ("columns", columns)):
        folded = [" ".join(name.split()).casefold() for name in names]
        if not all(folded) or len(set(folded)) < len(folded):
            raise InputError(f"{key} must be different names, found {', '.join(map(repr, names))}")
    if order and kind != ordinal.KIND:
        raise InputError(f'order is for target = "ordinal", not for {kind!r}; leave it out')
    taken = [name for name in columns if name.casefold() in TAKEN]
    if taken:
        raise InputError(f"columns names {taken[0]!r}, which says something else; possible: any but {', '.join(TAKEN)}")
