"""The needle benchmark's tables and figures: rows over seeds, paired with exhaustive reading, by size of the lesion.

AUROC, sensitivity and hit are means over seeds. Intervals are 95 % and over slides, which all seeds share: of an AUROC
the mean of the seeds' intervals, of shares the interval of slides with several looks each (`statistics.intervals`), of
differences the bootstrap of slides, the same cohorts for both rows (`statistics.bootstrap`). A row calls tumour above
the threshold that was chosen for each seed on slides with 1 % tumour, those of "held" tiles where they were measured,
else validation slides, whose tiles the model has learnt from: the middle of those above which a fresh negative comes
with a chance of at most 0.05 and a fresh positive with one of at least 0.9, as in split conformal prediction.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from common import FIGURES, machine
from numpy.typing import NDArray

from wsi_attention.statistics.bootstrap import bootstrap_aurocs, percentile_interval
from wsi_attention.statistics.curves import area_under_roc
from wsi_attention.statistics.intervals import auroc_interval, proportion_interval

if TYPE_CHECKING:
    from needle import Place

SPECIFICITY, SENSITIVITY, AT = 0.95, 0.9, "0.01"
"""Wanted on validation slides of this fraction, where a row's threshold comes from."""
KINDS = ("valid", "test", "final", "fresh", "last", "newest", "unseen", "sealed", "closing", "turned")
"""Of slides, the last figures last."""
AGAINST = ("exhaustive", "context")
HEADS = (
    *("row", "seeds", "AUROC 5 %", "1 % (95 %)", "0.5 %", "0.2 %", "1 %: minus exhaustive", "minus context"),
    *("tiles", "read", "sensitivity 1 %", "specificity", "s / slide", "training"),
)

Found = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Looks:
    """What a row says of a set with every seed.

    Attributes:
        probability: (seeds, n).
        label: (n,) bool.
        sets: what was measured, a seed each.
        thresholds: above which a slide is called tumour, a seed each; NaN where there were no validation slides.
    """

    probability: NDArray[np.float64]
    label: NDArray[np.bool_]
    sets: tuple[Found, ...]
    thresholds: NDArray[np.float64]

    @property
    def shares(self) -> list[NDArray[np.float64]]:
        """(n, 2) probabilities of every seed."""
        return [np.stack([1 - one, one], axis=-1) for one in self.probability]


def threshold(
    probability: NDArray[np.float64],
    label: NDArray[np.bool_],
    specificity: float = SPECIFICITY,
    sensitivity: float = SENSITIVITY,
) -> float:
    """The middle, in log-odds, of the thresholds that keep both; the lowest that keeps the specificity if none does.

    A fresh negative is above the k-th of n with a chance of 1 − k / (n + 1), so that k is (n + 1)·specificity, rounded
    up: with the k-th of n itself the specificity of fresh slides would be too low on average. So for positives. Between
    both ends all thresholds are as good on these slides, and the middle bears the most where others differ from them.

    Args:
        probability: (n,) of validation slides.
        label: (n,), whether each is positive.
        specificity: wanted.
        sensitivity: wanted.
    """
    low = _kept(probability[~label], specificity)
    high = -_kept(-probability[label], sensitivity)
    if high <= low:
        above = probability[probability > low]
        return float((low + (above.min() if len(above) else 1.0)) / 2)
    ends = np.clip([low, high], 1e-12, 1 - 1e-12)
    return float(1 / (1 + np.exp(-np.mean(np.log(ends / (1 - ends))))))


def _kept(values: NDArray[np.float64], share: float) -> float:
    """The lowest of some values above which a fresh one comes with a chance of 1 − share at most."""
    index = min(math.ceil(share * (len(values) + 1) - 1e-9), len(values)) - 1
    return float(np.sort(values)[index])


def looks(place: Place, row: str, name: str, seeds: Sequence[int]) -> Looks | None:
    """What the row says of a set; None where no seed was measured on it."""
    paths = [place.result(row, seed) for seed in seeds]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
    sets = tuple(one[name] for one in found if name in one)
    if not sets:
        return None
    limits = [_validated(one) for one in found if name in one]
    probability = np.array([one["probability"] for one in sets])
    return Looks(probability, np.array(sets[0]["label"]) == 1, sets, np.array(limits))


def _validated(found: Found) -> float:
    valid = found.get(f"held-{AT}") or found.get(f"valid-{AT}")
    return math.nan if valid is None else threshold(np.array(valid["probability"]), np.array(valid["label"]) == 1)


def figures(seen: Looks, against: dict[str, Looks]) -> Found:
    """All figures of a row on a set, and its differences to other rows."""
    areas = [area_under_roc(one, seen.label) for one in seen.probability]
    ends = [auroc_interval(one, seen.label.astype(np.int64)) for one in seen.shares]
    called = seen.probability > seen.thresholds[:, None]
    hits = [[value for value in one["hit"] if value is not None] for one in seen.sets]
    return {
        "auroc": float(np.mean(areas)),
        "auroc_interval": [float(value) for value in np.mean(ends, axis=0)],
        "auroc_of_seeds": areas,
        "minus": {name: difference(seen, other) for name, other in against.items()},
        "sensitivity": _share(called[:, seen.label]),
        "specificity": _share(~called[:, ~seen.label]),
        "hit": _share(np.array(hits) > 0) if all(hits) else None,
        "pointing": _mean(seen, "pointing"),
        "auprc": _mean(seen, "auprc"),
        "tiles": _mean(seen, "tiles"),
        "read": _mean(seen, "read"),
        "lesion": float(np.median([value for value in seen.sets[0]["lesion"] if value])),
        "seconds": float(np.median([one["seconds"] for one in seen.sets])),
    }


