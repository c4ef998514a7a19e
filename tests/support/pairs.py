"""Two lists of cases against each other: by default a part that names each case, and the rest behind `slow`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest


def some_pairs(first: Sequence[Any], second: Sequence[Any], each: int = 2) -> list[Any]:
    """Return all pairs as parameters of a test; of those that `slow` does not mark, `each` name a case of `second`.

    They go round `first` in turn, so that none of its cases is left out where there are as many pairs.
    """
    chosen = {(i % len(first), i // each) for i in range(each * len(second))}
    return [
        pytest.param(one, other, marks=() if (i, j) in chosen else pytest.mark.slow, id=f"{one}-{other}")
        for j, other in enumerate(second)
        for i, one in enumerate(first)
    ]


def thinned(cases: Mapping[str, Any], every: int) -> list[Any]:
    """Return all cases as parameters of a test, all but one in `every` behind `slow`."""
    marks = [() if i % every == 0 else pytest.mark.slow for i in range(len(cases))]
    return [pytest.param(case, marks=mark, id=name) for mark, (name, case) in zip(marks, cases.items(), strict=True)]
