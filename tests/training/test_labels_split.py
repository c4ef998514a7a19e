"""Patients never straddle the split, every class is on both sides where that can be, and the seed decides."""

from __future__ import annotations

import random

import pytest

from wsi_attention.errors import InputError
from wsi_attention.training.labels import LabelRow, class_weights, split_rows


def cohort(counts: dict[str, int], slides_a_patient: int = 1) -> list[LabelRow]:
    rows = []
    for label, count in counts.items():
        rows += [LabelRow(f"{label}{i}", label, f"{label}-p{i // slides_a_patient}") for i in range(count)]
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_a_fifth_of_each_class_validates_and_patients_stay_whole(seed: int) -> None:
    split = split_rows(cohort({"normal": 60, "tumour": 20}, slides_a_patient=2), 0.2, seed, "labels.csv")
    counts = {label: sum(row.label == label for row in split.validation) for label in split.classes}
    assert counts == {"normal": 12, "tumour": 4}
    assert not {row.patient for row in split.train} & {row.patient for row in split.validation}
    assert len(split.train) + len(split.validation) == 80
    assert split.notes == ()


def test_the_seed_decides_and_the_order_of_rows_does_not() -> None:
    rows = cohort({"a": 20, "b": 20})
    first = split_rows(rows, 0.2, 1, "l")
    random.Random(0).shuffle(rows)
    assert split_rows(rows, 0.2, 1, "l") == first
    assert split_rows(rows, 0.2, 2, "l").validation != first.validation


@pytest.mark.parametrize("seed", range(5))
def test_a_patient_with_very_many_slides_trains(seed: int) -> None:
    """One patient has two thirds of the class: whoever is drawn first, validation gets a fifth."""
    rows = [*cohort({"a": 90}), *cohort({"b": 60}, slides_a_patient=60)]
    rows += [LabelRow(f"other{i}", "b", f"b-q{i}") for i in range(30)]
    split = split_rows(rows, 0.2, seed, "l")
    assert {label: sum(row.label == label for row in split.validation) for label in "ab"} == {"a": 18, "b": 18}


@pytest.mark.parametrize("seed", range(5))
def test_where_no_patient_fits_the_smallest_is_taken(seed: int) -> None:
    rows = [*cohort({"a": 20}), *(LabelRow(f"b{i}", "b", "large" if i < 6 else "small") for i in range(10))]
    held = {row.patient for row in split_rows(rows, 0.2, seed, "l").validation if row.label == "b"}
    assert held == {"small"}


@pytest.mark.parametrize("seed", range(5))
def test_two_slides_a_class_are_enough(seed: int) -> None:
    split = split_rows(cohort({"a": 2, "b": 2}), 0.2, seed, "l")
    assert {row.label for row in split.train} == {row.label for row in split.validation} == {"a", "b"}


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_one_patient_trains_and_is_noted(seed: int) -> None:
    rows = [*cohort({"a": 10}), *cohort({"b": 2}, slides_a_patient=2)]
    split = split_rows(rows, 0.2, seed, "l")
    assert "b" not in {row.label for row in split.validation}
    assert split.notes[0] == "no validation slide has the label b: there is no AUROC, the loss decides"


@pytest.mark.parametrize("seed", range(5))
def test_patients_with_several_labels(seed: int) -> None:
    rows = [LabelRow(f"s{i}-{label}", label, f"p{i}") for i in range(10) for label in "ab"]
    split = split_rows(rows, 0.2, seed, "l")
    assert len(split.validation) == 4
    assert not {row.patient for row in split.train} & {row.patient for row in split.validation}


def test_a_given_split_is_followed_and_test_slides_are_left_alone() -> None:
    parts = ["train", "val", "test", "train", "val", "train"]
    rows = [LabelRow(f"s{i}", "ab"[i % 2], "p", part=part) for i, part in enumerate(parts)]
    split = split_rows(rows, 0.2, 0, "l")
    assert [row.slide for row in split.validation] == ["s1", "s4"]
    assert [row.slide for row in split.train] == ["s0", "s3", "s5"]
    assert "1 patients have slides in both parts" in split.notes[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (cohort({"a": 5}), "two classes or more; found only 'a'"),
        (cohort({"a": 5, "b": 1}), "class 'b' has one slide"),
        ([LabelRow(f"s{i}", "ab"[i % 2], "p") for i in range(4)], "no slides are left for validation"),
        ([LabelRow(f"s{i}", "ab"[i % 2], "p", part="val") for i in range(4)], "no slides are left for training"),
        ([LabelRow(f"s{i}", "ab"[i // 2], "p", part=["train", "val"][i // 2]) for i in range(4)], "has the label 'b'"),
    ],
)
def test_what_cannot_be_split(rows: list[LabelRow], message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_rows(rows, 0.2, 0, "labels.csv")


def test_numbers_sort_by_value() -> None:
    assert split_rows(cohort({"10": 2, "9": 2}), 0.2, 0, "l").classes == ("9", "10")


def test_class_weights_balance_and_average_to_one() -> None:
    weights = class_weights([0, 0, 0, 1], 2)
    assert weights == (4 / 6, 2.0)
    assert class_weights([0, 0, 2, 2], 3) == (1.0, 0.0, 1.0)