def difference(one: Looks, other: Looks) -> Found:
    """Mean AUROC over the seeds of a row minus that of another on the same slides, with its bootstrap interval."""
    labels, k = one.label.astype(np.int64), len(one.shares)
    drawn = bootstrap_aurocs([*one.shares, *other.shares], labels)
    value = np.mean([area_under_roc(each, one.label) for each in one.probability])
    value -= np.mean([area_under_roc(each, other.label) for each in other.probability])
    return {
        "auroc": float(value),
        "interval": percentile_interval(drawn[:, :k].mean(axis=1) - drawn[:, k:].mean(axis=1)),
    }


def _share(right: NDArray[np.bool_]) -> Found:
    """Share of (seeds, n) looks with its interval over n slides."""
    groups = np.tile(np.arange(right.shape[1]), len(right))
    return {"share": float(right.mean()), "interval": proportion_interval(right.ravel(), groups)}


def _mean(seen: Looks, key: str) -> float:
    return float(np.mean([value for one in seen.sets for value in one[key] if value is not None]))


def collected(place: Place, rows: Sequence[str], seeds: Sequence[int], kind: str) -> dict[str, dict[str, Found]]:
    """Figures of every row that was measured, by fraction; `kind` is one of `KINDS`."""
    from needle import FRACTIONS

    found: dict[str, dict[str, Found]] = {}
    for share in (f"{one:g}" for one in FRACTIONS):
        seen = {row: looks(place, row, f"{kind}-{share}", seeds) for row in rows}
        others = {row: other for row in AGAINST if (other := seen.get(row))}
        for row, one in seen.items():
            if one:
                against = {name: other for name, other in others.items() if name != row}
                found.setdefault(row, {})[share] = figures(one, against) | {"seeds": len(one.sets)}
    return found


def write_figures(place: Place, rows: Sequence[str], seeds: Sequence[int]) -> str:
    """Write the figures as JSON beside RESULTS.md, and return both tables of the last kind of slides measured."""
    found = {kind: collected(place, rows, seeds, kind) for kind in KINDS}
    about = {"variant": place.variant, "encoder": place.encoder, "seeds": list(seeds), "machine": machine()}
    path = FIGURES / f"needle_{place.variant}_{place.encoder}.json"
    path.write_text(json.dumps(about | found, indent=1) + "\n", encoding="utf-8")
    kind = next(kind for kind in reversed(KINDS) if found[kind])
    return f"{kind} slides, {place.variant}, encoder {place.encoder}\n\n" + tables(place, found[kind])


def tables(place: Place, found: dict[str, dict[str, Found]]) -> str:
    """Markdown: a line a row, then sensitivity and hit by the size of the lesion."""
    lines = [f"| {' | '.join(HEADS)} |", "|" + "---|" * len(HEADS)]
    lines += [_line(place, row, one) for row, one in found.items()]
    sizes = {share: one["lesion"] for share, one in next(iter(found.values())).items()}
    heads = [f"{size:.0f} tiles" for size in sizes.values()]
    lines += [
        "",
        "Sensitivity / hit by tumour tiles:",
        "",
        f"| row | {' | '.join(heads)} |",
        "|" + "---|" * (1 + len(heads)),
    ]
    for row, one in found.items():
        lines.append(f"| {row} | {' | '.join(_by_size(one.get(share)) for share in sizes)} |")
    return "\n".join(lines)


def _by_size(one: Found | None) -> str:
    if one is None:
        return "–"
    hit = "–" if one["hit"] is None else f"{one['hit']['share']:.2f}"
    return f"{one['sensitivity']['share']:.2f} / {hit}"


def _line(place: Place, row: str, one: dict[str, Found]) -> str:
    at = one.get(AT)
    if at is None:
        return f"| {row} |" + " – |" * (len(HEADS) - 1)
    seconds = place.model(row, 0) / "seconds.json"
    taken = json.loads(seconds.read_text()) if seconds.is_file() else None
    parts = [
        *(row, str(at["seeds"]), _auroc(one, "0.05"), f"{at['auroc']:.3f} {_range(at['auroc_interval'])}"),
        *(_auroc(one, "0.005"), _auroc(one, "0.002"), *(_minus(at, name) for name in AGAINST)),
        *(f"{at['tiles']:.0f}", f"{at['read']:.1%}", f"{at['sensitivity']['share']:.2f}"),
        *(f"{at['specificity']['share']:.2f}", f"{at['seconds']:.2f}", "–" if taken is None else f"{taken:.0f} s"),
    ]
    return f"| {' | '.join(parts)} |"


def _auroc(one: dict[str, Found], share: str) -> str:
    return f"{one[share]['auroc']:.3f}" if share in one else "–"


def _minus(at: Found, name: str) -> str:
    if name not in at["minus"]:
        return "–"
    return f"{at['minus'][name]['auroc']:+.3f} {_range(at['minus'][name]['interval'])}"


def _range(interval: Sequence[float]) -> str:
    return f"({interval[0]:.3f} to {interval[1]:.3f})"
