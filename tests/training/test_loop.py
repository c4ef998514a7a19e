"""The loop learns, stops, resumes to the same bits, and names what goes wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from wsi_attention.config import Augmentation, Optimiser, Recipe
from wsi_attention.devices import fabric_on
from wsi_attention.errors import InputError, SlideOpenError
from wsi_attention.geometry import OVERVIEW_PIXELS
from wsi_attention.methods.ats import ats
from wsi_attention.methods.trt.model import trt
from wsi_attention.structures import Output
from wsi_attention.training.data import Example
from wsi_attention.training.listener import Silent
from wsi_attention.training.loop import Job, fit
from wsi_attention.training.state import TrainingState, copied, load_state, save_state
from wsi_attention.training.validation import DivergedError

Examples = Callable[[int, int], tuple[Example, ...]]
RECIPE = Recipe(
    epochs=3,
    patience=100,
    batch=4,
    seed=1,
    optimiser=Optimiser(learning_rate=3e-3, warmup_epochs=0.5),
    augmentation=Augmentation(brightness=0.02),
)


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stages: list[tuple[str, int, int]] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, stage: str, done: int, total: int) -> None:
        self.stages.append((stage, done, total))


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return ats(
        2,
        tile_size=16,
        tile_mpp=1.0,
        overview_mpp=4.0,
        draws=4,
        encoder_widths=(8, 16),
        features=16,
        attention_widths=(8, 8),
        context=3,
    )


def two_phases(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return trt(
        2,
        size=64,
        patch=16,
        dim=16,
        heads=2,
        depth=2,
        budget=4,
        tile_size=16,
        tile_mpp=1.0,
        overview_mpp=4.0,
        encoder_widths=(8, 16),
        features=16,
        objective="two-phase",
        switch=0.4,
    )


class Plain(nn.Module):
    """What training uses of a model beside `forward` and `loss`."""

    tile_mpp = overview_mpp = 4.0
    overview_pixels, map_stride, encoder, preprocess = OVERVIEW_PIXELS, 1, None, nn.Identity()


class Darkest(Plain):
    """Classifies by the darkest pixels of the overview; with dropout, so that the layers' own chance matters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))

    def forward(self, source: Any, generator: Any = None) -> Output:
        view = source.overview(source.overview_downsample(self.overview_mpp)).float() / 255
        logits = self.layers(view.amin((-1, -2)))
        return Output(logits, ((),), ((),), torch.zeros(1))

    def loss(self, output: Output, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output.logits, target)


def start(model: nn.Module) -> TrainingState:
    return TrainingState({"all": "x"}, "32", {name: copied(value) for name, value in model.state_dict().items()})


def job(train: tuple[Example, ...], validation: tuple[Example, ...], recipe: Recipe = RECIPE, **kept: Any) -> Job:
    saved = kept.get("saved", [])
    return Job(train, validation, recipe, (1.0, 1.0), saved.append, kept.get("heard", Silent()))


def same(a: TrainingState, b: TrainingState) -> bool:
    groups = [(a.weights, b.weights), (a.best, b.best), (a.optimiser, b.optimiser)]
    return a.history == b.history and all(
        x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x) for x, y in groups
    )


def test_it_learns_to_find_the_square(spotted_examples: Examples) -> None:
    torch.manual_seed(0)
    model, heard = Darkest(), Heard()
    recipe = replace(RECIPE, epochs=8, optimiser=Optimiser(learning_rate=3e-2, warmup_epochs=0.5))
    work = job(spotted_examples(24, 0), spotted_examples(12, 100), recipe, heard=heard)
    state = fit(fabric_on("cpu", 1, "32"), model, work, start(model))
    best = state.history[state.best_epoch - 1]
    assert best.val_auroc >= 0.95
    assert state.history[-1].train_loss < 0.8 * state.history[0].train_loss
    assert ("epoch 1", 24, 24) in heard.stages
    assert ("validation 1", 12, 12) in heard.stages
    assert heard.lines[0].startswith("epoch 1: loss ")


def test_what_a_phase_freezes_stays_and_the_last_epoch_is_kept(spotted_examples: Examples) -> None:
    """Through decay, clipping and validation; validation cannot see what the second phase trains."""
    model, saved = two_phases(), list[TrainingState]()
    recipe = replace(RECIPE, patience=1, optimiser=replace(RECIPE.optimiser, weight_decay=0.5))
    work = job(spotted_examples(4, 0), spotted_examples(4, 50), recipe, saved=saved)
    end = fit(fabric_on("cpu", 1, "32"), model, work, start(model))
    assert [state.best_epoch for state in saved] == [1, 2, 3]
    first = saved[0].weights
    moved = {name for name, value in end.best.items() if not torch.equal(value, first[name])}
    assert moved == {"phase", *(name for name in first if name.startswith("class_maps."))}


