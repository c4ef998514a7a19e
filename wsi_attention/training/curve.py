"""The learning curve of a training as an SVG: losses, and what tells the best epoch, over the epochs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from wsi_attention.files import write_text
from wsi_attention.training.state import EpochRecord

CURVE = "learning_curve.svg"
WIDTH, HEIGHT, LEFT, TOP, GAP = 560.0, 190.0, 58.0, 30.0, 62.0
"""Inside of one panel, its margins, and the space between the two."""
COLOURS = ("#176f76", "#b3261e")
"""Of training and validation, as in the plots of an evaluation."""
STYLE = """text { font: 12px system-ui, sans-serif; fill: #5d6672 } .title { font-size: 13px; fill: #1c2026 }
.line { fill: none; stroke-width: 2 } .grid { stroke: #dde1e7 } .best { stroke: #5d6672; stroke-dasharray: 5 4 }"""

Curve = tuple[str, str, Sequence[float]]
"""Name, colour, and a value an epoch; NaN where there is none."""


def write_curve(folder: Path, history: Sequence[EpochRecord], best: int) -> None:
    """Write learning_curve.svg anew.

    Args:
        folder: where to.
        history: one record an epoch, at least one.
        best: the epoch whose weights are kept, from 1.
    """
    write_text(folder / CURVE, curve_svg(history, best))


def curve_svg(history: Sequence[EpochRecord], best: int) -> str:
    """Return the drawing: losses above, below them the validation figure that tells the best epoch, marked in both."""
    losses: list[Curve] = [
        ("training", COLOURS[0], [one.train_loss for one in history]),
        ("validation", COLOURS[1], [one.val_loss for one in history]),
    ]
    name = history[-1].figures[0].name if history[-1].figures else "AUROC"
    judged: list[Curve] = [(f"validation {name}", COLOURS[1], [one.merit for one in history])]
    epochs = [one.epoch for one in history]
    size = LEFT + WIDTH + 16, 2 * (TOP + HEIGHT) + GAP + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]:g} {size[1]:g}" role="img">',
        f"<title>Learning curve, {len(history)} epochs, best {best}</title><style>{STYLE}</style>",
        f'<rect width="{size[0]:g}" height="{size[1]:g}" fill="#fff"/>',
        *_panel("loss", TOP, losses, epochs, best),
        *_panel(f"{name} (best: epoch {best})", TOP + HEIGHT + GAP, judged, epochs, best, most=1.0),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _panel(
    title: str, top: float, curves: Sequence[Curve], epochs: Sequence[int], best: int, most: float = math.inf
) -> Iterator[str]:
    values = [value for _, _, curve in curves for value in curve if math.isfinite(value)]
    low, high = _range(values, most)
    last = max(epochs[-1], epochs[0] + 1)

    def x(epoch: float) -> float:
        return LEFT + WIDTH * (epoch - epochs[0]) / (last - epochs[0])

    def y(value: float) -> float:
        return top + HEIGHT * (high - value) / (high - low)

    yield f'<text class="title" x="{LEFT:g}" y="{top - 10:g}">{escape(title)}</text>'
    for step in range(5):
        value = low + (high - low) * step / 4
        yield f'<path class="grid" d="M{LEFT:g},{y(value):.1f}h{WIDTH:g}"/>'
        yield f'<text x="{LEFT - 7:g}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
    for epoch in _ticks(epochs[0], last):
        yield f'<text x="{x(epoch):.1f}" y="{top + HEIGHT + 17:g}" text-anchor="middle">{epoch}</text>'
    yield f'<path class="best" d="M{x(best):.1f},{top:g}v{HEIGHT:g}"/>'
    for number, (name, colour, curve) in enumerate(curves):
        yield from _drawn([(x(epoch), y(value)) for epoch, value in zip(epochs, curve, strict=True)], colour)
        place = LEFT + WIDTH - 90 * (len(curves) - number - 1)
        yield f'<text x="{place:g}" y="{top - 10:g}" text-anchor="end" style="fill:{colour}">{escape(name)}</text>'


def _drawn(points: Sequence[tuple[float, float]], colour: str) -> Iterator[str]:
    """Yield a line through the points, with a gap where there is no value, and a dot on each where they are few."""
    pen, path = "M", []
    for x, y in points:
        if math.isfinite(y):
            path.append(f"{pen}{x:.1f},{y:.1f}")
        pen = "L" if math.isfinite(y) else "M"
    yield f'<path class="line" stroke="{colour}" d="{"".join(path)}"/>' if path else ""
    if len(points) <= 40:
        for x, y in points:
            if math.isfinite(y):
                yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>'


def _range(values: Sequence[float], most: float) -> tuple[float, float]:
    """Return the ends of the axis; some height also where all values are equal, or where there is none.

    It does not go beyond `most`, such as the 1 of an AUROC, unless a value does.
    """
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    room = (high - low) * 0.05 or 0.05 * max(abs(high), 1.0)
    return low - room, high + room if high > most else min(high + room, most)


def _ticks(first: int, last: int) -> list[int]:
    step = max(1, math.ceil((last - first) / 10))
    return list(range(first, last + 1, step))
