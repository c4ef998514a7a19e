"""Plots of an evaluation as values: lines, marks and bars in the numbers of their axes; a template draws them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_attention.evaluation.figures import ClassFigures
from wsi_attention.evaluation.operating import OperatingPoint
from wsi_attention.safe_names import safe_name
from wsi_attention.statistics.reliability import Bin

if TYPE_CHECKING:
    from wsi_attention.evaluation.evaluation import Evaluation

LEFT, TOP, WIDTH, HEIGHT = 56.0, 14.0, 350.0, 290.0
"""Where the inside of the axes lies, in the units of the drawing."""
MOST = 8
"""Classes that have plots of their own, and lines in one plot; there are as many colours."""
UNIT = (0.0, 1.0)


@dataclass(frozen=True)
class Line:
    """A curve, or a line to compare with.

    Attributes:
        name: in the legend; empty where it has no place there.
        kind: its class in the style sheet.
        points: (x, y).
    """

    name: str
    kind: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Mark:
    """A point with its intervals.

    Attributes:
        x: its place.
        y: its place.
        kind: its class in the style sheet.
        title: what a pointer on it shows.
        across: the interval of x; None where there is none.
        along: the interval of y; None where there is none.
    """

    x: float
    y: float
    kind: str
    title: str
    across: tuple[float, float] | None = None
    along: tuple[float, float] | None = None


@dataclass(frozen=True)
class Bar:
    """A bar at the foot of the axes: how many slides lie there; `share` is its height, 0 to 1 of its strip."""

    low: float
    high: float
    share: float
    title: str


@dataclass(frozen=True)
class Plot:
    """A plot.

    Attributes:
        name: of its file, without suffix.
        title: above it.
        caption: what it rests on; n stands there.
        x: name of the axis.
        y: name of the axis.
        lines: drawn in this order.
        marks: on top of them.
        bars: at the foot.
        x_range: ends of the axis.
        y_range: ends of the axis.
    """

    name: str
    title: str
    caption: str
    x: str
    y: str
    lines: tuple[Line, ...] = ()
    marks: tuple[Mark, ...] = ()
    bars: tuple[Bar, ...] = ()
    x_range: tuple[float, float] = UNIT
    y_range: tuple[float, float] = UNIT

    @property
    def legend(self) -> list[Line]:
        """The lines that have a name."""
        return [line for line in self.lines if line.name]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the drawing."""
        return LEFT + WIDTH + 16, TOP + HEIGHT + 54 + 18 * len(self.legend)

    def px(self, x: float) -> float:
        """Return the place of x in the drawing."""
        low, high = self.x_range
        return round(LEFT + WIDTH * (min(max(x, low), high) - low) / (high - low), 2)

    def py(self, y: float) -> float:
        """Return the place of y in the drawing."""
        low, high = self.y_range
        return round(TOP + HEIGHT * (high - min(max(y, low), high)) / (high - low), 2)

    def path(self, line: Line) -> str:
        """Return a line as the path of an SVG; points on the way that change nothing are left out."""
        places = [(self.px(x), self.py(y)) for x, y in line.points]
        kept = places[:1]
        for here, after in pairwise(places[1:]):
            if not _on_the_way(kept[-1], here, after):
                kept.append(here)
        kept += places[1:][-1:]
        return "M" + " ".join(f"{x:g},{y:g}" for x, y in kept)

    @property
    def x_ticks(self) -> list[float]:
        """Round numbers along the axis."""
        return _ticks(*self.x_range)

    @property
    def y_ticks(self) -> list[float]:
        """Round numbers along the axis."""
        return _ticks(*self.y_range)


