"""The learning curve as a drawing."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from wsi_attention.statistics.figures import Figure
from wsi_attention.training.curve import CURVE, HEIGHT, LEFT, TOP, WIDTH, curve_svg, write_curve
from wsi_attention.training.state import EpochRecord


def record(epoch: int, train: float, val: float, auroc: float, figures: tuple[Figure, ...] = ()) -> EpochRecord:
    return EpochRecord(epoch, 1e-3, train, val, auroc, 0.5, 0.5, 4, 0, figures=figures)


def paths(svg: str, kind: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [one.attrib["d"] for one in root.iter("{http://www.w3.org/2000/svg}path") if one.attrib["class"] == kind]


def test_lines_lie_where_the_numbers_are_and_the_best_epoch_is_marked(tmp_path: Path) -> None:
    history = (record(1, 1.0, 0.9, 0.5), record(2, 0.6, 0.8, math.nan), record(3, 0.2, 0.85, 0.7))
    write_curve(tmp_path, history, best=3)
    svg = (tmp_path / CURVE).read_text(encoding="utf-8")
    training, validation, judged = paths(svg, "line")
    low, high = 0.2 - 0.04, 1.0 + 0.04
    expected = [(LEFT + WIDTH * n / 2, TOP + HEIGHT * (high - y) / (high - low)) for n, y in enumerate((1.0, 0.6, 0.2))]
    found = [float(number) for number in re.findall(r"[\d.]+", training)]
    assert found == pytest.approx([part for point in expected for part in point], abs=0.06)
    assert validation.count("L") == 2
    assert judged.count("M") == 2 and "L" not in judged  # no line leads over an epoch without a value
    assert [one.split(",")[0] for one in paths(svg, "best")] == [f"M{LEFT + WIDTH:.1f}"] * 2


def test_one_epoch_and_another_target() -> None:
    figures = (Figure("C <index>", 0.6, (0.5, 0.7)),)
    svg = curve_svg([record(1, 0.5, 0.5, math.nan, figures)], best=1)
    assert "C &lt;index&gt;" in svg and "nan" not in svg
    assert "nan" not in curve_svg([record(1, math.nan, math.nan, math.nan)], best=1)


def test_the_axis_of_an_auroc_ends_at_one_and_that_of_a_larger_figure_above_it() -> None:
    def highest(*values: float) -> float:
        svg = curve_svg([record(n, 0.5, 2.5, value) for n, value in enumerate(values, start=1)], best=1)
        lower = svg[svg.index("best: epoch") :]
        return max(float(number) for number in re.findall(r'text-anchor="end">([-\d.]+)</text>', lower))

    assert highest(0.7, 1.0) == highest(1.0) == 1
    assert highest(0.5, 0.6) == pytest.approx(0.605)
    assert highest(1.0, 3.0) == pytest.approx(3.1)
