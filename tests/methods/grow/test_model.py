"""Grow as a model: the shipped contract, what is read around telling tiles, its sums, stopping, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sources import AskedSource
from torch import Generator, Tensor, nn

from wsi_attention.errors import InputError
from wsi_attention.methods.grow.model import GrowingAttention, grow, grow_mnist
from wsi_attention.methods.grow.neighbours import blocks
from wsi_attention.testing.models import FailingSource, ModelContract
from wsi_attention.tiles.tensors import TensorSource

SMALL = {
    "tile_size": 32,
    "tile_mpp": 1.0,
    "overview_mpp": 4.0,
    "draws": 6,
    "growth": 4,
    "encoder_widths": (8, 8),
    "features": 8,
    "attention_widths": (8, 8, 8),
    "context": 3,
    "hidden": 8,
}


def small(**arguments: object) -> GrowingAttention:
    torch.manual_seed(0)
    made = grow(2, **{**SMALL, **arguments}).eval()
    assert isinstance(made, GrowingAttention)
    return made


class TestWhole(ModelContract):
    bias = 0.1  # blocks that are read in part, and growing where draws have shown something: docs/methods/grow.md §2.4

    def build(self) -> nn.Module:
        return grow(self.classes, **SMALL)


class TestMnist(ModelContract):
    classes, channels = 4, 1

    def build(self) -> nn.Module:
        return grow_mnist(4, tile_size=40, overview_mpp=4.0, gradient="leave-one-out")


PARTS = [{"around": False}, {"growth": 0}, {"pooling": "attention"}, {"settled": 0.5}, {"explore": 5.0}]


@pytest.mark.parametrize("parts", [*PARTS, {"growth": 0, "around": False, "pooling": "attention"}])
def test_contract_holds_with_parts_left_out(parts: dict[str, object]) -> None:
    class Contract(ModelContract):
        def build(self) -> nn.Module:
            return grow(self.classes, **{**SMALL, **parts})

    for name in ("glimpses_are_what_was_read", "a_failed_tile_leaves_the_bag", "certificates_are_what_is_promised"):
        getattr(Contract(), f"test_{name}")()


class Lamp(nn.Module):
    """Features of two numbers: whether a tile is bright, and whether it is not."""

    dim = 2

    def forward(self, tiles: Tensor) -> Tensor:
        bright = (tiles.mean(dim=(1, 2, 3)) > 0.5).float()
        return torch.stack([bright, 1 - bright], dim=-1)


class Bright(nn.Module):
    """log ω: 0 for a bright tile, -9 for another."""

    def forward(self, seen: Tensor) -> Tensor:
        return -9 * (seen[..., 1] > 0).float()


def lit(**arguments: object) -> tuple[GrowingAttention, Tensor]:
    """A model that knows bright tiles, and an image of 12 × 12 cells with 3 × 3 bright ones from cell (4, 5)."""
    model = small(around=False, draws=100, **arguments)
    model.encoder, model.gate, model.preprocess = Lamp(), Bright(), nn.Identity()  # type: ignore[assignment]
    model.classifier = nn.Linear(2, 2, bias=False)
    image = torch.zeros(1, 3, 384, 384)
    image[:, :, 128:224, 160:256] = 1.0
    return model.eval(), image


def test_growing_reads_what_lies_around_bright_tiles() -> None:
    model, image = lit(growth=10, rounds=2)
    model.draws = 12
    source = AskedSource(image)
    cells = np.array([])
    for seed in range(100):
        source.asked.clear()
        output = model(source, Generator().manual_seed(seed))
        cells = output.terms["cells"][0].numpy()
        drawn = [divmod(int(cell), 12) for cell in cells[:12]]
        if sum(4 <= row < 7 and 5 <= col < 8 for row, col in drawn) == 1:
            break
    assert [len(one) for one in source.asked] == [12, 10, 10]
    assert len(set(cells.tolist())) == 32
    bright = {12 * row + col for row in range(4, 7) for col in range(5, 8)}
    assert bright <= set(cells.tolist())
    (glimpse,) = output.glimpses[0]
    assert glimpse.weights[np.isin(cells, list(bright))].sum() > 0.99
    assert not glimpse.drawn


def met_and_read(model: GrowingAttention, image: Tensor, seed: int) -> tuple[bool, int]:
    """Whether a draw of two met a bright tile, and how many of the nine were read in the end."""
    cells = model(TensorSource(image), Generator().manual_seed(seed)).terms["cells"][0]
    bright = torch.isin(cells, torch.tensor([12 * row + col for row in range(4, 7) for col in range(5, 8)]))
    return bool(bright[:2].any()), int(bright.sum())


def test_exploring_finds_bright_tiles_that_no_draw_has_met() -> None:
    """A maximal set of cells, none in another's block, has one in every block: at most 36 of 12 × 12."""
    exploring, image = lit(growth=12, rounds=5, explore=5.0)
    staying, _ = lit(growth=12, rounds=5)
    exploring.draws = staying.draws = 2
    staying.load_state_dict(exploring.state_dict())
    missed = [seed for seed in range(30) if not met_and_read(staying, image, seed)[0]]
    assert len(missed) > 20
    assert [met_and_read(staying, image, seed)[1] for seed in missed].count(0) > 0
    assert [met_and_read(exploring, image, seed)[1] for seed in range(30)] == [9] * 30
    in_training = [met_and_read(one.train(), image, seed) for one in (exploring, staying) for seed in range(30)]
    assert in_training[:30] == in_training[30:], "training does not explore"


