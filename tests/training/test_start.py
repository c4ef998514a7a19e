"""Training starts from the weights that were named; a frozen encoder stays as it was, through a resume too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from wsi_attention.checkpoint import build_model, load_model, save_model
from wsi_attention.config import Optimiser, Recipe
from wsi_attention.devices import fabric_on
from wsi_attention.encoders.encoder_weights import save_encoder
from wsi_attention.errors import InputError, ModelError
from wsi_attention.model_card import ModelCard
from wsi_attention.training.data import Example
from wsi_attention.training.listener import Silent
from wsi_attention.training.loop import Job, fit
from wsi_attention.training.start import encoder_fingerprint, encoder_weights, take_encoder, take_weights
from wsi_attention.training.state import TrainingState, copied, load_state, save_state

Examples = Callable[[int, int], tuple[Example, ...]]
ARGUMENTS = {
    "tile_size": 32,
    "tile_mpp": 1.0,
    "overview_mpp": 4.0,
    "draws": 4,
    "encoder_widths": [8, 16],
    "features": 16,
    "attention_widths": [8, 8],
    "context": 3,
}
RECIPE = Recipe(epochs=3, patience=100, batch=2, seed=1, optimiser=Optimiser(learning_rate=3e-3))


def model(seed: int = 0, **changes: object) -> nn.Module:
    torch.manual_seed(seed)
    return build_model("ats", 2, **{**ARGUMENTS, **changes})


def saved(folder: Path, trained: nn.Module, **changes: object) -> Path:
    save_model(folder, trained, ModelCard("ats", {**ARGUMENTS, **changes}, ("a", "b")))
    return folder


def encoder_state(of: nn.Module) -> dict[str, torch.Tensor]:
    return {name: copied(value) for name, value in of.encoder.state_dict().items()}  # type: ignore[operator,union-attr]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("frozen", [False, True])
def test_an_encoder_from_a_file_and_from_a_model_folder(frozen: bool, tmp_path: Path) -> None:
    earlier = model(0, mean=[0.1] * 3, encoder_frozen=not frozen)
    saved(tmp_path / "earlier", earlier, mean=[0.1] * 3, encoder_frozen=not frozen)
    save_encoder(tmp_path / "encoder.safetensors", earlier.encoder, mean=(0.2,) * 3, std=(0.3,) * 3)
    for start, mean in (("encoder.safetensors", 0.2), ("earlier", 0.1)):
        new = model(1, encoder_frozen=frozen)
        before = new.classifier.state_dict()["linear.weight"].clone()
        take_encoder(new, str(tmp_path / start))
        assert same(encoder_state(new), encoder_state(earlier))
        assert torch.equal(new.classifier.state_dict()["linear.weight"], before)
        assert encoder_weights(new.encoder, str(tmp_path / start)).mean == (mean,) * 3


def test_a_model_goes_on_frozen_or_not(tmp_path: Path) -> None:
    earlier = model(0)
    saved(tmp_path / "earlier", earlier)
    new = model(1, encoder_frozen=True)
    take_weights(new, str(tmp_path / "earlier"))
    assert same(dict(new.state_dict()), dict(earlier.state_dict()))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    save_encoder(tmp_path / "wide.safetensors", model(0, features=20).encoder)
    with pytest.raises(
        InputError, match=r"wide.safetensors do not fit .*project.weight \(20, 32\) instead of \(16, 32"
    ):
        take_encoder(model(1), str(tmp_path / "wide.safetensors"))
    with pytest.raises(InputError, match="'pretrained' weights exist for encoders of timm or the hub and for "):
        take_encoder(model(1), "pretrained")
    with pytest.raises(InputError, match=r"nowhere.safetensors cannot be read"):
        take_encoder(model(1), str(tmp_path / "nowhere.safetensors"))
    with pytest.raises(ModelError, match="no model folder nowhere"):
        take_encoder(model(1), "nowhere")
    with pytest.raises(InputError, match="this method has no tile encoder"):
        take_encoder(build_model("oaa", 2), "demo")


def test_another_file_under_the_same_name_is_another_run(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    first = (save_encoder(path, model(0).encoder), encoder_fingerprint(str(path)))
    second = (save_encoder(path, model(1).encoder), encoder_fingerprint(str(path)))
    assert first[0] == first[1] != second[1] == second[0]
    assert encoder_fingerprint("demo") == load_model("demo").weights_sha256
    assert (encoder_fingerprint(""), encoder_fingerprint("pretrained")) == ("", "pretrained")
    with pytest.raises(InputError, match=r"nowhere.safetensors cannot be read"):
        encoder_fingerprint(str(tmp_path / "nowhere.safetensors"))


def run(folder: Path, examples: Examples, network: nn.Module, state: TrainingState | None, stop: int) -> TrainingState:
    class Stop(Exception):
        pass

    def save(now: TrainingState) -> None:
        save_state(folder, now)
        if now.epoch == stop:
            raise Stop

    weights = {name: copied(value) for name, value in network.state_dict().items()}
    job = Job(examples(4, 0), examples(2, 50), RECIPE, (1.0, 1.0), save, Silent())
    try:
        return fit(fabric_on("cpu", 1, "32"), network, job, state or TrainingState({}, "32", weights))
    except Stop:
        stopped = load_state(folder)
        assert stopped is not None
        return stopped


@pytest.mark.parametrize("encoder", ["small", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_a_frozen_encoder_stays_and_a_resumed_run_ends_the_same(
    encoder: str, tmp_path: Path, spotted_examples: Examples
) -> None:
    changes = {"encoder": encoder, "encoder_frozen": True}
    network = model(0, **changes)
    before, head = encoder_state(network), copied(network.classifier.state_dict()["linear.weight"])
    whole = run(tmp_path / "whole", spotted_examples, network, None, 0)
    assert same(encoder_state(network), before)
    assert not torch.equal(network.classifier.state_dict()["linear.weight"], head)
    first = run(tmp_path / "parts", spotted_examples, model(0, **changes), None, 1)
    again = run(tmp_path / "parts", spotted_examples, model(7, **changes), first, 0)
    assert (first.epoch, again.epoch) == (1, 3)
    assert same(dict(whole.weights), dict(again.weights))
    assert same(dict(whole.optimiser), dict(again.optimiser))
    assert (tmp_path / "whole" / "metrics.csv").read_bytes() == (tmp_path / "parts" / "metrics.csv").read_bytes()


def test_a_recipe_carries_the_encoder() -> None:
    assert replace(Recipe(), encoder_start="e.safetensors").as_dict()["encoder_start"] == "e.safetensors"
