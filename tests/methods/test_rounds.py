"""Exact sums and stopping: what they equal, what they read, and how often the interval holds.

Coverage of nominal 95 % intervals around ATS's probability (toy image of 400 cells, 250 or 300 runs each; the truth is
the exact mode's), on the log-odds scale / on the probability's own:

    tiles               truth 0.70       truth 0.98
    32, no stopping     0.94 / 0.93      0.94 / 0.91
    until 0.02, by 32   0.94 / 0.94      0.95 / 0.93      113 and 64 tiles on average
    8, no stopping      0.93 / 0.87      0.93 / 0.83
    until 0.05, by 8    0.91 / 0.89      0.96 / 0.85      29 and 17 tiles on average

A normal interval from eight tiles is too short, and a probability near 1 is skewed: hence the log-odds. Stopping costs
little once the first look is at 64 tiles, and most where few tiles meet a wide tolerance. (Stopping here asks for the
error alone, `unread` 1.)

All this is about evidence that draws do find. Where 2 % of the tiles decide and attention is flat
(`rare_slide`, 32 draws), the interval holds in 45 % of 200 runs and in none of those that met no such tile;
until 0.02 by the error alone 10 % stop with the wrong label, by error and unread mass none
(`tests/benchmarks/rare_evidence.py`).
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import rare_slide
import torch
from pairs import some_pairs
from sources import AskedSource
from torch import Generator, Tensor, nn

from wsi_attention.attention.expectation import draw_sample, unread_mass
from wsi_attention.errors import InputError, TileReadError
from wsi_attention.export.table import interval
from wsi_attention.methods.ats import AttentionSampling, SamplingOptions
from wsi_attention.methods.rounds import (
    LEAST_ROUNDS,
    UNKNOWN,
    Reading,
    Rounds,
    check_limits,
    limits,
    mean_of,
    spread_of,
)
from wsi_attention.nn.blocks import OverviewNet
from wsi_attention.structures import Output, TileBatch, TileSet
from wsi_attention.testing.models import FailingSource
from wsi_attention.tiles.tensors import TensorSource


class Shown(OverviewNet):
    """Attention logits are the image's first channel, times a sharpness; a cell is a pixel."""

    stride, dim = 1, 2

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        return self.sharpness * view[:, 0], view


def toy(
    draws: int, sharpness: float = 1.0, scale: float = 4.0, shift: float = 0.0, **more: object
) -> AttentionSampling:
    """A tile's feature is its pixel; the second class's log-odds are scale·(mean of the second channel − shift)."""
    classifier = nn.Linear(2, 2)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor([[0.0, 0.0], [0.0, scale]]))
        classifier.bias.copy_(torch.tensor([0.0, -scale * shift]))
    parts = (Shown(sharpness), nn.Flatten(), classifier, nn.Identity())
    options = SamplingOptions(tile_size=1, tile_mpp=1.0, overview_mpp=1.0, draws=draws, **more)  # type: ignore[arg-type]
    return AttentionSampling(*parts, options).eval()  # type: ignore[arg-type]


def image(side: int = 20) -> Tensor:
    """Two channels; where attention is high the second one is too."""
    pixels = torch.randn(1, 2, side, side, generator=Generator().manual_seed(1))
    pixels[:, 1] = (pixels[:, 0] + pixels[:, 1]) / 2
    return pixels


@pytest.mark.parametrize("estimator", ["with-replacement", "sequential", "threshold", "normalised-threshold"])
def test_exact_is_the_sum_over_all_cells(estimator: str) -> None:
    pixels = image(17)
    source = AskedSource(pixels)
    output = toy(4, estimator=estimator).exact(source)
    attention = (1 - 1e-4) * pixels[0, 0].double().flatten().softmax(0) + 1e-4 / 289
    expected = (attention * pixels[0].flatten(1).double()).sum(-1)
    torch.testing.assert_close(output.terms["mean"][0].double(), expected, atol=1e-6, rtol=1e-6)
    (glimpse,) = output.glimpses[0]
    assert [len(tiles) for tiles in source.asked] == [256, 33]
    assert source.counters.tiles == len(glimpse.tiles) == 289
    np.testing.assert_allclose(glimpse.weights, attention.numpy(), rtol=1e-4)
    assert bool(output.spread.isnan())