@pytest.mark.parametrize("build", [small_model, Darkest, two_phases])
@pytest.mark.parametrize("after", [1, 2])
def test_a_resumed_run_is_the_undisturbed_run(
    spotted_examples: Examples, tmp_path: Path, build: Callable[[], nn.Module], after: int
) -> None:
    train, validation = spotted_examples(6, 0), spotted_examples(4, 50)
    saved: list[TrainingState] = []
    first = start(build())
    whole = fit(fabric_on("cpu", 1, "32"), build(), job(train, validation, saved=saved), first)
    save_state(tmp_path, saved[after - 1])
    torch.manual_seed(99)
    kept = load_state(tmp_path)
    assert kept is not None and kept.epoch == after
    resumed = fit(fabric_on("cpu", 1, "32"), build(), job(train, validation), kept)
    assert same(whole, resumed)
    other = job(train, validation, replace(RECIPE, seed=2))
    assert not same(whole, fit(fabric_on("cpu", 1, "32"), build(), other, first))


def test_training_leaves_the_callers_chance_alone(spotted_examples: Examples) -> None:
    work = job(spotted_examples(2, 0), spotted_examples(2, 50), replace(RECIPE, epochs=1))
    model = small_model()
    before = torch.get_rng_state()
    fit(fabric_on("cpu", 1, "32"), model, work, start(model))
    assert torch.equal(torch.get_rng_state(), before)


def test_bfloat16_trains(spotted_examples: Examples) -> None:
    work = job(spotted_examples(4, 0), spotted_examples(2, 50), replace(RECIPE, epochs=1))
    model = small_model()
    state = fit(fabric_on("cpu", 1, "bf16"), model, work, start(model))
    assert math.isfinite(state.history[0].train_loss)
    assert all(value.dtype != torch.bfloat16 for value in state.weights.values())


def test_patience_ends_it_and_the_best_weights_are_kept(spotted_examples: Examples) -> None:
    frozen = replace(RECIPE, epochs=50, patience=2, optimiser=Optimiser(learning_rate=1e-9, weight_decay=0.0))
    model = small_model()
    state = fit(
        fabric_on("cpu", 1, "32"), model, job(spotted_examples(2, 0), spotted_examples(4, 50), frozen), start(model)
    )
    assert state.epoch == state.best_epoch + 2 < 50


def broken(name: str) -> Example:
    def opens() -> Any:
        raise SlideOpenError(f"{name} is broken")

    return Example(name, 0, name, opens)


def test_a_broken_slide_is_left_out_reported_and_counted(spotted_examples: Examples) -> None:
    heard, model = Heard(), small_model()
    train = (*spotted_examples(4, 0), broken("bad"))
    validation = (*spotted_examples(2, 50), broken("worse"))
    state = fit(fabric_on("cpu", 1, "32"), model, job(train, validation, heard=heard), start(model))
    assert dict(state.failed) == {"bad": "bad is broken", "worse": "worse is broken"}
    assert [record.slides for record in state.history] == [5, 4, 4]
    assert [record.failed for record in state.history] == [2, 2, 2]
    assert heard.lines[0] == "left out: bad: bad is broken"
    assert sum(line.startswith("left out") for line in heard.lines) == 2


def test_more_than_half_broken_is_an_error(spotted_examples: Examples) -> None:
    train = (*spotted_examples(2, 0), *(broken(f"b{i}") for i in range(5)))
    model = small_model()
    with pytest.raises(InputError, match=r"5 of 9 slides cannot be used, more than half; the first: b\d is broken"):
        fit(fabric_on("cpu", 1, "32"), model, job(train, spotted_examples(2, 50)), start(model))


def test_a_loss_that_is_no_number_names_the_slide(spotted_examples: Examples, canvas_source: Any) -> None:
    bad = Example("poison", 0, "poison", lambda: nullcontext(canvas_source(torch.full((1, 3, 64, 64), torch.nan))))
    model = small_model()
    with pytest.raises(DivergedError, match="epoch 1, slide poison"):
        fit(fabric_on("cpu", 1, "32"), model, job((*spotted_examples(4, 0), bad), ()), start(model))


