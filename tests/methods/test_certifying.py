"""Certificates of whole models: the label is that of `exact`, failed tiles and hidden ones are reckoned with."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import rare_slide
import torch
from sources import AskedSource
from torch import Generator, Tensor, nn
from torch.nn import functional

from wsi_attention.errors import InputError, TileReadError
from wsi_attention.methods.ats import AttentionSampling, SamplingOptions
from wsi_attention.methods.certifying import HALF_ROUNDING, ROUNDING, head_of, prepared
from wsi_attention.methods.method import build_model
from wsi_attention.nn.blocks import Encoder, OverviewNet
from wsi_attention.nn.heads import ScaledLinear
from wsi_attention.protocols import Certifying
from wsi_attention.structures import Certificate, Output, TileBatch, TileSet
from wsi_attention.targets.find import aim, target_of
from wsi_attention.tiles.tensors import TensorSource

EVERYTHING = 10**9


class Shown(OverviewNet):
    """Attention logits are the first channel times a sharpness; a cell is a pixel."""

    stride, dim = 1, 4

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness

    def forward(self, view: Tensor) -> tuple[Tensor, Tensor]:
        return self.sharpness * view[:, 0], view


class Direction(Encoder):
    """The other channels of a pixel, made 1 long."""

    dim = 3

    def forward(self, tiles: Tensor) -> Tensor:
        return functional.normalize(tiles.flatten(1)[:, 1:].float(), dim=-1)


class FailsAt(TensorSource):
    """Tiles at some places cannot be read; None stands for all places."""

    def __init__(self, images: Tensor, cells: tuple[int, ...] | None) -> None:
        super().__init__(images)
        self._cells = cells

    def read(self, tiles: TileSet) -> TileBatch:
        batch = super().read(tiles)
        flat = torch.from_numpy(tiles.locations[..., 1] * self.extent[0] + tiles.locations[..., 0])
        fails = torch.ones_like(flat) > 0 if self._cells is None else torch.isin(flat, torch.tensor(self._cells))
        return TileBatch(batch.pixels, batch.valid & ~fails)


def ats(sharpness: float = 1.0, classes: int = 2, **options: object) -> AttentionSampling:
    """A tile is a pixel with four channels: one for attention, three for the feature."""
    torch.manual_seed(0)
    given = SamplingOptions(tile_size=1, tile_mpp=1.0, overview_mpp=1.0, draws=8, **options)  # type: ignore[arg-type]
    return AttentionSampling(Shown(sharpness), Direction(), ScaledLinear(3, classes, 4.0), nn.Identity(), given).eval()


def image(seed: int, side: int = 12, lean: float = 0.7) -> Tensor:
    """Pixels whose features lean to one side, and more so where attention is high."""
    random = Generator().manual_seed(seed)
    pixels = torch.randn(1, 4, side, side, generator=random)
    pixels[:, 1:] += (lean + 0.2 * pixels[:, :1]) * torch.randn(1, 3, 1, 1, generator=random)
    return pixels


def certificate(output: Output) -> Certificate:
    assert output.certificate is not None
    return output.certificate


def label(output: Output) -> int:
    return int(output.logits[0].argmax())


@pytest.mark.parametrize("classes", [2, 4])
def test_a_certified_label_is_that_of_the_exact_sum(classes: int) -> None:
    kinds: dict[str, int] = {}
    for seed in range(12):
        model, pixels = ats(1.0 + seed % 3 * 2, classes), image(seed)
        exact = model.exact(TensorSource(pixels))
        for level in (1.0, 0.99):
            output = model.certified(source := AskedSource(pixels), level, EVERYTHING, Generator().manual_seed(seed))
            found = certificate(output)
            assert (found.level, found.kind) in ((1.0, "proof"), (0.99, "0.99"))
            assert label(output) == found.classes[0] == label(exact)
            lead = exact.logits[0, found.classes[0]] - exact.logits[0, found.classes[1]]
            assert found.lead[0] - 1e-4 <= float(lead) <= found.lead[1] + 1e-4
            assert found.score[0] < 0 < found.score[1]
            assert found.tiles == source.counters.tiles == int(output.glimpses[0][0].valid.sum()) < 144
            assert output.unread_mass is not None
            assert 0 < float(output.unread_mass) < 1
            assert bool(output.spread.isnan()) == (found.drawn < 1)
            kinds[found.kind] = kinds.get(found.kind, 0) + 1
    assert kinds["proof"] >= 12
    assert kinds["0.99"] >= 4


def test_proof_is_found_at_the_tile_where_the_formula_finds_it() -> None:
    """Against the definition, tile by tile in the order of attention."""
    model, pixels = ats(2.0), image(3)
    output = model.certified(TensorSource(pixels), 1.0, EVERYTHING)
    exact = model.exact(TensorSource(pixels))
    attention, order = exact.terms["attention"][0].double(), exact.terms["attention"][0].argsort(descending=True)
    winner = label(exact)
    weight = (model.classifier.log_scale.exp() * model.classifier.linear.weight).double().detach()
    u = weight[winner] - weight[1 - winner]
    scores = functional.normalize(pixels[0, 1:].flatten(1).T.double(), dim=-1) @ u
    known, left = (attention * scores)[order].cumsum(0), 1 - attention[order].cumsum(0)
    expected = int((known - left * u.norm() > 0).nonzero()[0]) + 1
    assert 1 < expected < 144
    assert expected <= certificate(output).tiles <= math.ceil(1.5 * expected)
    assert certificate(output).score == pytest.approx((-float(u.norm()), float(u.norm())), rel=1e-4)
    assert output.terms["cells"][0].tolist() == order[: certificate(output).tiles].tolist()


def test_with_all_tiles_read_the_answer_is_the_exact_one() -> None:
    model, pixels = ats(0.0), image(5, side=6, lean=0.0)
    output, exact = model.certified(TensorSource(pixels), 1.0, EVERYTHING), model.exact(TensorSource(pixels))
    assert certificate(output).tiles == 36
    torch.testing.assert_close(output.logits, exact.logits, atol=1e-6, rtol=1e-5)
    assert float(output.unread_mass) < 1e-9  # type: ignore[arg-type]
    lead = float((exact.logits[0, label(exact)] - exact.logits[0, 1 - label(exact)]).item())
    assert certificate(output).lead == pytest.approx((lead, lead), abs=1e-5)


@pytest.mark.parametrize("level", [1.0, 0.99])
def test_one_decisive_tile_under_flat_attention_is_found_or_nothing_is_certified(level: float) -> None:
    """Of 400 tiles one decides. With a budget below all of them the wrong label is never certified."""
    pixels = rare_slide.slide(1 / 400)
    model = rare_slide.model(pixels, 32)
    assert label(model.exact(TensorSource(pixels))) == 1
    unseen = 0
    for seed in range(15):
        output = model.certified(TensorSource(pixels), level, 200, Generator().manual_seed(seed))
        if not bool((output.terms["features"] == 1.0).any()):
            unseen += 1
            assert (label(output), certificate(output).kind) == (0, "no")
        assert certificate(output).kind == "no" or certificate(output).classes[0] == 1
    assert unseen > 0
    whole = model.certified(TensorSource(pixels), level, EVERYTHING)
    assert (label(whole), certificate(whole).classes[0]) == (1, 1)


def test_tiles_that_fail_are_unread_for_ever_and_the_label_is_that_of_exact_without_them() -> None:
    model, pixels = ats(1.0), image(2)
    for level in (1.0, 0.99):
        source = FailsAt(pixels, (0, 5, 17, 60, 143))
        output = model.certified(source, level, EVERYTHING)
        assert certificate(output).level is not None
        assert label(output) == label(model.exact(FailsAt(pixels, (0, 5, 17, 60, 143))))
    sharp = ats(6.0)
    first = int(sharp.exact(TensorSource(pixels)).terms["attention"][0].argmax())
    output = sharp.certified(FailsAt(pixels, (first,)), 1.0, EVERYTHING)
    mass = float(sharp.exact(TensorSource(pixels)).terms["attention"][0].max())
    assert mass > 0.5
    assert (certificate(output).kind, certificate(output).failed) == ("no", 1)
    assert float(output.unread_mass) == pytest.approx(mass, abs=1e-6)  # type: ignore[arg-type]
    with pytest.raises(TileReadError, match="none of the 144 tiles"):
        model.certified(FailsAt(pixels, None), 1.0, EVERYTHING)


def test_the_budget_is_kept_and_the_same_seed_reads_the_same() -> None:
    model, pixels = ats(0.0, gradient="unbiased"), image(1, lean=0.2)
    for budget in (1, 7, 40):
        output = model.certified(source := AskedSource(pixels), 0.99, budget, Generator().manual_seed(1))
        assert source.counters.tiles <= budget
        again = model.certified(AskedSource(pixels), 0.99, budget, Generator().manual_seed(1))
        assert (output.logits == again.logits).all()
        assert output.certificate == again.certificate
    assert source.counters.tiles > 7
    other = model.certified(AskedSource(pixels), 0.99, 40, Generator().manual_seed(2))
    assert other.terms["cells"].tolist() != again.terms["cells"].tolist()


def test_the_label_is_that_after_calibration() -> None:
    model, pixels = ats(2.0), image(3)
    logits = model.exact(TensorSource(pixels)).logits[0]
    winner, gap = int(logits.argmax()), float(logits.max() - logits.min())
    shift = [0.0, 0.0]
    shift[1 - winner] = 1.5 * gap
    output = model.certified(TensorSource(pixels), 1.0, EVERYTHING, calibration=((1.0, 1.0), shift))
    assert certificate(output).kind == "proof"
    assert certificate(output).classes == (1 - winner, winner)
    assert certificate(output).lead[0] <= 0.5 * gap + 1e-5
    assert certificate(output).lead[1] >= 0.5 * gap - 1e-5
    cooler = certificate(model.certified(TensorSource(pixels), 1.0, EVERYTHING, calibration=((0.5, 0.5), (0.0, 0.0))))
    plain = certificate(model.certified(TensorSource(pixels), 1.0, EVERYTHING))
    np.testing.assert_allclose(cooler.lead, 0.5 * np.array(plain.lead))
    assert (cooler.tiles, cooler.classes) == (plain.tiles, plain.classes)


def test_what_cannot_be_certified_says_why() -> None:
    model, source = ats(), TensorSource(image(0))
    assert isinstance(model, Certifying)
    assert model.uncertifiable == ""
    top = ats(inference="top")
    assert "most attended tiles" in top.uncertifiable
    bent = ats()
    bent.classifier = nn.Sequential(bent.classifier, nn.Tanh())
    assert bent.uncertifiable.startswith("its classifier is not linear")
    loose = ats()
    loose.encoder = nn.Flatten()  # type: ignore[assignment]
    assert loose.uncertifiable.startswith("its encoder does not promise features of length 1")
    number = ats()
    aim(number, target_of({"kind": "regression", "columns": ["size"], "mean": [0.0], "deviation": [1.0]}, ["size"]))
    assert number.uncertifiable.startswith("it was asked for regression, and a certificate is about the one label")
    for one in (top, bent, loose, number):
        with pytest.raises(InputError, match="no label of it can be certified"):
            one.certified(source, 1.0, EVERYTHING)
    for level, budget, text in ((0.5, 9, "above 0.5 and below 1"), (1.5, 9, "got 1.5"), (0.99, 0, "at least 1")):
        with pytest.raises(InputError, match=text):
            model.certified(source, level, budget)
    with pytest.raises(InputError, match="one image at a time"):
        model.certified(TensorSource(torch.cat([image(0), image(1)])), 1.0, EVERYTHING)
    assert not isinstance(build_model("tnet", 2), Certifying)


def test_heads_are_read_as_they_compute() -> None:
    features = torch.randn(5, 3)
    for head in (ScaledLinear(3, 4, 2.5), nn.Linear(3, 4), nn.Linear(3, 4, bias=False)):
        expected = head(features).detach().double().numpy()
        np.testing.assert_allclose(head_of(head).scores(features.double().numpy()), expected, atol=1e-6)
    with pytest.raises(InputError, match="only a linear classifier"):
        head_of(nn.Identity())
    model = ats()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert prepared(model.encoder, model.classifier, None).rounding == HALF_ROUNDING
    assert prepared(model.encoder, model.classifier, None).rounding == ROUNDING
    assert replace(certificate(model.certified(TensorSource(image(0)), 1.0, 1)), level=None).kind == "no"
