"""What the overview foresees of tiles: the loss by hand, where its gradient goes, and what attention makes of it."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, nn
from torch.nn.functional import avg_pool2d

from wsi_attention.methods.grow.foresight import at, gated, missed
from wsi_attention.methods.grow.model import GrowingAttention, grow, grow_mnist
from wsi_attention.structures import Output
from wsi_attention.testing.models import ModelContract
from wsi_attention.tiles.tensors import TensorSource

SMALL = {"tile_size": 32, "tile_mpp": 1.0, "overview_mpp": 4.0, "draws": 6, "growth": 4, "encoder_widths": (8, 8)}
SMALL |= {"features": 8, "attention_widths": (8, 8, 8), "context": 3, "hidden": 8}
TARGET = torch.tensor([0, 1])


def small(**arguments: object) -> GrowingAttention:
    torch.manual_seed(0)
    made = grow(2, **{**SMALL, **arguments})
    assert isinstance(made, GrowingAttention)
    return made


def images() -> TensorSource:
    return TensorSource(torch.rand(2, 3, 384, 384, generator=Generator().manual_seed(1)))


def test_the_loss_is_the_mean_squared_distance_of_tiles_that_were_read() -> None:
    features = torch.arange(12.0).view(1, 2, 6)
    cells = torch.tensor([[5, 0, 3]])
    found = at(features, cells)
    assert found.tolist() == [[[5.0, 11.0], [0.0, 6.0], [3.0, 9.0]]]
    seen = torch.tensor([[[5.0, 10.0], [2.0, 6.0], [0.0, 0.0]]])
    valid = torch.tensor([[True, True, False]])
    assert float(missed(found, seen, valid)) == pytest.approx((1 + 4) / 2)
    assert float(missed(found, seen, torch.zeros_like(valid))) == 0


@torch.no_grad()
def test_parts_of_cells_are_gated_as_all_of_them_at_once() -> None:
    model, noise = seeing(), Generator().manual_seed(5)
    features, around = torch.randn(2, 3, 7, model.attention.dim, generator=noise)
    found = gated(model.gate, model.foresight, features, around, part=2)  # type: ignore[arg-type]
    own, beside = (model.foresight(one.transpose(1, 2).unsqueeze(-1)).squeeze(-1) for one in (features, around))
    wanted = model.gate(torch.cat([own, beside], dim=1).transpose(1, 2) * 0.5**0.5)
    torch.testing.assert_close(found, wanted)
    alone = gated(lambda by: by.sum(dim=-1), model.foresight, features, None, part=3)  # type: ignore[arg-type]
    torch.testing.assert_close(alone, own.sum(dim=1))


class TestForesight(ModelContract):
    bias = 0.1  # as without: docs/methods/grow.md §2.4

    def build(self) -> nn.Module:
        return grow(self.classes, **{**SMALL, "foresee_weight": 1.0})


def seeing(**arguments: object) -> GrowingAttention:
    """A model that foresees something, as it does after training."""
    model = small(foresee_weight=1.0, **arguments)
    assert model.foresight is not None
    nn.init.normal_(model.foresight.weight, generator=Generator().manual_seed(3))  # type: ignore[arg-type]
    return model


def test_the_overview_learns_from_it_and_the_encoder_does_not() -> None:
    model = seeing().train()
    told = model(images(), Generator().manual_seed(2)).terms
    assert told["foreseen"].shape == told["tiles"].shape == (2, told["cells"].shape[1], 8)
    missed(told["foreseen"], told["tiles"], told["valid"]).backward()
    learns = {name.split(".")[0] for name, one in model.named_parameters() if one.grad is not None and one.grad.any()}
    assert learns == {"attention", "foresight"}


@torch.no_grad()
def test_the_whole_loss_has_it_as_often_as_the_option_says() -> None:
    output = small(foresee_weight=3.0).train()(images(), Generator().manual_seed(2))
    told = output.terms
    bare = Output(**{**output.__dict__, "terms": told | {"foreseen": None}})
    rest = small().loss(bare, TARGET) + 3.0 * missed(told["foreseen"], told["tiles"], told["valid"])
    assert float(small(foresee_weight=3.0).loss(output, TARGET)) == pytest.approx(float(rest))


@torch.no_grad()
def test_attention_has_what_the_gate_makes_of_it_in_context() -> None:
    model, plain = seeing().eval(), small().eval()
    plain.load_state_dict({name: one for name, one in model.state_dict().items() if name in plain.state_dict()})
    view = images().overview(4.0)
    _, features = model.attention(model.preprocess(view))
    assert model.foresight is not None and model.gate is not None and model.trust is not None
    foreseen = model.foresight(features)
    ones = torch.ones_like(foreseen[:, :1])
    around = avg_pool2d(foreseen, 3, 1, 1) / avg_pool2d(ones, 3, 1, 1)
    log_gate = model.gate((torch.cat([foreseen, around], 1) * 0.5**0.5).movedim(1, -1)).flatten(1)
    logits, bare = (each._begin(images())[0].logits for each in (model, plain))
    assert torch.allclose(logits, bare + log_gate, atol=1e-5)
    assert (log_gate.std() > 0.01).all()
    model.trust.zero_()
    assert torch.equal(model(images()).logits, plain(images()).logits)


def test_at_first_it_changes_nothing() -> None:
    model, plain = small(foresee_weight=1.0).eval(), small().eval()
    plain.load_state_dict({name: one for name, one in model.state_dict().items() if name in plain.state_dict()})
    assert torch.allclose(model(images()).logits, plain(images()).logits, atol=1e-5)
    assert plain.foresight is None and "foreseen" in plain(images()).terms


@torch.no_grad()
def test_holding_tiles_changes_no_attention() -> None:
    model = seeing().eval()
    before = model._begin(images())[0].attention
    assert model.hold([1e-6, 1e-6])
    assert torch.equal(model._begin(images())[0].attention, before)


def test_every_builder_heeds_the_option_and_without_a_gate_it_is_the_loss_alone() -> None:
    assert grow_mnist(4, foresee_weight=1.0).foresight is not None
    bare = small(foresee_weight=1.0, pooling="attention")
    assert bare.foresight is not None and bare.trust is None
    told = bare.train()(images(), Generator().manual_seed(2)).terms
    assert told["foreseen"].shape == told["tiles"].shape


def test_without_the_overview_s_own_loss_it_is_there_alone() -> None:
    model = small(foresee_weight=1.0).train()
    model.evidence = None
    told = model(images(), Generator().manual_seed(2)).terms
    assert told["overview_logits"] is None and told["foreseen"].shape[-1] == 8


def test_what_it_foresees_comes_nearer_to_what_tiles_show() -> None:
    model = small(foresee_weight=1.0).train()
    optimiser = torch.optim.Adam([*model.attention.parameters(), *model.foresight.parameters()], 1e-2)  # type: ignore[union-attr]
    losses = []
    for seed in range(25):
        told = model(images(), Generator().manual_seed(seed)).terms
        loss = missed(told["foreseen"], told["tiles"], told["valid"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