def test_exact_leaves_background_and_failed_tiles_out() -> None:
    tissue = torch.zeros(1, 20, 20, dtype=torch.bool)
    tissue[:, 3:7, 2:5] = True
    output = toy(4).exact(AskedSource(image(), tissue))
    assert output.terms["cells"].shape == (1, 12)
    assert np.isnan(output.maps[0][0].values).sum() == 400 - 12
    failing = toy(4).exact(FailingSource(image(5), (0, 24)))
    (glimpse,) = failing.glimpses[0]
    assert glimpse.valid.sum() == 23
    assert (glimpse.weights[[0, 24]] == 0).all()
    assert glimpse.weights.sum() == pytest.approx(1)
    kept = torch.from_numpy(glimpse.attention[1:24]) @ image(5)[0].flatten(1).T.double()[1:24]
    torch.testing.assert_close(failing.terms["mean"][0].double(), kept / glimpse.attention[1:24].sum())
    with pytest.raises(TileReadError, match="none of the 25 tiles"):
        toy(4).exact(FailingSource(image(5), None))


class PartFails(TensorSource):
    """The first request cannot be read."""

    def read(self, tiles: TileSet) -> TileBatch:
        first = self.counters.tiles == 0
        batch = super().read(tiles)
        return TileBatch(batch.pixels, batch.valid & (not first))


def test_a_part_may_fail_whole() -> None:
    tiles = TileSet(np.stack([np.arange(10), np.zeros(10, int)], -1), (1, 1), 1.0)
    reading = Reading(PartFails(image()), tiles, nn.Identity(), nn.Flatten(), part=4)
    features, valid = reading.first(10)
    assert valid[0].tolist() == [False] * 4 + [True] * 6
    torch.testing.assert_close(features[0, 4:], image()[0, :, 0, 4:10].T)
    assert float(features[0, :4].abs().sum()) == 0.0


def test_a_reading_goes_on_where_it_was() -> None:
    source = AskedSource(image())
    tiles = TileSet(np.stack([np.arange(10), np.zeros(10, int)], -1), (1, 1), 1.0)
    reading = Reading(source, tiles, nn.Identity(), nn.Flatten(), part=4)
    few, _ = reading.first(3)
    many, _ = reading.first(10)
    assert [len(asked) for asked in source.asked] == [3, 4, 3]
    torch.testing.assert_close(many[:, :3], few)
    torch.testing.assert_close(many[0], image()[0, :, 0, :10].T)


def test_until_is_a_longer_draw() -> None:
    """A tolerance that is always met stops after the least rounds, with what twice the draws give from the start."""
    short = toy(6).until(TensorSource(image()), 0.99, 400, Generator().manual_seed(3))
    longer = toy(6 * LEAST_ROUNDS)(TensorSource(image()), Generator().manual_seed(3))
    assert short.terms["cells"].tolist() == longer.terms["cells"].tolist()
    for one, other in ((short.logits, longer.logits), (short.spread, longer.spread)):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(short.glimpses[0][0].weights, longer.glimpses[0][0].weights, rtol=1e-5)


def test_until_stops_at_the_tolerance_or_the_budget() -> None:
    source = AskedSource(image())
    output = toy(8).until(source, 0.04, 400, unread=1.0)
    n = len(output.glimpses[0][0].tiles)
    assert float(output.spread) <= 0.04
    assert n % 8 == 0 and 16 <= n < 400
    assert source.counters.tiles == n == sum(len(tiles) for tiles in source.asked)
    assert len(set(output.terms["cells"][0].tolist())) == n
    before = toy(n - 8)(TensorSource(image()))
    assert float(before.spread) > 0.04
    for budget, read in ((8, 8), (23, 16), (399, 392)):
        output = toy(8).until(TensorSource(image()), 1e-9, budget)
        assert output.terms["cells"].shape == (1, read)
        assert float(output.spread) > 1e-9


def test_until_reads_on_while_much_attention_is_unread() -> None:
    alone, both, wide = (toy(8).until(TensorSource(image()), 0.04, 400, unread=unread) for unread in (1.0, None, 0.2))
    masses = [float(one.unread_mass) for one in (alone, both, wide)]  # type: ignore[arg-type]
    assert masses[1] <= 0.04 < masses[2] <= 0.2 < masses[0]
    (glimpse,) = wide.glimpses[0]
    assert masses[2] == pytest.approx(1 - glimpse.attention.sum(), abs=1e-6)
    before = toy(len(glimpse.tiles) - 8)(TensorSource(image()))
    assert float(before.unread_mass) > 0.2  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"between 0 and 1; got 1\.5"):
        toy(8).until(TensorSource(image()), 0.04, 400, unread=1.5)


