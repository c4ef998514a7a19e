"""Budget curves of the needle benchmark: tiles read a slide against AUROC, and sensitivity at a validated threshold.

    python tests/benchmarks/needle.py curve [ROW ...] --work FOLDER [--variant matched] [--sets valid-0.01 test-0.01]

Each trained row is asked again with other numbers of tiles; what it takes for a call is chosen on the validation slides
with the same number. Rows that read all tiles, or none, are lines across. Draws an SVG and a PNG from the JSON that it
writes beside RESULTS.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import FIGURES, machine
from needle_measure import measured
from needle_report import Looks, figures, looks, threshold

if TYPE_CHECKING:
    from needle import Place

BUDGETS = (8, 16, 32, 48, 96, 192, 384)
ACROSS = ("exhaustive", "context", "colour")
"""Rows whose number of tiles cannot be chosen."""
AT = "0.01"
COLOURS = {
    "grow": "#c1272d",
    "ats": "#0b5fa5",
    "random": "#777777",
    "exhaustive": "#333333",
    "context": "#2e7d32",
    "colour": "#b8860b",
}
LABELS = {
    "exhaustive": "all tiles",
    "context": "all tiles, 3 × 3 context",
    "colour": "overview colour, no tile",
    "random": "random tiles",
}


def curve(place: Place, rows: Sequence[str], seeds: Sequence[int], kind: str) -> Path:
    """Ask every row with every budget, write figures/needle_curve_VARIANT_ENCODER.json, and draw it.

    Args:
        place: where things lie.
        rows: names of trained rows.
        seeds: of their trainings.
        kind: of the slides, "test" or "final".
    """
    lines = {row: _line(place, row, seeds, kind) for row in rows}
    name = f"needle_curve_{place.variant}_{place.encoder}"
    about = {"variant": place.variant, "encoder": place.encoder, "slides": f"{kind}-{AT}", "machine": machine()}
    path = FIGURES / f"{name}.json"
    path.write_text(json.dumps(about | {"rows": lines}, indent=1) + "\n", encoding="utf-8")
    draw(path, FIGURES.parent / name)
    return path


def _line(place: Place, row: str, seeds: Sequence[int], kind: str) -> list[dict[str, Any]]:
    """Figures of a row, one a budget; of rows across, a single one."""
    if row in ACROSS:
        seen = looks(place, row, f"{kind}-{AT}", seeds)
        return [] if seen is None else [figures(seen, {})]
    return [figures(_asked(place, row, seeds, kind, budget), {}) | {"budget": budget} for budget in BUDGETS]


def _asked(place: Place, row: str, seeds: Sequence[int], kind: str, budget: int) -> Looks:
    """What a row says with so many tiles; remembered beside its results."""
    found = [_both(place, row, seed, kind, budget) for seed in seeds]
    valid = [one[f"valid-{AT}"] for one in found]
    limits = [threshold(np.array(one["probability"]), np.array(one["label"]) == 1) for one in valid]
    sets = tuple(one[f"{kind}-{AT}"] for one in found)
    probability = np.array([one["probability"] for one in sets])
    return Looks(probability, np.array(sets[0]["label"]) == 1, sets, np.array(limits))


def _both(place: Place, row: str, seed: int, kind: str, budget: int) -> dict[str, Any]:
    from needle import looker_of

    path = place.result(row, seed).with_name(f"{row}-{seed}-{budget}.json")
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name in (f"valid-{AT}", f"{kind}-{AT}"):
        if name not in found:
            found[name] = measured(looker_of(place, row, seed, budget), place.slides(name), {})
            path.write_text(json.dumps(found))
    return found


def draw(figures_path: Path, out: Path) -> None:
    """Draw the curves in a figures file as OUT.svg and OUT.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.family": "DejaVu Sans", "svg.fonttype": "none", "svg.hashsalt": out.name})
    about = json.loads(figures_path.read_text(encoding="utf-8"))
    sheet, axes = pyplot.subplots(1, 2, figsize=(9.6, 4.0), layout="constrained")
    panels = (("auroc", "AUROC of the slide label"), ("sensitivity", "sensitivity at a validated threshold"))
    for axis, (key, title) in zip(axes, panels, strict=True):
        for row, points in about["rows"].items():
            _plot(axis, row, points, key)
        axis.set_xscale("log", base=2)
        axis.set_xticks(BUDGETS, [str(one) for one in BUDGETS])
        axis.set(xlabel="tiles read of about 1,900 a slide", title=title)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    sheet.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    for suffix in ("svg", "png"):
        sheet.savefig(out.with_suffix(f".{suffix}"), dpi=144, metadata={"Date": None} if suffix == "svg" else None)
    pyplot.close(sheet)


def _plot(axis: Any, row: str, points: Sequence[dict[str, Any]], key: str) -> None:
    values = [one["auroc"] if key == "auroc" else one[key]["share"] for one in points]
    colour, label = COLOURS.get(row, "#555555"), LABELS.get(row, row)
    if row in ACROSS:
        for value in values:
            axis.axhline(value, color=colour, linestyle="--", linewidth=1.2, label=label)
        return
    ends = np.array([one["auroc_interval"] if key == "auroc" else one[key]["interval"] for one in points])
    tiles = [one["tiles"] for one in points]
    axis.fill_between(tiles, ends[:, 0], ends[:, 1], color=colour, alpha=0.12, linewidth=0)
    axis.plot(tiles, values, color=colour, marker="o", markersize=4, label=label)
