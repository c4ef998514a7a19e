"""A state comes back as it was, or is refused in one line; nothing half-written takes its place."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wsi_attention.errors import InputError
from wsi_attention.statistics.figures import Figure
from wsi_attention.training.state import (
    METRICS,
    STATE,
    EpochRecord,
    TrainingState,
    load_state,
    optimiser_tensors,
    plan_of,
    restore_optimiser,
    save_state,
    seed_of,
)

RECORD = EpochRecord(1, 1e-3, 0.5, 0.25, math.nan, 1.0, 1.0, 4, 1)


def state(best: float = 2.0, best_epoch: int = 1) -> TrainingState:
    return TrainingState(
        {"recipe": "x"},
        "bf16",
        {"a.weight": torch.ones(2, 3)},
        {"a.weight": torch.full((2, 3), best)},
        best_epoch,
        {"0.step": torch.tensor(3.0)},
        (RECORD, RECORD),
        {"bad": "broken"},
        {"draws": 4},
    )


def test_there_and_back(tmp_path: Path) -> None:
    save_state(tmp_path, state())
    back = load_state(tmp_path)
    assert back is not None
    assert (back.plan, back.precision, back.best_epoch, back.epoch) == ({"recipe": "x"}, "bf16", 1, 2)
    assert (back.failed, back.arguments) == ({"bad": "broken"}, {"draws": 4})
    assert torch.equal(back.weights["a.weight"], torch.ones(2, 3))
    assert torch.equal(back.best["a.weight"], torch.full((2, 3), 2.0))
    assert torch.equal(back.optimiser["0.step"], torch.tensor(3.0))
    assert back.history[0].train_loss == 0.5 and math.isnan(back.history[0].val_auroc)
    assert sorted(path.name for path in tmp_path.iterdir()) == [METRICS, STATE]


def test_figures_of_another_target_come_back_and_have_columns(tmp_path: Path) -> None:
    figures = (Figure("C-index", 0.75, (0.5, 0.875)), Figure("other one", math.nan))
    nothing = replace(RECORD, val_accuracy=math.nan, val_f1=math.nan, figures=figures)
    save_state(tmp_path, replace(state(), history=(nothing, nothing)))
    back = load_state(tmp_path)
    assert back is not None
    assert back.history[0].figures[0] == figures[0]
    assert back.history[0].merit == 0.75
    assert math.isnan(back.history[0].figures[1].value)
    with (tmp_path / METRICS).open() as file:
        row = next(csv.DictReader(file))
    assert (row["val_c_index"], row["val_c_index_high"], row["val_other_one"]) == ("0.75", "0.875", "nan")
    assert "val_auroc" not in row


def test_the_best_epoch_is_not_stored_twice(tmp_path: Path) -> None:
    save_state(tmp_path, state(best=1.0, best_epoch=2))
    back = load_state(tmp_path)
    assert back is not None and torch.equal(back.best["a.weight"], torch.ones(2, 3))
    assert (tmp_path / STATE).read_bytes().count(b"a.weight") == 1


def test_metrics_is_a_row_an_epoch(tmp_path: Path) -> None:
    save_state(tmp_path, state())
    with (tmp_path / METRICS).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["train_loss"] for row in rows] == ["0.5", "0.5"]
    assert rows[0]["val_auroc"] == "nan"


def test_no_state_and_states_that_cannot_be_used(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    (tmp_path / STATE).write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"cannot be used .*train with --overwrite"):
        load_state(tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / STATE, metadata={"training": '{"format": 99}'})
    with pytest.raises(InputError, match="has format 99, this version writes 1"):
        load_state(tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / STATE, metadata={"training": '{"format": 1}'})
    with pytest.raises(InputError, match="cannot be used"):
        load_state(tmp_path)


def test_the_optimiser_goes_on_where_it_was() -> None:
    def step(layer: nn.Linear, optimiser: torch.optim.AdamW) -> None:
        optimiser.zero_grad()
        layer(torch.ones(1, 3)).square().sum().backward()
        optimiser.step()

    torch.manual_seed(0)
    first = nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(first.parameters(), lr=0.1)
    step(first, optimiser)
    second = nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    other = torch.optim.AdamW(second.parameters(), lr=0.1)
    restore_optimiser(other, optimiser_tensors(optimiser))
    step(first, optimiser)
    step(second, other)
    assert torch.equal(first.weight, second.weight)


def test_seeds_and_plans_depend_on_every_part() -> None:
    assert seed_of(1, "a", 2) == seed_of(1, "a", 2)
    assert len({seed_of(1, "a", 2), seed_of(1, "a2"), seed_of(1, "a", 3), seed_of(2, "a", 2)}) == 4
    assert 0 <= seed_of("x") < 2**63
    first, second = plan_of(recipe={"a": 1, "b": 2}, labels=[1]), plan_of(labels=[1], recipe={"b": 2, "a": 1})
    assert first == second
    assert plan_of(recipe={"a": 2})["recipe"] != plan_of(recipe={"a": 1})["recipe"]
