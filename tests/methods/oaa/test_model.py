"""OAA and OAA+ as models: the shipped contract, the page's figures, poolings, the hybrid loss, learning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sources import EmptySource, blobs
from torch import Generator, Tensor, nn

from wsi_attention.errors import InputError, NoTissueError
from wsi_attention.methods.oaa.model import (
    AccumulatedAttention,
    ClassScores,
    IntegralAttention,
    OaaOptions,
    OaaPlusOptions,
    oaa,
    oaa_plus,
)
from wsi_attention.methods.oaa.trunks import Trunk, Vgg16Trunk
from wsi_attention.nn.preprocess import Normalise
from wsi_attention.testing.models import ModelContract
from wsi_attention.tiles.tensors import TensorSource

SMALL = {"overview_mpp": 4.0, "trunk_widths": (8, 8), "context": 3, "head_widths": (8,)}


def small(**arguments: object) -> AccumulatedAttention:
    torch.manual_seed(0)
    return oaa(2, **{**SMALL, **arguments}).eval()  # type: ignore[arg-type]


def small_plus(**arguments: object) -> IntegralAttention:
    torch.manual_seed(0)
    return oaa_plus(2, **{**SMALL, **arguments}).eval()  # type: ignore[arg-type]


class TestOaa(ModelContract):
    attends = "class_aware"

    def build(self) -> nn.Module:
        return oaa(self.classes, **SMALL)  # type: ignore[arg-type]


@pytest.mark.slow
class TestTopOfThree(ModelContract):
    classes, attends = 3, "class_aware"

    def build(self) -> nn.Module:
        return oaa(self.classes, pool="top", objective="cross-entropy", **SMALL)  # type: ignore[arg-type]


@pytest.mark.slow
class TestSoftMaximum(ModelContract):
    attends = "class_aware"

    def build(self) -> nn.Module:
        return oaa(self.classes, pool="lse", **SMALL)  # type: ignore[arg-type]


class TestOaaPlus(ModelContract):
    attends = "integral"

    def build(self) -> nn.Module:
        return oaa_plus(self.classes, **SMALL)  # type: ignore[arg-type]


def images(b: int = 1) -> Tensor:
    return TestOaa().images(b)


def left_half() -> Tensor:
    tissue = torch.zeros(1, 136, 200, dtype=torch.bool)
    tissue[..., :96] = True
    return tissue


def test_scores_are_the_mean_of_the_class_maps_over_tissue() -> None:
    model, source = small(), TensorSource(images(), left_half())
    output = model(source)
    class_maps, tissue = output.terms["class_maps"], output.terms["tissue"]
    assert 0 < int(tissue.sum()) < tissue.numel()
    torch.testing.assert_close(output.logits[0], class_maps[0][:, tissue[0]].mean(-1))
    with torch.no_grad():
        model.class_aware[-1].bias.add_(2.5)
    torch.testing.assert_close(model(source).logits, output.logits + 2.5)


@pytest.mark.parametrize("build", [small, small_plus])
def test_maps_are_named_confined_and_in_range(build: object) -> None:
    source = TensorSource(images(2))
    output = build()(source)  # type: ignore[operator]
    assert source.counters.tiles == 0
    for found, logits in zip(output.maps, output.logits, strict=True):
        assert [one.name for one in found] == ["class-0", "class-1", "attention"]
        assert all(one.values.min() >= 0 and one.values.max() <= 1 for one in found)
        winner = found[int(logits.argmax())].values
        if winner.sum() > 0:
            np.testing.assert_allclose(found[-1].values, winner / winner.sum(), rtol=1e-5)


def test_a_map_reaches_one_over_tissue_whatever_lies_outside() -> None:
    output = small()(TensorSource(images(), left_half()))
    class_maps, tissue = output.terms["class_maps"][0], output.terms["tissue"][0]
    for c, found in enumerate(output.maps[0][:2]):
        highest = class_maps[c][tissue].relu().max()
        wanted = (class_maps[c].relu() / (highest + 1e-8))[tissue]
        np.testing.assert_allclose(found.values[tissue.numpy()], wanted.detach().numpy(), rtol=1e-6)
        assert np.isnan(found.values[~tissue.numpy()]).all()


def test_negative_class_maps_are_zero_and_attention_even() -> None:
    model = small()
    with torch.no_grad():
        model.class_aware[-1].bias.sub_(1e3)
    found = model(TensorSource(images(), left_half())).maps[0]
    cells = int(np.isfinite(found[0].values).sum())
    assert all(np.nanmax(one.values) == 0 for one in found[:2])
    np.testing.assert_allclose(found[-1].values[np.isfinite(found[-1].values)], 1 / cells, rtol=1e-6)


def test_one_cell_of_tissue_takes_all_attention() -> None:
    tissue = torch.zeros(1, 136, 200, dtype=torch.bool)
    tissue[0, 0, 0] = True
    found = small(pool="top")(TensorSource(images(), tissue)).maps[0]
    assert np.isfinite(found[-1].values).sum() == 1
    assert np.nanmax(found[-1].values) == 1.0


@pytest.mark.parametrize("pool", ["mean", "lse", "top"])
def test_an_image_smaller_than_a_cell_is_classified(pool: str) -> None:
    output = small(pool=pool)(TensorSource(images()[..., :3, :5]))
    assert output.maps[0][-1].values.tolist() == [[1.0]]
    assert bool(output.logits.isfinite().all())


def test_no_tissue_is_an_error() -> None:
    with pytest.raises(NoTissueError, match="nothing to look at"):
        small()(EmptySource(images()))


def test_soft_margin_by_hand() -> None:
    """−(1/C) Σ_c [ y log σ(s) + (1 − y) log(1 − σ(s)) ] with s = (1, −2, 0.5), label 0."""
    logits = torch.tensor([[1.0, -2.0, 0.5]])
    expected = (np.log1p(np.exp(-1.0)) + np.log1p(np.exp(-2.0)) + np.log1p(np.exp(0.5))) / 3
    assert float(ClassScores(OaaOptions()).loss(logits, torch.tensor([0]))) == pytest.approx(expected, rel=1e-6)
    found = ClassScores(OaaOptions(objective="cross-entropy")).loss(logits, torch.tensor([0]))
    assert float(found) == pytest.approx(float(-logits.log_softmax(-1)[0, 0]))


class Given(Trunk):
    """Hands out the maps it was given, whatever it sees: (1, 1, h, w) pixels in, (1, k, h, w) out."""

    stride = 1

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values

    def forward(self, view: Tensor) -> Tensor:
        return self.values


def integral_of(values: Tensor, **options: object) -> tuple[IntegralAttention, TensorSource]:
    head, plain = nn.Identity(), Normalise((0.0,), (1.0,))
    model = IntegralAttention(Given(values), head, head, plain, OaaPlusOptions(overview_mpp=1.0, **options))  # type: ignore[arg-type]
    return model, TensorSource(torch.zeros(1, 1, *values.shape[-2:]))


def test_guided_loss_by_the_pages_figures() -> None:
    """P = (1, 0.5, 0), q = (0.8, 0.6, 0.3): L = 0.595953, beside the loss on the label."""
    logits = torch.tensor([0.8, 0.6, 0.3]).logit().reshape(1, 1, 1, 3)
    model, source = integral_of(logits)
    output, target = model(source), torch.tensor([0])
    label = model.scores.loss(output.logits, target)
    accumulated = torch.tensor([1.0, 0.5, 0.0]).reshape(1, 1, 1, 3)
    assert float(model.guided_loss(output, target, accumulated) - label) == pytest.approx(0.595953, abs=1e-6)
    nothing = model.guided_loss(output, target, torch.zeros(1, 1, 1, 3)) - label
    suppressed = -torch.log1p(-torch.tensor([0.8, 0.6, 0.3])).mean()
    assert float(nothing) == pytest.approx(float(suppressed), abs=1e-6)
    assert output.maps[0][0].values[0] == pytest.approx([0.8, 0.6, 0.3], abs=1e-6)


def test_sets_of_the_image_or_of_each_class() -> None:
    values = torch.tensor([[0.8, 0.6, 0.3], [0.1, 0.2, 0.3]]).logit().reshape(1, 2, 1, 3)
    accumulated = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]]).reshape(1, 2, 1, 3)
    found = {}
    for sets in ("image", "class"):
        model, source = integral_of(values, sets=sets)
        output, target = model(source), torch.tensor([0])
        found[sets] = float(model.guided_loss(output, target, accumulated) - model.scores.loss(output.logits, target))
    absent = [-np.log(0.9), -np.log(0.8), -np.log(0.7)]
    assert found["image"] == pytest.approx(0.239278 + (0.356675 + sum(absent)) / 4, abs=1e-5)
    assert found["class"] == pytest.approx((0.595953 + sum(absent) / 3) / 2, abs=1e-5)


def test_a_negative_class_is_trained_by_what_is_not_there() -> None:
    values = torch.tensor([[0.8, 0.6, 0.3], [0.1, 0.2, 0.3]]).logit().reshape(1, 2, 1, 3)
    accumulated = torch.rand(1, 2, 1, 3).index_fill(1, torch.tensor([1]), 0.0)
    model, source = integral_of(values, negative=0)
    output, target = model(source), torch.tensor([0])
    zero = torch.zeros_like(accumulated)
    torch.testing.assert_close(model.guided_loss(output, target, accumulated), model.guided_loss(output, target, zero))


def test_without_maps_only_absent_classes_are_held_down() -> None:
    values = torch.tensor([[0.8, 0.6, 0.3], [0.1, 0.2, 0.3]]).logit().reshape(1, 2, 1, 3)
    model, source = integral_of(values)
    output, target = model(source), torch.tensor([0])
    found = float(model.loss(output, target) - model.scores.loss(output.logits, target))
    assert found == pytest.approx(-np.log([0.9, 0.8, 0.7]).mean(), abs=1e-6)


def test_positions_without_tissue_belong_to_no_set() -> None:
    model, tissue = small_plus(), left_half()
    output, target = model(TensorSource(images(), tissue)), torch.tensor([1])
    inside = output.terms["tissue"][:, None]
    accumulated = torch.rand(1, 2, *inside.shape[-2:], generator=Generator().manual_seed(0))
    one = model.guided_loss(output, target, accumulated)
    other = model.guided_loss(output, target, accumulated.masked_fill(~inside, 0.0))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"pool": "max"}, "pool is 'max'; possible: mean, lse, top"),
        ({"objective": "hinge"}, "objective is 'hinge'"),
        ({"backbone": "resnet"}, "backbone is 'resnet'"),
        ({"top": 0.0}, "top is 0; it must lie between"),
        ({"sharpness": 0.0}, "sharpness is 0; it must lie between"),
        ({"overview_mpp": 0.0}, "overview_mpp is 0; it must lie between"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], text: str) -> None:
    for build in (small, small_plus):
        with pytest.raises(InputError, match=text):
            build(**arguments)


@pytest.mark.parametrize(
    ("arguments", "text"), [({"negative": 2}, "negative must be"), ({"sets": "all"}, "sets is 'all'")]
)
def test_wrong_arguments_of_oaa_plus(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        small_plus(**arguments)


def test_the_papers_backbone_has_stride_eight_and_vgg16s_parameters() -> None:
    trunk = Vgg16Trunk()
    convolutions = {name: tuple(value.shape) for name, value in trunk.named_parameters() if value.ndim == 4}
    assert len(convolutions) == 13
    assert sum(value.numel() for value in trunk.parameters()) == 14_714_688
    assert convolutions["features.28.weight"] == (512, 512, 3, 3)
    assert trunk(torch.zeros(1, 3, 32, 48)).shape == (1, 512, 4, 6)
    model = oaa(2, backbone="vgg16", head_widths=(16,))
    assert model.map_stride == 8
    assert 0.009 < float(model.class_aware[0].weight.detach().std()) < 0.011
    assert float(model.class_aware[0].bias.detach().abs().sum()) == 0.0


@pytest.mark.parametrize("pool", ["mean", "lse", "top"])
def test_learns_where_the_evidence_is(pool: str) -> None:
    generator = Generator().manual_seed(0)
    (pixels, target), (fresh, truth) = blobs(48, 96, 24, generator), blobs(24, 96, 24, generator)
    model = small(pool=pool, mean=(0.5,) * 3, std=(0.2,) * 3).train()
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        chosen = torch.randperm(48, generator=generator)[:12]
        loss = model.loss(model(TensorSource(pixels[chosen])), target[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        output = model.eval()(TensorSource(fresh))
    assert float((output.logits.argmax(-1) == truth).float().mean()) > 0.8
    bright = nn.functional.max_pool2d(nn.functional.avg_pool2d(fresh.mean(1), 8), 2).flatten(1)
    pointed = torch.tensor([bright[i, int(np.argmax(one[1].values))] for i, one in enumerate(output.maps)])
    assert float((pointed[truth == 1] > 0.6).float().mean()) > 0.8
