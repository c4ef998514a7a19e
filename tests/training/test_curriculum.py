"""Easy slides first: who takes part when, what the labels must say, and a killed run that ends with the same bytes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from wsi_attention import train
from wsi_attention.config import Curriculum, Optimiser, Recipe, parse_recipe
from wsi_attention.errors import InputError
from wsi_attention.training import run
from wsi_attention.training.curriculum import Lessons
from wsi_attention.training.data import Example
from wsi_attention.training.labels import read_labels
from wsi_attention.training.listener import Silent
from wsi_attention.training.loop import Job, finished
from wsi_attention.training.state import EpochRecord, TrainingState

LARGEST = Curriculum(column="size", start=0.25, full=0.5)


def examples(labels: Sequence[int]) -> tuple[Example, ...]:
    return tuple(Example(f"s{i}", label, f"k{i}", lambda: nullcontext()) for i, label in enumerate(labels))  # type: ignore[arg-type,return-value]


def names(lessons: Lessons, images: Sequence[Example], epoch: int, epochs: int = 10) -> list[str]:
    return [one.name for one in lessons.of_epoch(images, epoch, epochs)]


def test_shares_rise_evenly_to_all_slides() -> None:
    assert [LARGEST.share(epoch, 10) for epoch in range(1, 8)] == pytest.approx([0.25, 0.4, 0.55, 0.7, 0.85, 1, 1])
    assert LARGEST.all_from(10) == 6
    assert replace(LARGEST, full=1.0).share(10, 10) == 1.0
    assert replace(LARGEST, full=0.0).share(1, 10) == 1.0
    assert [Curriculum().share(1, 10), Curriculum().all_from(10)] == [1.0, 1]


def test_the_largest_come_first_and_slides_without_a_number_are_always_there() -> None:
    images = examples([0, 1, 1, 1, 1, 0])
    lessons = Lessons.of(LARGEST, [("s1", 0.01), ("s2", 0.5), ("s3", 0.1), ("s4", 0.2)])
    assert names(lessons, images, 1) == ["s0", "s2", "s5"]
    assert names(lessons, images, 3) == ["s0", "s2", "s3", "s4", "s5"]
    assert names(lessons, images, 6) == [one.name for one in images]
    smallest = Lessons.of(replace(LARGEST, first="smallest"), lessons_numbers(lessons))
    assert names(smallest, images, 1) == ["s0", "s1", "s5"]


def lessons_numbers(lessons: Lessons) -> list[tuple[str, float]]:
    return list(lessons.ease.items())


def test_each_class_has_its_own_order_and_equals_come_together() -> None:
    """Negatives with a size of 0 would come last among all; among themselves they are all the largest."""
    images = examples([0, 0, 1, 1, 1, 1])
    lessons = Lessons.of(LARGEST, [("s0", 0.0), ("s1", 0.0), ("s2", 3.0), ("s3", 2.0), ("s4", 2.0), ("s5", 1.0)])
    assert names(lessons, images, 1) == ["s0", "s1", "s2"]
    assert names(lessons, images, 2) == ["s0", "s1", "s2", "s3", "s4"]


def test_a_patient_is_as_easy_as_the_easiest_slide() -> None:
    pairs = [("p", 0.1), ("p", 0.4), ("q", 0.2)]
    assert Lessons.of(LARGEST, pairs).ease == {"p": 0.4, "q": 0.2}
    assert Lessons.of(replace(LARGEST, first="smallest"), pairs).ease == {"p": -0.1, "q": -0.2}


def test_classes_count_the_same_among_those_that_take_part() -> None:
    images = examples([0, 0, 0, 1, 1, 1, 1, 1])
    lessons = Lessons.of(LARGEST, [(f"s{i}", float(i)) for i in range(3, 8)])
    work = Job(images, (), Recipe(epochs=10, curriculum=LARGEST), (1.0, 1.0), print, Silent(), lessons=lessons)
    first, there = work.of_epoch(1, {"s0": "broken"})
    assert [one.name for one in there] == ["s1", "s2", "s6", "s7"]
    assert first.class_weights == (1.0, 1.0)
    later, there = work.of_epoch(10, {})
    assert len(there) == 8
    assert later.class_weights == pytest.approx((8 / 6, 8 / 10))
    as_they_are = replace(work, recipe=replace(work.recipe, class_weights="none"))
    assert as_they_are.of_epoch(10, {})[0].class_weights == (1.0, 1.0)


def test_patience_begins_when_all_take_part() -> None:
    record = EpochRecord(1, 1e-3, 1.0, 0.5, 0.9, 1.0, 1.0, 4, 0)
    recipe = Recipe(epochs=20, patience=3, curriculum=LARGEST)
    after = [TrainingState({}, "32", {}, best_epoch=1, history=(record,) * epochs) for epochs in (4, 12, 13)]
    assert [finished(state, recipe) for state in after] == [False, False, True]
    assert finished(after[0], replace(recipe, curriculum=Curriculum()))


def test_the_recipe_s_table(tmp_path: Path) -> None:
    recipe = parse_recipe({"curriculum": {"column": "size", "first": "smallest"}}, "mine")
    assert recipe.curriculum == Curriculum(column="size", first="smallest")
    assert "curriculum" not in Recipe().as_dict()
    assert parse_recipe(recipe.as_dict(), "again") == recipe
    with pytest.raises(InputError, match="first is 'biggest'; possible: largest, smallest"):
        parse_recipe({"curriculum": {"column": "size", "first": "biggest"}}, "mine")


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        (
            "slide,label\na,1\n",
            "size",
            "labels.csv: column 'size', which the curriculum goes by, is missing; found: sli",
        ),
        ("slide,label,size\na,1,big\n", "size", "line 2: size is 'big', which is no number"),
        ("slide,label,size\na,1,nan\n", "size", "line 2: size is 'nan', which is no number"),
        ("slide,label,size\na,1,\nb,0,\n", "size", "column 'size', which the curriculum goes by, holds no number"),
    ],
)
def test_labels_that_cannot_order_slides(tmp_path: Path, text: str, column: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_labels(path, order=column)
    assert "\n" not in str(caught.value)


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("slide;label; Size\na;1;0,25\nb;0;\nc;1;3\n")
    assert [row.order for row in read_labels(path, order="size")] == [0.25, None, 3.0]
    assert [row.order for row in read_labels(path)] == [None] * 3


def painted(folder: Path, count: int = 12) -> Path:
    """Small slides of which every second one has a dark square, the later the smaller; two a patient."""
    rng, rows = np.random.default_rng(0), []
    for i in range(count):
        pixels = (np.array([225, 140, 190]) + rng.integers(-12, 12, (96, 96, 3))).astype(np.uint8)
        side = 40 - 2 * i if i % 2 else 0
        pixels[8 : 8 + side, 8 : 8 + side] = (60, 20, 90)
        tifffile.imwrite(
            folder / f"s{i}.tiff", pixels, tile=(32, 32), resolution=(10_000, 10_000), resolutionunit="CENTIMETER"
        )
        part = "val" if i >= count - 4 else "train"
        rows.append([f"s{i}.tiff", "ab"[i % 2], f"p{i // 4}{i % 2}", part, side or ""])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["slide", "label", "patient", "split", "size"], *rows])
    return folder / "labels.csv"


RECIPE = Recipe(
    method="ats",
    epochs=4,
    batch=2,
    familiar=False,
    model={"tile_size": 16, "tile_mpp": 1.0, "overview_mpp": 4.0, "draws": 2, "encoder_widths": [8], "features": 8}
    | {"attention_widths": [8], "context": 3, "encoder_frozen": True},
    optimiser=Optimiser(learning_rate=1e-3),
    curriculum=replace(LARGEST, start=0.5),
)


def taking_part(folder: Path) -> list[int]:
    with (folder / "training" / "metrics.csv").open(newline="") as file:
        return [int(row["slides"]) for row in csv.DictReader(file)]


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize(("bag", "counts"), [("slide", [6, 7, 8, 8]), ("patient", [3, 4, 4, 4])])
def test_a_killed_training_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bag: str, counts: list[int]
) -> None:
    """With a feature store; killed in the second epoch, while some slides do not take part yet."""
    labels, recipe, heard = painted(tmp_path), replace(RECIPE, bag=bag), Heard()
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(labels, tmp_path, whole, recipe, device="cpu", listener=heard)
    assert taking_part(whole) == counts
    told = next(line for line in heard.lines if line.startswith("curriculum"))
    assert told == (
        f"curriculum: largest size first; {counts[0]} of {counts[-1]} {bag}s in epoch 1, all of them from epoch 3 on"
    )
    save, saved = run.save_state, []

    def dying(folder: Path, state: Any) -> None:
        if len(saved) == 1:
            raise KeyboardInterrupt
        saved.append(save(folder, state))

    monkeypatch.setattr(run, "save_state", dying)
    with pytest.raises(KeyboardInterrupt):
        train(labels, tmp_path, killed, recipe, device="cpu")
    monkeypatch.undo()
    assert train(labels, tmp_path, killed, recipe, device="cpu").epochs_now == 3
    names = ("model.safetensors", "training/metrics.csv")
    assert [(killed / one).read_bytes() for one in names] == [(whole / one).read_bytes() for one in names]
    other = labels.read_text().replace(",38", ",1")
    labels.write_text(other)
    with pytest.raises(InputError, match="a training with a different labels"):
        train(labels, tmp_path, whole, recipe, device="cpu")
