"""A patient's row: the mean of the slides, what is missing is said, and the slide that decides is the one that does."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from wsi_attention.export.measures import deciding
from wsi_attention.export.patients import Meaning, SlideLine, deciding_figures, of_classes, patient_columns, patient_row
from wsi_attention.structures import DEMONSTRATION, purpose_warning
from wsi_attention.testing.exporters import example_prediction

CLASSES = ("benign", "lesion", "other")
MEANING = of_classes(CLASSES)


def slide(name: str, shares: tuple[float, ...], status: str = "done", reason: str = "", **more: str) -> SlideLine:
    label = CLASSES[int(np.argmax(shares))]
    probabilities = {f"prob_{one}": f"{share:.6f}" for one, share in zip(CLASSES, shares, strict=True)}
    return SlideLine(name, status, reason, {"label": label, **probabilities, **more})


def test_the_mean_decides_and_the_slide_that_speaks_most_for_it_is_named() -> None:
    slides = [
        slide("a", (0.55, 0.40, 0.05), deciding_tiles="0 0 8 8"),
        slide("b", (0.10, 0.85, 0.05), deciding_tiles="16 8 8 8; 0 8 8 8"),
        slide("c", (0.50, 0.45, 0.05)),
    ]
    row = patient_row("p", slides, MEANING)
    assert (row["label"], row["status"], row["reason"]) == ("lesion", "done", "")
    assert [float(row[f"prob_{one}"]) for one in CLASSES] == pytest.approx([0.383333, 0.566667, 0.05], abs=1e-6)
    assert (row["deciding_slide"], row["deciding_tiles"]) == ("b", "16 8 8 8; 0 8 8 8")
    assert (row["slides_used"], row["slides"]) == ("3", "3")
    assert set(row) <= set(patient_columns(MEANING))


def test_the_mean_scores_no_worse_than_its_slides_do_on_average() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        shares = random.dirichlet(np.ones(3), 4)
        row = patient_row("p", [slide(f"s{n}", tuple(one)) for n, one in enumerate(shares.tolist())], MEANING)
        for truth, name in enumerate(CLASSES):
            assert -np.log(float(row[f"prob_{name}"])) <= -np.log(shares[:, truth]).mean() + 1e-4


def test_in_one_bag_the_slide_with_most_of_the_weight_decides() -> None:
    slides = [slide(name, (0.2, 0.8, 0.0), bag_share=share) for name, share in (("a", "0.3"), ("b", "0.7"))]
    assert patient_row("p", slides, MEANING)["deciding_slide"] == "b"


@pytest.mark.parametrize(
    ("sets", "among", "label"),
    [
        (["lesion"], "lesion", "lesion"),
        (["benign|lesion"], "benign|lesion", "undecided"),
        (["{}"], "{}", "undecided"),
        (["lesion", "benign|lesion"], "lesion", "lesion"),
        (["lesion", "benign"], "{}", "undecided"),
        (["benign", "benign", "lesion"], "benign", "undecided"),  # another class than the most probable one
        (["lesion", ""], "", "lesion"),  # a slide of a model without sets
    ],
)
def test_a_label_is_withheld_where_the_sets_of_most_slides_do(sets: list[str], among: str, label: str) -> None:
    row = patient_row("p", [slide(f"s{n}", (0.3, 0.7, 0.0), set=one) for n, one in enumerate(sets)], MEANING)
    assert (row["set"], row["label"], row["prob_lesion"]) == (among, label, "0.700000")


def test_the_set_of_most_slides_lacks_the_right_class_in_at_most_twice_alpha() -> None:
    random, alpha, missed = np.random.default_rng(0), 0.1, 0
    for _ in range(2000):  # each slide's set lacks "lesion" in 10 %, together for some patients
        shared = random.random() < 0.05
        sets = ["benign" if shared or random.random() < (alpha - 0.05) / 0.95 else "lesion" for _ in range(3)]
        row = patient_row("p", [slide(f"s{n}", (0.3, 0.7, 0.0), set=one) for n, one in enumerate(sets)], MEANING)
        missed += "lesion" not in row["set"]
    assert 0.03 < missed / 2000 <= 2 * alpha


@pytest.mark.parametrize(
    ("others", "status", "reason"),
    [
        ([SlideLine("b", "failed", "truncated")], "partial", "b failed: truncated"),
        ([SlideLine("b", "no_tissue", "no tissue found")], "partial", "b has no tissue"),
        ([SlideLine("b")], "partial", "b is not done yet"),
        ([slide("b", (0.2, 0.8, 0.0), "partial", "1 tile gone")], "partial", "b is partial: 1 tile gone"),
        ([SlideLine("b"), SlideLine("c", "failed", "x")], "partial", "b is not done yet; c failed: x"),
    ],
)
def test_what_is_missing_is_said(others: list[SlideLine], status: str, reason: str) -> None:
    row = patient_row("p", [slide("a", (0.2, 0.8, 0.0)), *others], MEANING)
    assert (row["status"], row["reason"], row["label"]) == (status, reason, "lesion")
    assert (row["slides_used"], row["slides"]) == (str(1 + sum(one.used for one in others)), str(1 + len(others)))


@pytest.mark.parametrize(("statuses", "status"), [(("failed",), "failed"), (("no_tissue",) * 2, "no_tissue")])
def test_without_any_label_there_is_none(statuses: tuple[str, ...], status: str) -> None:
    row = patient_row("p", [SlideLine(f"s{n}", one, "why") for n, one in enumerate(statuses)], MEANING)
    assert row["status"] == status and "label" not in row and row["slides_used"] == "0"


def test_numbers_that_are_no_classes_have_a_mean_and_no_slide_that_decides() -> None:
    meaning = Meaning(
        ("value_size", "twice"), ("value_size",), (), lambda mean: (f"{mean[0]:g} mm", {"twice": 2 * mean[0]})
    )
    slides = [SlideLine(f"s{n}", "done", "", {"label": "x", "value_size": text}) for n, text in enumerate(("3", "6"))]
    row = patient_row("p", slides, meaning)
    assert (row["label"], row["twice"], row["deciding_slide"]) == ("4.5 mm", "9.000000", "")
    assert patient_row("p", slides[:1], meaning)["deciding_slide"] == "s0"
    shared = [
        SlideLine(one.name, "done", "", {**(one.row or {}), "bag_share": f"0.{n}"}) for n, one in enumerate(slides)
    ]
    assert patient_row("p", shared, meaning)["deciding_slide"] == "s1"


def test_a_demonstration_says_so_here_too() -> None:
    warning = purpose_warning(DEMONSTRATION)
    row = patient_row("p", [slide("a", (0.2, 0.8, 0.0), notes=f"{warning}; more")], MEANING)
    assert row["notes"] == warning


def test_the_tiles_that_decide_are_the_heaviest() -> None:
    prediction = replace(example_prediction(0), patient="p")
    glimpse = deciding(prediction)
    assert glimpse is not None
    total: Counter[tuple[int, ...]] = Counter()  # a tile that is drawn twice counts twice
    for place, weight, valid in zip(glimpse.tiles.locations[0].tolist(), glimpse.weights, glimpse.valid, strict=True):
        total[tuple(place)] += float(weight) if valid else 0.0
    boxes = [tuple(map(int, box.split())) for box in deciding_figures(prediction)["deciding_tiles"].split("; ")]
    assert [box[:2] for box in boxes] == [(max(x, 0), max(y, 0)) for (x, y), _ in total.most_common(5)]
    assert boxes[0][2:] == glimpse.tiles.footprint  # what lies beyond the border is cut off
    assert deciding_figures(replace(prediction, patient="")) == {}