def test_growing_ends_where_a_round_tells_nothing() -> None:
    model, image = lit(growth=8, rounds=5, settled=0.2)
    model.draws = 12
    ended = 0
    for seed in range(20):
        source = AskedSource(image)
        (glimpse,) = model(source, Generator().manual_seed(seed)).glimpses[0]
        assert 2 <= len(source.asked) <= 6
        if len(source.asked) < 6:
            ended += 1
            assert glimpse.weights[-8:].sum() < 0.2
    assert ended > 0


def test_with_every_cell_drawn_it_is_exact() -> None:
    source = TensorSource(TestWhole().images())
    model = small(draws=500)
    torch.testing.assert_close(model(source).logits, model.exact(source).logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        model.until(source, 0.5, 10**6, None, 1e-6).logits, model.exact(source).logits, atol=1e-5, rtol=1e-4
    )


def test_the_exact_sum_is_what_its_definition_says() -> None:
    model, source = small(), TensorSource(TestWhole().images())
    output = model.exact(source)
    attention, told = output.terms["attention"][0], output.terms
    weights = attention[told["cells"][0]] * told["log_gate"][0].exp()
    mean = (weights[:, None] * told["features"][0]).sum(0) / weights.sum()
    torch.testing.assert_close(output.logits[0], model.classifier(mean), atol=1e-5, rtol=1e-4)


def test_growing_in_parts_reads_no_tile_twice() -> None:
    source = AskedSource(TestWhole().images())
    small().until(source, 1e-9, 10**6, Generator().manual_seed(1))
    places = np.concatenate([one.locations[0] for one in source.asked])
    assert len(np.unique(places, axis=0)) == len(places) == 35


def test_a_failed_tile_is_no_part_of_its_neighbours_context() -> None:
    model, images = small(draws=500, growth=0), TestWhole().images()
    spoilt = model(FailingSource(images, (0,)), Generator().manual_seed(0)).terms
    whole = model(TensorSource(images), Generator().manual_seed(0)).terms
    cells = whole["cells"][0]
    assert bool((spoilt["cells"][0] == cells).all()) and not spoilt["weights"][0, 0].any()
    near = torch.isin(cells, blocks(cells[None, :1], (5, 7), 3)[0, 0])
    same = (spoilt["features"] == whole["features"])[0].all(dim=-1)
    assert bool((same == ~near).all())


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"side": 4}, "side 4: a block has a middle"),
        ({"pooling": "x"}, "pooling"),
        ({"explore": 5.0, "growth": 0}, "explore 5 beside growth 0"),
        ({"explore": 5.0, "rounds": 0}, "explore 5 beside .* rounds 0"),
        ({"explore": 5.0, "side": 1}, "explore 5 beside .* side 1"),
    ],
)
def test_wrong_options_are_told(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(InputError, match=why):
        small(**wrong)
