"""evaluation.html: one page that opens anywhere, without a network and without a script, and its plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from wsi_attention.evaluation.plots import MOST, Plot, counted, interval_text
from wsi_attention.export.templating import environment, template_text
from wsi_attention.statistics.intervals import METHODS

if TYPE_CHECKING:
    from jinja2 import Environment

    from wsi_attention.evaluation.evaluation import Evaluation

PACKAGE = "wsi_attention.evaluation"


@dataclass(frozen=True)
class Figure:
    """A row of the first table: a figure, its interval, and what it rests on."""

    name: str
    value: float
    interval: tuple[float, float]
    rests_on: str


def page(found: Evaluation, plots: Sequence[Plot]) -> str:
    """Return the page.

    Args:
        found: what it shows.
        plots: those of `plots.plots`.
    """
    from markupsafe import Markup

    import wsi_attention

    shown = min(len(found.figures), MOST)
    return (
        _environment()
        .get_template("evaluation.html.j2")
        .render(
            found=found,
            scores=found.scores,
            figures=_figures(found),
            counted=counted(found),
            drawings=[(plot, Markup(_drawn(plot, alone=False))) for plot in plots],
            left_out=[one.name for one in found.figures[shown:]] if found.positive is None else [],
            groups=_by_column(found),
            methods=METHODS,
            version=wsi_attention.__version__,
            style=Markup(template_text("report.css") + template_text("plot.css", PACKAGE)),
            own_style=Markup(template_text("evaluation.css", PACKAGE)),
        )
    )


def drawing(plot: Plot) -> str:
    """Return a plot as an SVG file that needs nothing else."""
    return _drawn(plot, alone=True)


def _drawn(plot: Plot, alone: bool) -> str:
    from markupsafe import Markup

    style = Markup(template_text("plot.css", PACKAGE))
    return _environment().get_template("plot.svg.j2").render(plot=plot, alone=alone, style=style).strip() + "\n"


@cache
def _environment() -> Environment:
    found = environment(PACKAGE)
    found.filters |= {"interval": interval_text, "figure": _figure, "zip": zip}
    return found


def _figure(value: float, places: int = 3) -> str:
    return f"{value:.{places}f}" if math.isfinite(value) else "–"


def _figures(found: Evaluation) -> list[Figure]:
    """Return the figures that are read first."""
    scores, whole = found.scores, counted(found)
    right = sum(one.right for one in scores.recalls)
    rows = [
        Figure("AUROC", scores.auroc, scores.auroc_interval, whole),
        Figure("Accuracy", scores.accuracy, scores.accuracy_interval, f"{right} of {whole.removeprefix('n = ')}"),
    ]
    words = {found.positive: "sensitivity", found.negative: "specificity"} if found.positive else {}
    for name, one in zip(found.classes, scores.recalls, strict=True):
        if one.slides:
            on = f"{one.right} of {counted(found, one.slides, one.patients).removeprefix('n = ')}"
            told = f"{name} called right" + (f" ({words[name]})" if name in words else "")
            rows.append(Figure(told, one.right / one.slides, one.interval, on))
    rows.append(Figure("F1, mean over classes", scores.f1, scores.f1_interval, whole))
    for figures in found.figures:
        if figures.name == found.positive:
            on = f"{counted(found)}, {figures.slides} {figures.name}"
            average = figures.average_precision, figures.average_precision_interval
            rows.append(Figure("Average precision", *average, on))
            rows.append(Figure("Brier score", figures.brier.score, figures.brier.interval, on))
            rows.append(Figure("Expected calibration error", figures.ece, (math.nan, math.nan), on))
    if found.positive is None and found.calibration is not None:
        rows.append(Figure("Brier score, 0 to 2", found.calibration.brier, (math.nan, math.nan), whole))
        rows.append(Figure("Expected calibration error", found.calibration.ece, (math.nan, math.nan), whole))
    return rows


def _by_column(found: Evaluation) -> dict[str, list[object]]:
    columns: dict[str, list[object]] = {}
    for group in found.groups:
        columns.setdefault(group.column, []).append(group)
    return columns