@pytest.mark.parametrize("estimator", ["with-replacement", "sequential", "threshold", "normalised-threshold"])
def test_unread_mass_of_every_draw_over_five_cells(estimator: str) -> None:
    """Enumerated: the mass of the cells that a draw of three left out, each set as often as its probability."""
    a = torch.tensor([0.4, 0.25, 0.2, 0.1, 0.05], dtype=torch.float64)
    runs = 20_000
    drawn = draw_sample(a.expand(runs, 5), 3, estimator, Generator().manual_seed(0))
    found = unread_mass(a.expand(runs, 5), drawn.cells, torch.ones_like(drawn.cells, dtype=torch.bool))
    expected = 0.0
    for order in itertools.product(range(5), repeat=3):
        chance, left = 1.0, 1.0
        for cell in order:
            chance *= float(a[cell]) / left
            left -= 0.0 if estimator == "with-replacement" else float(a[cell])
        if estimator == "with-replacement" or len(set(order)) == 3:
            expected += chance * (1.0 - sum(float(a[cell]) for cell in set(order)))
    for cells, mass in zip(drawn.cells[:200].tolist(), found[:200].tolist(), strict=True):
        assert mass == pytest.approx(1.0 - sum(float(a[cell]) for cell in set(cells)))
    assert float(found.mean()) == pytest.approx(expected, abs=4 * float(found.std()) / runs**0.5)


def test_what_could_not_be_read_is_unread() -> None:
    a = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.9, 0.0]], dtype=torch.float64)
    cells, valid = torch.tensor([[0, 1, 0], [1, 0, 0]]), torch.tensor([[True, False, False], [False, True, True]])
    torch.testing.assert_close(unread_mass(a, cells, valid), torch.tensor([0.5, 0.9], dtype=torch.float64))
    everything = torch.tensor([[0, 1, 2], [0, 1, 1]])
    assert unread_mass(a, everything, torch.ones_like(valid)).tolist() == [0.0, 0.0]


def test_one_draw_says_nothing_of_its_error() -> None:
    """Not 0, though no other draw contradicts it; and NaN where there was nothing to draw from."""
    assert float(toy(1, gradient="unbiased")(TensorSource(image())).spread) == UNKNOWN
    lone = TensorSource(image(1))
    for estimator in ("with-replacement", "sequential", "threshold"):
        assert bool(toy(1, estimator=estimator, gradient="unbiased")(lone).spread.isnan())


def test_a_single_draw_is_not_certain() -> None:
    output = toy(1, gradient="unbiased").until(TensorSource(image()), 1e-9, 400)
    assert output.terms["cells"].shape == (1, 400)


def test_until_ends_exactly_when_all_cells_are_read() -> None:
    output, exact = (toy(7).until(TensorSource(image()), 1e-9, 400), toy(7).exact(TensorSource(image())))
    assert output.terms["cells"].shape == (1, 400)
    assert bool(output.spread.isnan())
    torch.testing.assert_close(output.logits, exact.logits)


def test_one_cell_and_fewer_cells_than_draws() -> None:
    tissue = torch.zeros(1, 20, 20, dtype=torch.bool)
    tissue[0, 4, 4] = True
    for output in (toy(8).until(AskedSource(image(), tissue), 0.01, 8), toy(8).exact(AskedSource(image(), tissue))):
        assert output.terms["cells"].tolist() == [[84]]
        assert bool(output.spread.isnan())
        torch.testing.assert_close(output.terms["mean"][0], image()[0, :, 4, 4])


def test_until_repeats_itself_and_leaves_the_global_noise() -> None:
    model, source = toy(8), TensorSource(image())
    before = torch.random.get_rng_state()
    one, other = (model.until(source, 0.05, 100) for _ in range(2))
    assert bool((before == torch.random.get_rng_state()).all())
    assert bool((one.logits == other.logits).all())


def test_limits_and_batches_are_checked() -> None:
    for tolerance in (0.0, -0.1, 1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="above 0 and below 1"):
            check_limits(tolerance, 100, 8)
    with pytest.raises(InputError, match="budget 7 is less than the 8 tiles of one round"):
        toy(8).until(TensorSource(image()), 0.1, 7)
    two = TensorSource(image().repeat(2, 1, 1, 1))
    for look in (lambda: toy(8).exact(two), lambda: toy(8).until(two, 0.1, 100)):
        with pytest.raises(InputError, match="one image at a time"):
            look()


def rounds_of(weights: list[list[float]], features: list[list[float]]) -> Rounds:
    rounds = Rounds()
    for w, f in zip(weights, features, strict=True):
        rounds.add(torch.tensor(f)[None, :, None], torch.tensor(w)[None], torch.ones(1, len(w)))
    return rounds


def test_rounds_are_one_bag() -> None:
    rounds = rounds_of([[0.5, 0.5], [0.25, 0.75]], [[1.0, 3.0], [4.0, 8.0]])
    assert float(rounds.mean) == pytest.approx((2 + 7) / 2)
    unequal = rounds_of([[0.5, 0.5], [0.5, 1.5]], [[1.0, 3.0], [4.0, 8.0]])
    assert float(unequal.mean) == pytest.approx((0.5 + 1.5 + 2 + 12) / 3)
    assert unequal.weights.sum() == pytest.approx(1)
    assert len(unequal) == 2