def plots(found: Evaluation) -> list[Plot]:
    """Return the plots of an evaluation; of many classes, those of the first `MOST`."""
    positive = found.positive
    shown = [one for one in found.figures if positive in (None, one.name)][:MOST]
    drawn = [_roc(found, shown), _precision_recall(found, shown)]
    if positive is None and found.calibration is not None:
        drawn.append(_reliability("the label", found.calibration.bins, found, "reliability", found.calibration.ece))
    for one, own in zip(shown, _file_names([one.name for one in shown]), strict=True):
        end = "" if positive else f"_{own}"
        drawn.append(_reliability(one.name, one.bins, found, f"reliability{end}", one.ece))
        drawn.append(_decision(found, one, f"decision_curve{end}"))
    return drawn


def _file_names(classes: Sequence[str]) -> list[str]:
    """Return a part of a file name for each class: the class, or its number where two would have the same."""
    names = [safe_name(name.replace("/", "_")) for name in classes]
    clear = len({name.casefold() for name in names}) == len(names)
    return names if clear else [str(number) for number in range(1, len(names) + 1)]


def counted(found: Evaluation, slides: int | None = None, patients: int | None = None) -> str:
    """Return how many slides and patients a figure rests on, in words."""
    n, m = found.scores.n if slides is None else slides, found.scores.patients if patients is None else patients
    return f"n = {n} slides of {m} patients" if found.of_patients else f"n = {n} {found.unit}"


def interval_text(ends: tuple[float, float]) -> str:
    """Return an interval as people read it; empty where there is none."""
    return f"{ends[0]:.3f} to {ends[1]:.3f}" if np.isfinite(ends).all() else ""


def _roc(found: Evaluation, shown: Sequence[ClassFigures]) -> Plot:
    lines = [Line("", "reference", ((0.0, 0.0), (1.0, 1.0)))]
    for number, one in enumerate(shown):
        if one.roc is not None:
            text = f"{shortened(one.name)}: AUROC {one.auroc:.3f} ({interval_text(one.auroc_interval)})"
            lines.append(Line(text, f"curve c{number}", _pairs(one.roc.false_alarms, one.roc.sensitivity)))
    other = found.comparison
    if other is not None and other.roc is not None:
        text = f"{shortened(other.other)}: AUROC {other.auroc.second:.3f}, {other.slides} {found.unit}"
        lines.append(Line(text, "curve other c1", _pairs(other.roc.false_alarms, other.roc.sensitivity)))
    names = [one.name for one in shown]
    drawn = [point for point in found.points if point.name in names and _has_both_sides(point)]
    marks = [_operating(point, names.index(point.name)) for point in drawn]
    return Plot(
        "roc",
        "ROC curve",
        f"{counted(found)}; {_sides(found, shown)}. Crosses: operating points with 95 % intervals.",
        "false alarms (1 - specificity)",
        "sensitivity",
        tuple(lines),
        tuple(marks),
    )


def _has_both_sides(point: OperatingPoint) -> bool:
    return point.found.sensitivity.slides > 0 and point.found.specificity.slides > 0


def _operating(point: OperatingPoint, number: int) -> Mark:
    at = point.found
    low, high = at.specificity.interval
    return Mark(
        1 - at.specificity.value,
        at.sensitivity.value,
        f"c{number}",
        f"{point.name} at {at.threshold:.3g}: sensitivity {at.sensitivity.value:.3f}, "
        f"specificity {at.specificity.value:.3f}",
        (1 - high, 1 - low),
        at.sensitivity.interval,
    )


def _precision_recall(found: Evaluation, shown: Sequence[ClassFigures]) -> Plot:
    lines = []
    for number, one in enumerate(shown):
        if one.precision_recall is not None:
            share = one.slides / found.scores.n
            ends = interval_text(one.average_precision_interval)
            text = f"{shortened(one.name)}: AP {one.average_precision:.3f} ({ends})"
            curve = one.precision_recall
            if len(shown) == 1:
                lines.append(Line("", "reference", ((0.0, share), (1.0, share))))
            lines.append(Line(text, f"curve c{number}", _stairs(curve.recall, curve.precision)))
    told = " The dashed line is the share of the class: a model at chance." if len(shown) == 1 else ""
    return Plot(
        "precision_recall",
        "Precision and recall",
        f"{counted(found)}; {_sides(found, shown)}.{told}",
        "recall (sensitivity)",
        "precision (PPV)",
        tuple(lines),
    )


