"""Survival: the maximum of the likelihood is Kaplan and Meier's estimate; the risk is an area; cells that are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from linear_target import fitted_layer

from wsi_attention.errors import InputError
from wsi_attention.targets.find import target_of, wanted_of
from wsi_attention.targets.survival import Survival, WantedSurvival
from wsi_attention.training.labels import read_labels, split_rows

WANTED = WantedSurvival()
TARGET = Survival((10.0, 20.0, 40.0), WANTED)


def test_the_maximum_likelihood_without_features_is_the_estimate_of_kaplan_and_meier() -> None:
    """Intervals that end at every time of an event; slides are censored at such times, where both mean the same."""
    from lifelines import KaplanMeierFitter

    rng = np.random.default_rng(0)
    times, events = rng.integers(1, 8, 200) * 1.0, rng.random(200) < 0.5
    ends = tuple(np.unique(times[events]).tolist())
    target = Survival(ends, WANTED)
    layer = fitted_layer(target, np.zeros((200, 1)), [(t, float(e)) for t, e in zip(times, events, strict=True)])
    expected = KaplanMeierFitter().fit(times, events).survival_function_at_times(ends).to_numpy()
    assert target.read(layer.bias.detach()).tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_which_intervals_a_slide_tells_of() -> None:
    """By hand: an event belongs to the interval that ends with it; censored slides count from the half on."""
    truths = [(10.0, 1.0), (10.5, 1.0), (50.0, 1.0), (14.9, 0.0), (15.0, 0.0), (1.0, 0.0)]
    found = TARGET.tensor(truths)
    assert found[:, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert found[:, 1].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    hazards = torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64).logit()
    assert TARGET.loss(hazards, found[1:2]).item() == pytest.approx(-np.log(0.9 * 0.2), abs=1e-9)


def test_survival_never_rises_and_the_risk_is_the_area_above_it() -> None:
    logits = torch.randn(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 20
    survival = TARGET.read(logits)
    assert (survival.diff(dim=-1) <= 0).all()
    risk = TARGET.headline(survival)
    curve = np.concatenate([np.ones((100, 1)), survival.numpy()], axis=1)
    lived = np.trapezoid(curve, [0.0, 10.0, 20.0, 40.0], axis=1)
    assert risk[:, 0].tolist() == pytest.approx((1 - lived / 40).tolist(), abs=1e-12)
    shown = TARGET.shown(np.array([0.9, 0.7, 0.5]))
    assert dict(shown.values) == {
        "risk": pytest.approx(1 - (9.5 + 8 + 12) / 40),
        **{"survival_10": 0.9, "survival_20": 0.7, "survival_40": 0.5},
    }
    assert TARGET.columns == tuple(name for name, _ in shown.values)


def test_figures_are_lifelines_and_the_loss_is_that_of_training() -> None:
    from lifelines.utils import concordance_index

    rng = np.random.default_rng(1)
    logits = torch.from_numpy(rng.normal(size=(50, 3)))
    truths = [(float(t), float(e)) for t, e in zip(rng.integers(1, 60, 50), rng.integers(0, 2, 50), strict=True)]
    judged = TARGET.judged(TARGET.read(logits), truths)
    risk = TARGET.headline(TARGET.read(logits))[:, 0].numpy()
    expected = concordance_index([t for t, _ in truths], -risk, [e for _, e in truths])
    assert judged.figures[0].value == pytest.approx(expected, abs=1e-12)
    assert judged.loss == pytest.approx(TARGET.loss(logits, TARGET.tensor(truths)).item(), abs=1e-9)


def test_intervals_end_at_equal_shares_of_the_events_of_training() -> None:
    texts = [f"{time!r} event" for time in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.123456789)] + ["99.0 censored"]
    target, notes = WANTED.fitted(texts, ["3.0 censored"], "l")
    assert target.ends == (2.0, 4.0, 6.0, 8.12346)
    assert notes == ["no validation slide has an event: there is no C-index, the loss decides"]
    assert WANTED.fitted(["3.0 event"] * 2, ["3.0 event"], "l")[0].ends == (3.0,)


def test_config_there_and_back() -> None:
    assert target_of(TARGET.as_dict(), list(TARGET.names)) == TARGET
    for wrong in ({"ends": [2.0, 1.0]}, {"ends": [float("nan")]}, {"columns": ["a"]}, {"intervals": "4"}):
        with pytest.raises(InputError, match=r"'target' is damaged|needs 2 columns"):
            target_of(TARGET.as_dict() | wrong, ["a"])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (("12,1", ",1"), "line 3: an event without a time: time is empty"),
        (("12,1", ",0"), "line 3: no time: time is empty"),
        (("12,1", "late,1"), "line 3: time is 'late', which is no number"),
        (("12,1", "0,1"), "line 3: time is 0; it is counted from the slide on, so above 0"),
        (("12,1", "3,2"), "line 3: event is '2'; write 1 where the event came"),
        (("12,1", "3,"), "line 3: event is ''; write 1 where the event came"),
        (("12,1", "3,0"), r"1 of 2 slides have an event \(event = 1\); survival needs two"),
    ],
)
def test_bad_cells_are_told_in_one_sentence(tmp_path: Path, rows: tuple[str, ...], words: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("slide,time,event\n" + "\n".join(f"s{i},{row}" for i, row in enumerate(rows)))
    with pytest.raises(InputError, match=words):
        split_rows(read_labels(path, WANTED), 0.2, 0, "l", WANTED)


def test_a_split_without_an_event_to_train_on(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("slide,Time,EVENT,split\na,1,dead,val\nb,2,1,val\nc,3,alive,train\n")
    rows = read_labels(path, WANTED)
    assert [row.label for row in rows] == ["1.0 event", "2.0 event", "3.0 censored"]
    with pytest.raises(InputError, match="no training slide has an event; change the column split"):
        split_rows(rows, 0.2, 0, "l", WANTED)
    with pytest.raises(InputError, match="needs 2 columns, such as time, event; columns names 1"):
        wanted_of("survival", (), ("months",))
