"""What a folder says about an earlier training, and whether the recipe fits its method."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from wsi_attention import registry
from wsi_attention.config import Recipe
from wsi_attention.errors import InputError
from wsi_attention.training.data import Survey
from wsi_attention.training.labels import LabelRow, Split
from wsi_attention.training.plan import FINISHED, FOLDER, Plan, check_options, finished_before
from wsi_attention.training.state import STATE

NO_PLAN = cast(Any, None)


def test_a_finished_training_whose_model_is_gone_is_not_finished(tmp_path: Path) -> None:
    assert finished_before(tmp_path, NO_PLAN) is None
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / FINISHED).write_text("{}")
    assert finished_before(tmp_path, NO_PLAN) is None
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"finished.json cannot be read .*--overwrite"):
        finished_before(tmp_path, NO_PLAN)


def test_a_model_without_its_training_is_foreign_unless_a_state_is_there(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="was not trained there"):
        finished_before(tmp_path, NO_PLAN)
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / STATE).touch()
    assert finished_before(tmp_path, NO_PLAN) is None


def test_copies_are_named_and_whether_they_straddle_the_split() -> None:
    rows = [LabelRow(name, "x", name) for name in "abcd"]
    prints = {"a": "1", "b": "1", "c": "2", "d": "1"}
    across = Plan(Recipe(), Split(("x",), tuple(rows[:2]), tuple(rows[2:])), {}, Survey(prints))
    assert across.copies == (
        "1 slides stand there under several names: a = b = d; 1 of them lie on both sides of the split: "
        "the AUROC is too kind",
    )
    apart = Plan(Recipe(), Split(("x",), tuple(rows), ()), {}, Survey(prints))
    assert apart.copies == ("1 slides stand there under several names: a = b = d",)
    assert Plan(Recipe(), apart.split, {}, Survey({"a": "1", "b": "2"})).copies == ()


def test_a_builder_may_take_any_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    def strict(classes: int, draws: int = 1) -> None: ...

    def open_minded(classes: int, **options: object) -> None: ...

    builders = {"strict": strict, "open": open_minded}
    monkeypatch.setattr(registry, "load", lambda _, name: builders[name])
    check_options(Recipe(method="open", model={"anything": 1}))
    with pytest.raises(InputError, match="unknown key 'draw'; did you mean 'draws'"):
        check_options(Recipe(method="strict", model={"draw": 1}))
