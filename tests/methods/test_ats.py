"""ATS as a model: the shipped contract, the paper's numbers, failed tiles, gradients, learning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sources import AskedSource, EmptySource, blobs
from torch import Generator, nn

from wsi_attention.errors import InputError, NoTissueError, TileReadError
from wsi_attention.methods.ats import AttentionSampling, ats, ats_mnist
from wsi_attention.nn.heads import ScaledLinear
from wsi_attention.testing.models import FailingSource, ModelContract
from wsi_attention.tiles.tensors import TensorSource

SMALL = {
    "tile_size": 32,
    "tile_mpp": 1.0,
    "overview_mpp": 4.0,
    "draws": 8,
    "encoder_widths": (8, 16),
    "features": 16,
    "attention_widths": (8, 8, 8),
    "context": 3,
}


def small(**arguments: object) -> AttentionSampling:
    torch.manual_seed(0)
    return ats(2, **{**SMALL, **arguments}).eval()


class TestPractical(ModelContract):
    def build(self) -> nn.Module:
        return ats(self.classes, **SMALL)


@pytest.mark.slow
class TestTop(ModelContract):
    unreached = ("evidence.*",)  # the head on the overview, whose loss has weight 0

    def build(self) -> nn.Module:
        return ats(self.classes, inference="top", overview_weight=0.0, **SMALL)


@pytest.mark.slow
class TestMnist(ModelContract):
    classes, channels = 4, 1

    def build(self) -> nn.Module:
        return ats_mnist(4, tile_size=26, overview_mpp=4.0)


class TestMnistFast(ModelContract):
    classes, channels = 4, 1

    def build(self) -> nn.Module:
        return ats_mnist(4, networks="fast", tile_size=40, overview_mpp=4.0, gradient="centred")


def test_draws_fall_while_training_and_are_the_options_at_prediction() -> None:
    model = ats_mnist(2, networks="fast", draws=3, earlier_draws=(7, 5))
    seen = []
    for epoch in range(1, 7):
        model.train()
        model.start_epoch(epoch, 6, [0.5, 0.5])
        seen.append(model.draws)
        assert model.eval().draws == 3
    assert seen == [7, 7, 5, 5, 3, 3]


@pytest.mark.parametrize("estimator", ["with-replacement", "sequential", "threshold"])
@pytest.mark.parametrize("gradient", ["unbiased", "centred"])
def test_contract_holds_for_every_estimator(estimator: str, gradient: str) -> None:
    class Contract(ModelContract):
        def build(self) -> nn.Module:
            return ats(self.classes, estimator=estimator, gradient=gradient, **SMALL)

    for name in ("glimpses_are_what_was_read", "one_cell_of_tissue_is_enough", "a_failed_tile_leaves_the_bag"):
        getattr(Contract(), f"test_{name}")()


@pytest.mark.parametrize("gradient", ["as-released", "as-ported"])
def test_released_gradients_give_the_same_output(gradient: str) -> None:
    images = TestPractical().images(2)
    for source in (TensorSource(images), FailingSource(images, (1, 3))):
        one = small(estimator="sequential", gradient="unbiased")(source, Generator().manual_seed(1))
        other = small(estimator="sequential", gradient=gradient)(source, Generator().manual_seed(1))
        torch.testing.assert_close(one.logits, other.logits, atol=1e-5, rtol=1e-5)


def test_papers_coordinates() -> None:
    """1500² seen at 180², tiles of 50: cell 0 starts at −21, cell 179 at 1471."""
    source = AskedSource(torch.rand(1, 1, 1500, 1500))
    model = ats_mnist(10).eval()
    output = model(source, Generator().manual_seed(0))
    grid = output.maps[0][0].grid
    assert grid.shape == (180, 180)
    corners = grid.locations(np.array([0, 179, 180 * 180 - 1]), (50, 50), 1.0)
    assert corners.tolist() == [[-21, -21], [1471, -21], [1471, 1471]]
    along = grid.locations(np.arange(180), (50, 50), 1.0)[:, 0]
    assert (np.diff(along) > 0).all()
    assert along[0] + 25 >= 0 and along[-1] + 25 < 1500
    cells = output.terms["cells"].numpy()
    assert (source.asked[-1].locations == grid.locations(cells, (50, 50), 1.0)).all()
    assert source.asked[-1].size == (50, 50)


def test_order_of_the_draws_is_kept_and_read_at_once() -> None:
    source = AskedSource(TestPractical().images(2))
    output = small()(source, Generator().manual_seed(0))
    for i, (glimpse,) in enumerate(output.glimpses):
        assert (glimpse.tiles.locations[0] == source.asked[-1].locations[i]).all()
        at_cells = output.maps[i][0].values.flatten()[output.terms["cells"][i].numpy()]
        np.testing.assert_allclose(glimpse.attention, at_cells, rtol=1e-6)
    assert source.counters.tiles == 16


def test_pixels_of_failed_tiles_do_not_matter_but_their_absence_does() -> None:
    images, model = TestPractical().images(), small()
    failing = model(FailingSource(images, (2,)), Generator().manual_seed(0))
    whole = model(TensorSource(images), Generator().manual_seed(0))
    kept = [i for i in range(8) if i != 2]
    weights = whole.glimpses[0][0].weights[kept]
    np.testing.assert_allclose(failing.glimpses[0][0].weights[kept], weights / weights.sum(), rtol=1e-5)
    features = whole.terms["features"][0, kept]
    mean = (torch.from_numpy(weights / weights.sum()).float()[:, None] * features).sum(0)
    torch.testing.assert_close(failing.terms["mean"][0], mean, atol=1e-5, rtol=1e-4)


def test_one_image_without_a_readable_tile_is_an_error() -> None:
    with pytest.raises(TileReadError, match="none of the 8 tiles"):
        small()(FailingSource(TestPractical().images(), tuple(range(8))))


def test_images_with_different_tissue_get_equally_many_draws() -> None:
    tissue = torch.zeros(2, 136, 200, dtype=torch.bool)
    tissue[0, :, :] = True
    tissue[1, :32, :96] = True
    source = AskedSource(TestPractical().images(2), tissue)
    output = small()(source, Generator().manual_seed(0))
    assert output.terms["cells"].shape == (2, 3)
    assert sorted(output.terms["cells"][1].tolist()) == [0, 1, 2]
    assert np.nansum(output.maps[1][0].values) == pytest.approx(1.0, abs=1e-5)


def test_no_tissue_is_an_error() -> None:
    with pytest.raises(NoTissueError, match="nothing to look at"):
        small()(EmptySource(TestPractical().images()))


def test_every_cell_drawn_leaves_no_spread() -> None:
    output = small(draws=500)(TensorSource(TestPractical().images()), Generator().manual_seed(0))
    assert output.terms["cells"].shape == (1, 35)
    assert bool(output.spread.isnan())
    features, attention = output.terms["features"][0], output.terms["attention"][0]
    exact = (attention[output.terms["cells"][0], None] * features).sum(0)
    torch.testing.assert_close(output.terms["mean"][0], exact, atol=1e-5, rtol=1e-4)


def test_spread_is_about_what_new_draws_show() -> None:
    model, source = small(draws=6), TensorSource(TestPractical().images())
    with torch.no_grad():
        model.classifier.linear.weight.mul_(8.0)
        outputs = [model(source, Generator().manual_seed(seed)) for seed in range(60)]
    first = outputs[0].logits.argmax()
    seen = torch.stack([one.logits.softmax(-1)[0, first] for one in outputs]).std()
    told = torch.stack([one.spread for one in outputs]).mean()
    assert 0.4 < float(told / seen) < 2.5


def test_top_takes_the_cells_with_most_attention() -> None:
    output = small(inference="top")(TensorSource(TestPractical().images()))
    attention = output.terms["attention"][0].detach()
    assert output.terms["cells"][0].tolist() == attention.sort(descending=True, stable=True).indices[:8].tolist()
    (glimpse,) = output.glimpses[0]
    np.testing.assert_allclose(glimpse.weights, glimpse.attention / glimpse.attention.sum(), rtol=1e-6)
    assert bool(output.spread.isnan())


@pytest.mark.parametrize("gradient", ["as-released", "as-ported"])
def test_top_has_its_own_weights_whatever_the_gradient(gradient: str) -> None:
    source = TensorSource(TestPractical().images())
    output = small(inference="top", estimator="sequential", gradient=gradient)(source)
    weights = torch.from_numpy(output.glimpses[0][0].weights).float()
    torch.testing.assert_close(output.terms["mean"][0], weights @ output.terms["features"][0], atol=1e-6, rtol=1e-5)


def test_top_is_one_quantity_and_no_estimate() -> None:
    """Training looks where prediction looks; an exact sum or more tiles would be of something else, and are refused."""
    model, source = small(inference="top"), TensorSource(TestPractical().images())
    told = model(source)
    taught = model.train()(source, Generator().manual_seed(5))
    assert told.terms["cells"].tolist() == taught.terms["cells"].tolist()
    torch.testing.assert_close(told.terms["mean"], taught.terms["mean"])
    for look in (lambda: model.eval().exact(source), lambda: model.eval().until(source, 0.1, 100)):
        with pytest.raises(
            InputError, match=r'^inference "top" is .* 8 most attended tiles.* are for models that predict'
        ):
            look()
    assert "8 most attended tiles" in model.quantity
    assert "`--exact` computes it" in small().quantity


def test_the_gradient_of_top_is_that_of_the_renormalised_sum() -> None:
    model, source = small(inference="top").train(), TensorSource(TestPractical().images())
    output = model(source)
    attention, cells = output.terms["attention"], output.terms["cells"]
    output.terms["mean"].sum().backward(inputs=list(model.attention.parameters()), retain_graph=True)
    seen = [value.grad.clone() for value in model.attention.parameters() if value.grad is not None]
    model.zero_grad()
    kept = attention.gather(-1, cells)
    sum_ = ((kept / kept.sum(-1, keepdim=True)).unsqueeze(-1) * output.terms["features"].detach()).sum()
    sum_.backward(inputs=list(model.attention.parameters()))
    wanted = [value.grad for value in model.attention.parameters() if value.grad is not None]
    for one, other in zip(seen, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_loss_by_hand() -> None:
    model, source = small(entropy_weight=0.1, overview_weight=0.5), TensorSource(TestPractical().images(2))
    output, target = model(source), torch.tensor([0, 1])
    a = output.terms["attention"]
    entropy = (a * (a + 1e-6).log()).sum(-1).mean()
    parts = [nn.functional.cross_entropy(x, target) for x in (output.logits, output.terms["overview_logits"])]
    torch.testing.assert_close(model.loss(output, target), parts[0] + 0.5 * parts[1] + 0.1 * entropy)


def test_the_papers_loss_has_no_overview() -> None:
    model = ats_mnist(2, tile_size=26, overview_mpp=4.0)
    output = model(TensorSource(torch.rand(1, 1, 64, 64)))
    assert output.terms["overview_logits"] is None
    assert isinstance(model.classifier, nn.Linear)


def test_bytes_and_floats_give_the_same_inside_the_image() -> None:
    images, model = TestPractical().images()[..., :128, :192], small()
    one = model(TensorSource(images), Generator().manual_seed(0))
    other = model(TensorSource(images / 255), Generator().manual_seed(0))
    torch.testing.assert_close(one.terms["attention"], other.terms["attention"], atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"estimator": "magic"}, "estimator is 'magic'; possible: with-replacement"),
        ({"gradient": "steep"}, "gradient is 'steep'"),
        ({"inference": "guess"}, "inference is 'guess'"),
        ({"encoder": "vgg"}, "encoder 'vgg'"),
        ({"gradient": "as-released"}, "belongs to estimator 'sequential'"),
        ({"draws": 0}, "draws is 0; it must lie between 1 and"),
        ({"draws": 1}, "gradient 'centred' is always 0 with draws 1"),
        ({"floor": 1.0}, "floor is 1; it must lie between 0 and 0.999"),
        ({"tile_mpp": 0.0}, "tile_mpp is 0; it must lie between 0.02 and"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        small(**arguments)


def test_diverged_attention_is_not_sampled() -> None:
    model = small()
    nn.init.constant_(model.attention.score.bias, float("nan"))
    with pytest.raises(ValueError, match="diverged"):
        model(TensorSource(TestPractical().images()))


def test_resnet_runs() -> None:
    model = ats(3, encoder="resnet18", tile_size=64, tile_mpp=1.0, overview_mpp=8.0, draws=2).eval()
    assert model(TensorSource(TestPractical().images())).logits.shape == (1, 3)
    assert isinstance(model.classifier, ScaledLinear)


def test_learns_where_to_look() -> None:
    """From labels of whole images alone, in a hundred steps; attention ends up on the blob."""
    generator = Generator().manual_seed(0)
    (images, target), (fresh, truth) = (
        blobs(96, 192, 40, generator, checked=True),
        blobs(60, 192, 40, generator, checked=True),
    )
    model = small(draws=4, encoder_widths=(8, 16, 16), mean=(0.5,) * 3, std=(0.2,) * 3).train()
    optimiser = torch.optim.Adam(model.parameters(), 4e-3)
    for _ in range(110):
        chosen = torch.randperm(96, generator=generator)[:12]
        loss = model.loss(model(TensorSource(images[chosen]), generator), target[chosen])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    with torch.no_grad():
        output = model.eval()(TensorSource(fresh))
    assert float((output.logits.argmax(-1) == truth).float().mean()) > 0.95
    assert float(output.terms["attention"][truth == 1].amax(-1).mean()) > 4 / 36