def test_rounds_tell_how_much_new_rounds_would_differ() -> None:
    """300 times five rounds of four draws: the told error against the spread of the estimates."""
    classifier = nn.Linear(1, 2)
    nn.init.zeros_(classifier.bias)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor([[0.0], [1.0]]))
    generator, seen, told = Generator().manual_seed(0), [], []
    for _ in range(300):
        rounds = Rounds()
        for _ in range(5):
            rounds.add(torch.randn(1, 4, 1, generator=generator), torch.full((1, 4), 0.25), torch.ones(1, 4))
        seen.append(classifier(rounds.mean).softmax(-1)[0, 1].detach())
        told.append(rounds.spread(classifier)[0])
    assert float(torch.stack(told).mean() / torch.stack(seen).std()) == pytest.approx(1.0, abs=0.1)


def test_one_round_is_enough_only_without_chance() -> None:
    stop = limits(0.1, 0.3, 100, 8)
    certain, small, large, most = (torch.tensor([value]) for value in (math.nan, 0.05, 0.2, 0.3))
    assert stop.met(certain, most, 1)
    assert not stop.met(torch.zeros(1), torch.zeros(1), 1)
    assert stop.met(small, most, 2)
    assert not stop.met(large, most, 2)
    assert not stop.met(small, torch.tensor([0.31]), 2)
    assert limits(0.1, None, 100, 8).unread == 0.1


def test_weights_need_not_sum_to_one() -> None:
    features, weights = torch.randn(2, 5, 3), torch.rand(2, 5)
    torch.testing.assert_close(mean_of(features, weights), mean_of(features, 7 * weights))
    head = nn.Linear(3, 2)
    one, other = (spread_of(head, features, factor * weights, torch.ones(2, 5)) for factor in (1, 7))
    torch.testing.assert_close(one, other)


def coverage(probability: float, draws: int, tolerance: float | None, runs: int = 250) -> tuple[float, float, float]:
    """Shares of runs whose interval holds the exact probability, on either scale, and the mean number of tiles."""
    source, scale = TensorSource(image()), 2.0 if probability < 0.9 else 6.0
    mean = float(toy(draws).exact(source).terms["mean"][0, 1])
    model = toy(draws, scale=scale, shift=mean - math.log(probability / (1 - probability)) / scale)
    exact = model.exact(source).logits.softmax(-1)[0]
    assert float(exact[1]) == pytest.approx(probability, abs=1e-5)
    held, plain, tiles = 0, 0, 0
    with torch.no_grad():
        for seed in range(runs):
            generator = Generator().manual_seed(seed)
            output: Output = (
                model(source, generator) if tolerance is None else model.until(source, tolerance, 400, generator, 1.0)
            )
            p, best = (float(one) for one in output.logits.softmax(-1)[0].max(dim=-1))
            truth, spread = float(exact[int(best)]), float(output.spread)
            low, high = interval(p, spread)
            held += low <= truth <= high
            plain += abs(p - truth) <= 1.96 * spread
            tiles += output.terms["cells"].shape[1]
    return held / runs, plain / runs, tiles / runs


@pytest.mark.parametrize(("probability", "tolerance"), some_pairs([0.7, 0.98], [None, 0.02], each=1))
def test_intervals_hold_as_often_as_they_say(probability: float, tolerance: float | None) -> None:
    held, plain, tiles = coverage(probability, 32, tolerance, runs=300)
    assert 0.92 <= held <= 0.98
    assert 0.88 <= plain <= 0.98
    assert tiles == 32 if tolerance is None else 64 <= tiles < 130


@pytest.mark.parametrize(("probability", "tolerance"), some_pairs([0.98, 0.7], [None, 0.05], each=1))
def test_intervals_of_eight_tiles_are_a_little_too_short(probability: float, tolerance: float | None) -> None:
    held, plain, tiles = coverage(probability, 8, tolerance)
    assert 0.88 <= held <= 0.97
    assert plain < held
    assert tiles == 8 if tolerance is None else 16 <= tiles < 40


def test_an_error_cannot_know_what_no_draw_has_shown() -> None:
    """2 % of the tiles decide, attention is flat: a look at 32 of 400 meets none of them in half of all runs."""
    look = rare_slide.measure(32, None, runs=100)
    assert 0.4 <= look.covered <= 0.62
    assert look.covered_unseen <= 0.05


def test_stopping_asks_for_unread_mass_too() -> None:
    """By a small error alone one run in nine stops with the wrong label; no run does when 98 % has to be read."""
    alone = rare_slide.measure(32, 0.02, unread=1.0, runs=40)
    both = rare_slide.measure(32, 0.02, runs=40)
    assert alone.wrong >= 0.05
    assert both.wrong == 0.0
    assert both.tiles >= 0.98 * 400
