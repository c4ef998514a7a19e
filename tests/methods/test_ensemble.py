"""Several models as one: the shipped contract, means computed by hand, one encoder kept once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, nn

from wsi_attention.checkpoint import WEIGHTS, load_model, save_model
from wsi_attention.errors import InputError, ModelError
from wsi_attention.geometry import Grid
from wsi_attention.methods.ats import ats
from wsi_attention.methods.ensemble import Ensemble, disagreement, ensemble_of, members_facts, merged, merged_glimpses
from wsi_attention.methods.method import build_model
from wsi_attention.model_card import ModelCard
from wsi_attention.protocols import Estimating
from wsi_attention.structures import AttentionMap, Glimpse, Output, TileSet
from wsi_attention.testing.models import ModelContract
from wsi_attention.tiles.tensors import TensorSource

SMALL: dict[str, Any] = {
    "tile_size": 32,
    "tile_mpp": 1.0,
    "overview_mpp": 4.0,
    "draws": 8,
    "encoder_widths": (8, 8),
    "features": 8,
    "attention_widths": (8, 8),
    "context": 3,
}
OAA: dict[str, Any] = {"overview_mpp": 4.0, "trunk_widths": (8, 8), "context": 3, "head_widths": (8,)}


CONTRACT = (
    *(
        "has_every_attribute_that_is_used",
        "output_is_whole",
        "same_generator_same_output",
        "background_is_never_looked_at",
    ),
    *("glimpses_are_what_was_read", "a_failed_tile_leaves_the_bag", "one_cell_of_tissue_is_enough"),
    *("spread_says_whether_anything_was_drawn", "loss_reaches_every_parameter"),
)


@pytest.mark.parametrize("name", CONTRACT)
def test_contract(name: str) -> None:
    class Contract(ModelContract):
        unreached = ("*evidence.*",)  # members' losses on the overview are for their own training

        def build(self) -> nn.Module:
            return ensemble_of([ats(self.classes, **SMALL) for _ in range(2)])

    getattr(Contract(), f"test_{name}")()


class TestContractWithoutTiles(ModelContract):
    attends = ""

    def build(self) -> nn.Module:
        return ensemble_of([build_model("oaa", self.classes, **OAA) for _ in range(2)])


def three(**more: Any) -> list[nn.Module]:
    torch.manual_seed(0)
    return [ats(2, **{**SMALL, **more}).eval() for _ in range(3)]


def images() -> TensorSource:
    return TensorSource(
        torch.randint(0, 256, (1, 3, 136, 200), dtype=torch.uint8, generator=Generator().manual_seed(3))
    )


def test_the_answer_is_the_mean_of_members_with_draws_of_their_own() -> None:
    members, generator = three(), Generator().manual_seed(5)
    apart = [member(images(), generator) for member in members]
    output = ensemble_of(members)(images(), Generator().manual_seed(5))
    shares = torch.stack([torch.softmax(one.logits.double(), -1) for one in apart])
    torch.testing.assert_close(torch.softmax(output.logits, -1), shares.mean(0))
    assert output.members is not None and torch.equal(output.members, shares)
    (look,) = output.glimpses[0]
    assert len(look.tiles) == 24 and look.drawn
    np.testing.assert_array_equal(look.tiles.locations[0, 8:16], apart[1].glimpses[0][0].tiles.locations[0])
    np.testing.assert_allclose(look.weights.sum(), 1.0)
    np.testing.assert_allclose(look.weights[16:], apart[2].glimpses[0][0].weights / 3)
    maps = np.stack([one.maps[0][0].values for one in apart])
    np.testing.assert_allclose(output.maps[0][0].values, maps.mean(0), rtol=1e-6)
    spread = np.sqrt(sum(float(one.spread) ** 2 for one in apart)) / 3
    np.testing.assert_allclose(float(output.spread), spread, rtol=1e-6)
    unread = [float(one.unread_mass) for one in apart if one.unread_mass is not None]
    assert output.unread_mass is not None and float(output.unread_mass) == pytest.approx(np.mean(unread))


def test_the_standard_error_is_that_of_a_mean_of_independent_draws() -> None:
    torch.manual_seed(0)
    errors = torch.tensor([0.03, 0.04, 0.12])
    chance = Generator().manual_seed(0)
    means = (0.5 + errors * torch.randn(200_000, 3, generator=chance)).mean(1)
    said = merged([_output(0.5, float(error)) for error in errors]).spread
    assert float(said) == pytest.approx(float(means.std()), rel=0.01)


def test_members_that_draw_nothing_add_no_error() -> None:
    assert float(merged([_output(0.5, 0.06), _output(0.5, float("nan"))]).spread) == pytest.approx(0.03)
    assert bool(merged([_output(0.5, float("nan"))] * 2).spread.isnan())


def _output(share: float, spread: float) -> Output:
    return Output(torch.tensor([[1 - share, share]]).log(), ((),), ((),), torch.tensor([spread]))


def test_exact_and_until_are_those_of_the_members() -> None:
    members = three()
    ensemble = ensemble_of(members)
    assert isinstance(ensemble, Estimating) and ensemble.draws == 24
    exact = torch.stack([torch.softmax(member.exact(images()).logits.double(), -1) for member in members]).mean(0)
    torch.testing.assert_close(torch.softmax(ensemble.exact(images()).logits, -1), exact)
    assert bool(ensemble.exact(images()).spread.isnan())
    near = ensemble.until(images(), 0.5, 48, Generator().manual_seed(0), 1.0)
    assert sum(len(look.tiles) for look in near.glimpses[0]) <= 48
    assert not isinstance(ensemble_of([build_model("oaa", 2, **OAA)] * 2), Estimating)


def test_glimpses_of_other_sizes_stay_apart() -> None:
    one = Glimpse(TileSet(np.zeros((1, 2, 2)), (32, 32), 2.0), np.ones(2) / 2, np.ones(2), np.ones(2, np.bool_))
    other = replace(one, tiles=TileSet(np.zeros((1, 2, 2)), (64, 64), 2.0))
    assert merged_glimpses([(one,), (other,)]) == (one, other)
    assert merged_glimpses([(one, one), (one,)]) == (one, one, one)


def test_maps_of_other_grids_stay_apart() -> None:
    one = AttentionMap(np.ones((2, 2), np.float32), Grid(2, 2, (4.0, 4.0)))
    other = AttentionMap(np.ones((1, 1), np.float32), Grid(1, 1, (8.0, 8.0)))
    outputs = [replace(_output(0.5, 0.1), maps=((found,),)) for found in (one, other)]
    assert merged(outputs).maps == ((one, other),)


def test_what_is_said_of_members() -> None:
    shares = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]])
    facts = members_facts(("benign", "lesion"), shares)
    assert facts["labels"] == {"benign": 2, "lesion": 1} and facts["count"] == 3
    assert facts["deviation"] == pytest.approx(np.std([0.9, 0.4, 0.8], ddof=1))
    (said,) = disagreement(("benign", "lesion"), shares)
    assert said.startswith("members disagree: of 3 say 2 benign, 1 lesion; probability of benign 0.400 to 0.900")
    assert disagreement(("benign", "lesion"), shares[[0, 2]]) == ()


def test_members_of_other_scales_are_refused() -> None:
    with pytest.raises(InputError, match=r"must have one tile_mpp; found 1\.0, 2\.0"):
        ensemble_of([ats(2, **SMALL), ats(2, **{**SMALL, "tile_mpp": 2.0})])
    with pytest.raises(InputError, match="needs members"):
        ensemble_of([])


def saved(folder: Path, ensemble: Ensemble, frozen: bool) -> None:
    arguments = {**SMALL, "encoder_frozen": frozen}
    options = {"options": ats.complete(arguments), "shared": ensemble.shared}
    save_model(folder, ensemble, ModelCard("ats", arguments, ("benign", "lesion"), members=[options] * 3))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_folder_holds_all_members_and_a_frozen_encoder_once(tmp_path: Path, frozen: bool) -> None:
    members = three(encoder_frozen=frozen)
    if frozen:
        for member in members[1:]:
            member.encoder.load_state_dict(members[0].encoder.state_dict())  # type: ignore[union-attr,arg-type]
    ensemble = ensemble_of(members)
    assert ensemble.shared is frozen and (ensemble.encoder is not None) is frozen
    expected = ensemble(images(), Generator().manual_seed(1)).logits
    saved(tmp_path / "model", ensemble, frozen)
    loaded = load_model(tmp_path / "model")
    torch.testing.assert_close(loaded.model(images(), Generator().manual_seed(1)).logits, expected, rtol=0, atol=0)
    encoders = [name for name in _names(tmp_path / "model") if ".encoder." in name and name.endswith("weight")]
    assert {name.split(".")[1] for name in encoders} == ({"0"} if frozen else {"0", "1", "2"})
    assert len({id(member.encoder) for member in loaded.model.members}) == (1 if frozen else 3)


def _names(folder: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, framework="pt") as file:
        return list(file.keys())


def test_a_folder_whose_members_are_damaged_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, ensemble_of(three()), frozen=False)
    config = tmp_path / "config.json"
    whole = config.read_text()
    for damage in ('"members": 3, "was": [', '"members": [7], "was": ['):
        config.write_text(whole.replace('"members": [', damage))
        with pytest.raises(ModelError, match="'members' must be a list of tables with options"):
            load_model(tmp_path)