def test_an_exploding_rate_stops_and_keeps_the_last_good_epoch(spotted_examples: Examples) -> None:
    class Exploding(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small_model()
            self.calls = 0

        def forward(self, source: Any, generator: Any) -> Any:
            self.calls += self.training
            return self.inner(source, generator)

        def loss(self, output: Any, target: Any) -> Any:
            return self.inner.loss(output, target) * (math.nan if self.calls > 5 else 1.0)

    saved: list[TrainingState] = []
    model = Exploding()
    work = job(spotted_examples(4, 0), spotted_examples(2, 50), replace(RECIPE, batch=2), saved=saved)
    with pytest.raises(
        DivergedError, match=r"the loss is nan at epoch 2, step 1, slide s\d; the last whole epoch is kept"
    ):
        fit(fabric_on("cpu", 1, "32"), model, work, start(model))
    assert [state.epoch for state in saved] == [1]


def test_slides_that_failed_before_count_among_all(spotted_examples: Examples) -> None:
    """Four of ten slides could not be opened at the start; that is no majority of the six that are left."""
    model = small_model()
    state = replace(start(model), failed={f"gone{i}": "broken" for i in range(4)})
    work = job(spotted_examples(4, 0), spotted_examples(2, 50), replace(RECIPE, epochs=1))
    assert fit(fabric_on("cpu", 1, "32"), model, work, state).history[0].failed == 4


class Wild(Plain):
    """Gives NaN, or refuses to go on, in eval mode."""

    def __init__(self, refuses: bool) -> None:
        super().__init__()
        self.inner, self.refuses = Darkest(), refuses

    def forward(self, source: Any, generator: Any = None) -> Output:
        output = self.inner(source, generator)
        if not self.training and self.refuses:
            raise ValueError("logits hold NaN")
        return output if self.training else replace(output, logits=output.logits * math.nan)

    def loss(self, output: Output, target: torch.Tensor) -> torch.Tensor:
        return self.inner.loss(output, target)


@pytest.mark.parametrize(
    ("refuses", "text"),
    [(False, "output is not finite at validation, slide s50"), (True, "at validation, slide s50: logits hold NaN")],
)
def test_validation_that_is_no_number_is_no_score(spotted_examples: Examples, refuses: bool, text: str) -> None:
    model = Wild(refuses)
    with pytest.raises(DivergedError, match=text):
        fit(fabric_on("cpu", 1, "32"), model, job(spotted_examples(2, 0), spotted_examples(2, 50)), start(model))


class TwoScales(Darkest):
    """Answers by the darkest pixels, and by a constant that knows nothing; a third part is never there."""

    part_names = ("dark", "blind", "absent")

    def forward(self, source: Any, generator: Any = None) -> Output:
        output = super().forward(source, generator)
        dark = output.logits.detach()
        return replace(output, parts=torch.stack([dark, dark * 0, dark * math.nan], dim=1))


def test_parts_of_a_model_are_judged_by_themselves(spotted_examples: Examples, tmp_path: Path) -> None:
    heard = Heard()
    state = fit(
        fabric_on("cpu", 1, "32"),
        TwoScales(),
        job(spotted_examples(4, 0), spotted_examples(6, 50), heard=heard),
        start(TwoScales()),
    )
    dark, blind, absent = state.history[-1].parts
    assert (dark.name, dark.value) == ("AUROC dark", state.history[-1].val_auroc)
    assert blind.value == 0.5
    assert math.isnan(absent.value)
    assert f"(AUROC dark {dark.value:.4f}, AUROC blind 0.5000, AUROC absent nan)" in heard.lines[-1]
    save_state(tmp_path, state)
    kept = load_state(tmp_path)
    assert kept is not None
    assert kept.history[-1].parts[:2] == state.history[-1].parts[:2]
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert "val_auroc_blind,val_auroc_blind_low" in header
    assert len({row.count(",") for row in (header, *rows)}) == 1


def test_class_weights_count(spotted_examples: Examples) -> None:
    runs = []
    for weights in ((1.0, 1.0), (0.1, 1.9)):
        work = replace(
            job(spotted_examples(4, 0), spotted_examples(4, 50), replace(RECIPE, epochs=1)), class_weights=weights
        )
        model = small_model()
        runs.append(fit(fabric_on("cpu", 1, "32"), model, work, start(model)).history[0])
    assert runs[0].train_loss != runs[1].train_loss
