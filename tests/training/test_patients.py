"""Patients as bags: what labels must be like, and an example that shows all slides of a patient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from wsi_attention.config import Recipe
from wsi_attention.errors import InputError, SlideOpenError
from wsi_attention.protocols import TileSource
from wsi_attention.training.data import Example, Survey
from wsi_attention.training.labels import LabelRow, Split, several_labels, split_rows
from wsi_attention.training.patients import check_bags, check_scales, key_of, patient_examples, seen_of

BAGS = Recipe(bag="patient")
ROWS = tuple(LabelRow(f"s{n}", ("benign", "lesion")[n // 2 % 2], f"p{n // 2}") for n in range(8))


def split(rows: tuple[LabelRow, ...] = ROWS, held: str = "p3") -> Split:
    train = tuple(row for row in rows if row.patient != held)
    return Split(("benign", "lesion"), train, tuple(row for row in rows if row.patient == held))


def test_whole_patients_of_one_label_may_be_bags() -> None:
    check_bags(BAGS, split(), "labels.csv", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"s1": {"label": "lesion"}}, "labels.csv: patient p0 has the labels benign and lesion, and one bag has one"),
        ({"s6": {"patient": "p0", "label": "benign"}}, "patient p0 has slides that train and slides that validate"),
        ({f"s{n}": {"patient": f"s{n}"} for n in range(8)}, "needs a column patient"),
    ],
)
def test_what_cannot_be_a_bag_is_refused_where_bags_are_asked_for(change: dict[str, Any], message: str) -> None:
    rows = tuple(replace(row, **change.get(row.slide, {})) for row in ROWS)
    parts = Split(("benign", "lesion"), rows[:6], rows[6:])
    with pytest.raises(InputError, match=message):
        check_bags(BAGS, parts, "labels.csv", None)
    check_bags(Recipe(), parts, "labels.csv", None)


def test_features_of_files_are_no_bags_of_patients() -> None:
    with pytest.raises(InputError, match="--features were given"):
        check_bags(BAGS, split(), "labels.csv", "features/")


def test_slides_of_one_patient_have_one_scale() -> None:
    seen = {row.slide: {"mpp": "0.25" if row.slide == "s3" else "0.5"} for row in ROWS}
    found = Survey({row.slide: "f" for row in ROWS}, {}, seen)
    with pytest.raises(InputError, match=r"patient p1 has slides of 0.5 µm/px \(s2\) and 0.25 µm/px \(s3\)"):
        check_scales(ROWS, found, "labels.csv")
    check_scales(ROWS, found.without({"s3": "broken"}), "labels.csv")
    near = {name: {"mpp": "0.51" if name == "s3" else "0.5"} for name in seen}
    check_scales(ROWS, Survey(found.fingerprints, {}, near), "labels.csv")


def test_contradictions_and_patients_that_test_are_noted() -> None:
    rows = [replace(row, part="train" if row.slide < "s4" else "val") for row in ROWS]
    rows[1] = replace(rows[1], label="lesion")
    assert several_labels(rows) == {"p0": ("benign", "lesion")}
    notes = split_rows([*rows, LabelRow("t", "benign", "p2", part="test")], 0.2, 0, "labels.csv").notes
    assert notes[0].startswith("1 patients have slides with different labels (p0: benign, lesion)")
    assert notes[1].startswith("1 patients of the split test have other slides here")
    assert not split_rows(ROWS, 0.25, 0, "labels.csv").notes


def example(name: str, patient: str, source: TileSource, opened: list[str], broken: bool = False) -> Example:
    @contextmanager
    def opening() -> Iterator[TileSource]:
        if broken:
            raise SlideOpenError(f"{name}: gone")
        opened.append(name)
        yield source
        opened.remove(name)

    return Example(name, 1, f"print-{name}", opening, patient, {"mpp": "1"})


def test_an_example_shows_all_slides_of_a_patient_and_closes_them(canvas_source: Callable[..., TileSource]) -> None:
    images = [torch.full((1, 3, 40, width), value, dtype=torch.uint8) for width, value in ((48, 10), (32, 20))]
    sources, opened = [canvas_source(image) for image in images], list[str]()
    slides = [example(name, "p", source, opened) for name, source in zip("ba", sources, strict=True)]
    together, alone = patient_examples([*slides, example("c", "q", sources[0], opened)], 4.0, 2)
    assert (together.name, together.patient, alone.name) == ("p", "p", "q")
    assert (together.key, alone.key) == (key_of(["print-a", "print-b"]), "print-c")
    assert alone.seen == {"mpp": "1"} and set(together.seen) == {"mpp of slide 1", "mpp of slide 2"}
    with together.open() as source:
        assert opened == ["a", "b"]
        row = source.overview(4.0)[0, 0, 0].tolist()
        assert row[:8] == [20] * 8 and row[-12:] == [10] * 12 and set(row[8:-12]) == {255}
    assert opened == []


def test_a_slide_that_cannot_be_opened_drops_its_patient(canvas_source: Callable[..., TileSource]) -> None:
    source, opened = canvas_source(torch.zeros((1, 3, 40, 40), dtype=torch.uint8)), list[str]()
    (both,) = patient_examples([example("a", "p", source, opened), example("b", "p", source, opened, True)], 4.0, 1)
    with pytest.raises(SlideOpenError, match="b: gone"), both.open():
        pass


def test_other_slides_make_another_bag() -> None:
    keys = {key_of(prints) for prints in (["a"], ["b"], ["a", "b"], ["b", "a"], ["a", "b", "c"])}
    assert len(keys) == 5 and key_of(["a"]) == "a"
    assert seen_of([{"mpp": "1"}]) == {"mpp": "1"}
