"""An encoder of several turns: the mean of its network's, whatever way a tile lies, under the network's own names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsi_attention.errors import InputError
from wsi_attention.feature_store.kind import Kind, kind_of
from wsi_attention.feature_store.store import open_store
from wsi_attention.inference.stored_features import digest_of
from wsi_attention.methods.ensemble import same_encoder
from wsi_attention.methods.grow.model import grow
from wsi_attention.nn.encoders import TileEncoder, innermost, turns_of
from wsi_attention.nn.preprocess import Normalise
from wsi_attention.nn.turned import one_turn, oriented
from wsi_attention.structures import TileSet

SMALL = {"widths": (8, 16), "features": 12}


def tiles(width: int = 40, height: int = 40) -> Tensor:
    return torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(0))


def encoder(turns: int, frozen: bool = True, name: str = "small") -> nn.Module:
    torch.manual_seed(1)
    return TileEncoder(name=name, frozen=frozen, turns=turns, **SMALL).build().eval()  # type: ignore[arg-type]


def test_the_eight_turns_differ() -> None:
    grid = torch.arange(9).reshape(3, 3)
    seen = [tuple(oriented(grid, turn).flatten().tolist()) for turn in range(8)]
    assert len(set(seen)) == 8 and seen[0] == tuple(range(9))


def test_the_feature_is_the_mean_over_the_turns() -> None:
    single, found = encoder(1), encoder(8)(tiles())
    each = torch.stack([single(oriented(tiles(), turn)) for turn in range(8)])
    assert float((each - each[0]).abs().max()) > 1e-3
    torch.testing.assert_close(found, nn.functional.normalize(each.mean(0), dim=-1))
    quarters = nn.functional.normalize(each[:4].mean(0), dim=-1)
    torch.testing.assert_close(encoder(4)(tiles()), quarters)


@pytest.mark.parametrize(("turns", "same"), [(4, range(4)), (8, range(8))])
def test_it_is_the_same_however_a_tile_lies(turns: int, same: range) -> None:
    network, plain = encoder(turns), encoder(turns)(tiles())
    for turn in range(8):
        alike = torch.allclose(network(oriented(tiles(), turn)), plain, atol=1e-6)
        assert alike == (turn in same)


@pytest.mark.parametrize("name", ["small", "resnet18", "vit"])
def test_a_tile_need_not_be_square(name: str) -> None:
    assert encoder(8, name=name)(tiles(48, 32)).shape[0] == 3


def test_weights_keep_their_names_and_learn_unless_frozen() -> None:
    assert list(encoder(8).state_dict()) == list(encoder(1, frozen=False).state_dict())
    assert encoder(8, frozen=False)(tiles()).requires_grad
    network = encoder(8, frozen=False)
    network.load_state_dict(encoder(1).state_dict())
    torch.testing.assert_close(network(tiles()), encoder(8)(tiles()))
    assert type(innermost(encoder(8))) is type(innermost(encoder(1)))
    assert [turns_of(one) for one in (None, encoder(1), encoder(8), network)] == [1, 1, 8, 8]


def test_training_sees_one_turn() -> None:
    model = nn.Sequential(encoder(8))
    with one_turn(model):
        torch.testing.assert_close(model(tiles()), encoder(1)(tiles()))
        assert turns_of(model[0]) == 1
        assert kind_of(model[0], Normalise(), {"turns": 8}, "32", "cpu") == kind_of(
            encoder(1), Normalise(), {}, "32", "cpu"
        )
    torch.testing.assert_close(model(tiles()), encoder(8)(tiles()))


def test_directions_hold_for_the_mean() -> None:
    network = encoder(8)
    directions = network.directions()  # type: ignore[operator]
    torch.testing.assert_close(directions, encoder(1).directions())  # type: ignore[operator]
    from scipy.optimize import nnls

    for feature in network(tiles()).double().numpy():
        assert nnls(directions.double().numpy().T, feature)[1] < 1e-5


@pytest.mark.parametrize("turns", [0, 2, 3, 9])
def test_no_other_numbers_of_turns(turns: int) -> None:
    with pytest.raises(InputError, match=r"turns"):
        TileEncoder(turns=turns)


def kind(turns: int) -> Kind:
    options = TileEncoder(turns=turns, **SMALL).as_dict()  # type: ignore[arg-type]
    return kind_of(encoder(turns), Normalise(), options, "32", "cpu")


def test_features_of_other_turns_are_other_features() -> None:
    kinds = [kind(turns).key for turns in (1, 4, 8)]
    assert len(set(kinds)) == 3
    digests = [digest_of(encoder(turns), Normalise()) for turns in (1, 4, 8)]
    assert len(set(digests)) == 3
    options = {"encoder": {**SMALL, "frozen": True}, "attention_widths": [8, 8]}
    one, two = (grow(2, **options, encoder_turns=turns) for turns in (1, 8))
    for member in (one, two):
        member.encoder.load_state_dict(encoder(1).state_dict())
    assert not same_encoder([one, two])
    assert same_encoder([one, one])


def test_one_turn_changes_nothing_of_what_is_kept() -> None:
    told = TileEncoder(**SMALL).as_dict()  # type: ignore[arg-type]
    before = {name: value for name, value in told.items() if name != "turns"}
    assert kind_of(encoder(1), Normalise(), before, "32", "cpu").key == kind(1).key


@pytest.mark.parametrize(("turns", "known"), [(1, False), (4, False), (8, True)])
def test_a_store_knows_a_turned_tile_where_turns_do_not_count(tmp_path, turns: int, known: bool) -> None:  # type: ignore[no-untyped-def]
    store = open_store(tmp_path / "f", 1.0, print)
    assert store is not None
    places = TileSet(np.array([[0, 0], [64, 0]]), (40, 40), 1.0)
    with store.shelf(kind(turns), "slide") as shelf:
        shelf.remember(places, encoder(turns)(tiles())[None, :2], torch.ones(1, 2, dtype=torch.bool))
        found = shelf.turned(3).remembered(places)
    assert (found is not None) == known