def _reliability(of: str, bins: Sequence[Bin], found: Evaluation, name: str, ece: float) -> Plot:
    most = max((one.slides for one in bins), default=1)
    marks = [
        Mark(
            one.probability,
            one.share,
            "c0",
            f"{one.share:.3f} of {one.slides} {found.unit} ({interval_text(one.interval)})",
            along=one.interval,
        )
        for one in bins
    ]
    bars = [Bar(one.low, one.high, one.slides / most, f"{one.slides} {found.unit}") for one in bins]
    points = tuple((one.probability, one.share) for one in bins)
    return Plot(
        name,
        f"Reliability: {of}",
        f"{counted(found)}. Bars: {found.unit} in each bin, {most} in the fullest; lines: 95 % intervals.",
        f"mean probability of {shortened(of)}",
        "share that came true",
        (Line("", "reference", ((0.0, 0.0), (1.0, 1.0))), Line(f"ECE {ece:.3f}, {len(bins)} bins", "curve c0", points)),
        tuple(marks),
        tuple(bars),
    )


def _decision(found: Evaluation, one: ClassFigures, name: str) -> Plot:
    share, curve = one.slides / found.scores.n, one.net_benefit
    top = max(share, 0.05) * 1.08
    low = -0.15 * top
    treated = [(x, y) for x, y in _pairs(curve.thresholds, curve.all) if y >= low]
    return Plot(
        name,
        f"Decision curve: {one.name}",
        f"{counted(found)}, {one.slides} {one.name}. The best line at the threshold that one would choose wins.",
        "threshold probability",
        "net benefit",
        (
            Line("treat nobody", "reference none", ((0.0, 0.0), (1.0, 0.0))),
            Line("treat everybody", "reference all", tuple(treated)),
            Line("treat as the model says", "curve c0", _pairs(curve.thresholds, np.maximum(curve.model, low))),
        ),
        y_range=(low, top),
    )


def _sides(found: Evaluation, shown: Sequence[ClassFigures]) -> str:
    if found.positive is not None:
        one = shown[0]
        other = next(name for name in found.classes if name != one.name)
        return f"{one.slides} {one.name} against {found.scores.n - one.slides} {other}"
    return "each class against the rest: " + ", ".join(f"{one.slides} {one.name}" for one in shown)


def _pairs(x: Iterable[float], y: Iterable[float]) -> tuple[tuple[float, float], ...]:
    return tuple((float(a), float(b)) for a, b in zip(x, y, strict=True))


def _stairs(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """Return the curve as the average precision sums it: the precision of a point holds back to the recall before."""
    drawn: list[tuple[float, float]] = []
    before = 0.0
    for x, y in _pairs(recall, precision)[::-1][1:]:
        drawn += [(before, y), (x, y)]
        before = x
    return tuple(drawn)


def _on_the_way(before: tuple[float, float], here: tuple[float, float], after: tuple[float, float]) -> bool:
    """Return True where a point lies on the straight line between two others, or where the one before it lies."""
    (ax, ay), (bx, by), (cx, cy) = before, here, after
    straight = abs((bx - ax) * (cy - ay) - (by - ay) * (cx - ax)) < 1e-6
    between = min(ax, cx) <= bx <= max(ax, cx) and min(ay, cy) <= by <= max(ay, cy)
    return here == before or (straight and between)


def shortened(name: str, most: int = 18) -> str:
    """Return a name that has room in a legend."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _ticks(low: float, high: float) -> list[float]:
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if (high - low) / step <= 6.5)
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return [round(number * step, 10) for number in range(first, last + 1)]
