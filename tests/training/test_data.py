"""Slides as examples: read once, remembered, opened ahead, and told apart by content."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsi_attention.config import Recipe
from wsi_attention.errors import NoTissueError, SlideOpenError
from wsi_attention.slide.fingerprint import seen_otherwise
from wsi_attention.structures import TileSet, TissueMask
from wsi_attention.targets.one_label import OneLabel
from wsi_attention.testing.slides import SlideSpec, write_slide
from wsi_attention.training.data import (
    Example,
    OverviewMemory,
    Remembered,
    ahead,
    data_fingerprint,
    opened,
    slide_examples,
    survey,
)
from wsi_attention.training.labels import LabelRow, Split
from wsi_attention.training.plan import Plan

ROW = LabelRow("a", "normal", "a")


@pytest.fixture(scope="module")
def slide_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "a.svs"
    write_slide(path, SlideSpec(size=(700, 900), seed=3))
    return path


def kept(size: int) -> Remembered:
    return Remembered(TissueMask(np.zeros((0, 0), np.bool_), 1.0), {1.0: torch.zeros(size, dtype=torch.uint8)})


def test_the_least_recently_used_leaves_first() -> None:
    memory = OverviewMemory(limit=250)
    memory.put("a", kept(100))
    memory.put("b", kept(100))
    assert memory.get("a") is not None
    memory.put("c", kept(100))
    assert memory.get("b") is None
    assert memory.get("a") is not None and memory.get("c") is not None
    assert memory.bytes == 200
    memory.put("huge", kept(300))
    assert memory.get("huge") is None and memory.bytes == 0


def test_a_second_visit_reads_only_tiles(slide_file: Path) -> None:
    memory = OverviewMemory()
    with opened(slide_file, ROW, "key", memory, 16.0) as first:
        downsample = first.overview_downsample(16.0)
        view, cost = first.overview(downsample), first.counters
        assert cost.bytes > 0 or cost.pixels > 0
    with opened(slide_file, ROW, "key", memory, 16.0) as second:
        assert torch.equal(second.overview(downsample), view)
        assert second.counters.pixels == 0
        tiles = second.read(TileSet(np.array([[0, 0], [100, 200]]), (64, 64), 1.0))
        assert tiles.pixels.shape == (1, 2, 3, 64, 64)
        assert second.counters.pixels == 2 * 64 * 64
    with opened(slide_file, ROW, "other", OverviewMemory(limit=0), 16.0) as third:
        assert third.counters.pixels > 0


@pytest.mark.parametrize("snap", [True, False])
def test_tiles_move_to_the_stored_grid_as_the_recipe_says(slide_file: Path, snap: bool) -> None:
    with opened(slide_file, ROW, "key", OverviewMemory(), 16.0, snap) as source:
        tiles = TileSet(np.array([[200, 230]]), (64, 64), 1.0)
        assert (source.aligned(tiles).locations != tiles.locations).any() == snap


def test_a_slide_without_tissue_is_refused(tmp_path: Path) -> None:
    write_slide(tmp_path / "blank.svs", SlideSpec(size=(600, 600), coverage=0.0))
    memory = OverviewMemory()
    with pytest.raises(NoTissueError, match="no tissue"), opened(tmp_path / "blank.svs", ROW, "key", memory, 16.0):
        pass


def test_a_survey_tells_usable_slides_from_others(slide_file: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.svs").write_bytes(b"II*\0 no slide")
    (tmp_path / "copy.svs").write_bytes(slide_file.read_bytes())
    slides = {"a": slide_file, "copy": tmp_path / "copy.svs", "broken": tmp_path / "broken.svs"}
    rows = [LabelRow(name, "x", name) for name in slides]
    found = survey(slides, rows)
    assert found.fingerprints["a"] == found.fingerprints["copy"]
    assert list(found.failed) == ["broken"]
    examples = slide_examples(rows, slides, found, OneLabel(("w", "x")), OverviewMemory(), 16.0)
    assert [(example.name, example.label) for example in examples] == [("a", 1), ("copy", 1)]
    with examples[0].open() as source:
        assert source.extent == (700, 900)


def test_a_slide_with_another_scale_is_another_training(slide_file: Path) -> None:
    plans = []
    for mpp in (None, 1.0):
        rows = (LabelRow("a", "x", "a", mpp),)
        plans.append(Plan(Recipe(), Split(("x",), rows, ()), {}, survey({"a": slide_file}, rows)))
    (one, before), (other, now) = (plan.training_slides[0] for plan in plans)
    assert one == other
    assert seen_otherwise(before, now) == "the file has mpp 1, had 0.5"
    assert plans[0].digests["slides"] != plans[1].digests["slides"]


def test_the_fingerprint_ignores_names_and_order_but_no_label() -> None:
    prints = {"a": "1", "b": "2"}
    same = data_fingerprint({"y": "2", "x": "1"}, {"x": "p", "y": "q"})
    assert data_fingerprint(prints, {"a": "p", "b": "q"}) == same
    assert data_fingerprint(prints, {"a": "q", "b": "q"}) != same


class Doors:
    """Examples that note when they open and close."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.opened = {name: threading.Event() for name in "abc"}

    def example(self, name: str, fails: bool = False) -> Example:
        @contextmanager
        def opens() -> Iterator[Any]:
            self.log.append(f"open {name}")
            self.opened[name].set()
            if fails:
                raise SlideOpenError(f"{name} is broken")
            try:
                yield name
            finally:
                self.log.append(f"close {name}")

        return Example(name, 0, name, opens)


def test_the_next_opens_while_one_is_in_use_and_all_are_closed() -> None:
    doors = Doors()
    for example, source in ahead([doors.example(name) for name in "abc"]):
        assert source == example.name
        following = {"a": "b", "b": "c"}.get(example.name)
        assert following is None or doors.opened[following].wait(10)
    assert sorted(doors.log) == sorted(f"{what} {name}" for what in ("open", "close") for name in "abc")


def test_a_failure_is_handed_over_and_the_rest_goes_on() -> None:
    doors = Doors()
    got = [source for _, source in ahead([doors.example("a", fails=True), doors.example("b")])]
    assert isinstance(got[0], SlideOpenError)
    assert got[1] == "b"


def test_stopping_early_closes_what_was_opened_ahead() -> None:
    doors = Doors()
    visits = ahead([doors.example(name) for name in "abc"])
    next(visits)
    visits.close()
    assert {line for line in doors.log if line.startswith("open")} == {"open a", "open b"}
    assert {line for line in doors.log if line.startswith("close")} == {"close a", "close b"}
    assert list(ahead([])) == []
