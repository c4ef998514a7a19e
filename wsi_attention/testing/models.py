"""The contract of a model, as tests: a package that brings its own model proves it with them.

    from wsi_attention.testing.models import ModelContract

    class TestMyModel(ModelContract):
        classes = 2

        def build(self):
            return my_builder(self.classes)

pytest collects the methods; without pytest, `MyContract().check()` runs them all.
"""

from __future__ import annotations

import fnmatch
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from wsi_attention.errors import InputError, TileReadError
from wsi_attention.protocols import Certifying, Estimating, contract_of
from wsi_attention.structures import Output, TileBatch, TileSet
from wsi_attention.tiles.tensors import TensorSource

BAD = 7
"""What unreadable tiles hold in `FailingSource`: nothing that a model may use."""
STEPS = 4
"""Steps of training that together must reach every parameter."""


class FailingSource(TensorSource):
    """A `TensorSource` some of whose tiles cannot be read.

    Args:
        images: (b, c, h, w).
        failed: which tiles of each request fail, flat indices along n; None for all of them.
    """

    def __init__(self, images: Tensor, failed: tuple[int, ...] | None) -> None:
        super().__init__(images)
        self._failed = failed

    def read(self, tiles: TileSet) -> TileBatch:
        """Read as always, with the failing tiles marked and their pixels spoilt."""
        batch = super().read(tiles)
        index = list(range(len(tiles))) if self._failed is None else [i for i in self._failed if i < len(tiles)]
        batch.pixels[:, index] = BAD
        batch.valid[:, index] = False
        return batch


def _unreached(gradient: Tensor | None) -> bool:
    return gradient is None or (gradient.numel() > 1 and not bool(gradient.any()))


class ModelContract:
    """Subclass it and override `build`.

    Attributes:
        classes: number of classes.
        channels: of the images.
        size: (w, h) of the images, in level-0 pixels of 1 µm; at least two cells of the model each way.
        attends: what the names of the parameters of its attention contain; empty where it has none.
        unreached: names of parameters, as patterns of `fnmatch`, whose gradient is zero in the first epoch, whatever is
            drawn; say beside each why.
        bias: what a logit may differ from that of the exact sum, on average over draws, where draws hardly differ; say
            beside it where the bias comes from.
    """

    classes: int = 2
    channels: int = 3
    size: tuple[int, int] = (200, 136)
    attends: str = "attention"
    unreached: tuple[str, ...] = ()
    bias: float = 1e-6

    def build(self) -> nn.Module:
        """Return a fresh model that fits the images: tiles and cells a few of them across."""
        raise NotImplementedError

    def check(self) -> None:
        """Run every test of the contract.

        Raises:
            AssertionError: the first promise that the model breaks.
        """
        for name in sorted(dir(self)):
            if name.startswith("test_"):
                getattr(self, name)()

    def images(self, b: int = 1) -> Tensor:
        """Return random images (b, c, h, w) of bytes."""
        shape = (b, self.channels, self.size[1], self.size[0])
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=Generator().manual_seed(11))

    def model(self) -> Any:
        """Return `build`'s model with fixed weights, in eval mode."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.build().eval()

    def test_has_every_attribute_that_is_used(self) -> None:
        """Check that the attributes of `AttentionModel` are there: scales above 0, whole numbers from 1, modules."""
        model = contract_of(self.model())
        assert model.tile_mpp > 0 and model.overview_mpp > 0
        assert isinstance(model.overview_pixels, int) and model.overview_pixels >= 1
        assert isinstance(model.map_stride, int) and model.map_stride >= 1
        assert model.encoder is None or isinstance(model.encoder, nn.Module)
        assert isinstance(model.preprocess, nn.Module)

    def test_output_is_whole(self) -> None:
        """Check logits, spread, a tuple of glimpses and of maps for each image, all finite."""
        for b in (1, 3):
            output = _look(self.model(), TensorSource(self.images(b)))
            assert output.logits.shape == (b, self.classes)
            assert output.spread.shape == (b,)
            assert bool(output.logits.isfinite().all())
            assert bool((output.spread.isnan() | (output.spread >= 0)).all())
            assert output.unread_mass is None or output.unread_mass.shape == (b,)
            assert output.unread_mass is None or bool(((output.unread_mass >= 0) & (output.unread_mass <= 1)).all())
            assert len(output.glimpses) == len(output.maps) == b

    def test_glimpses_are_what_was_read(self) -> None:
        """Check that weights sum to 1, attention is positive, boxes overlap the image, the counters agree."""
        source = TensorSource(self.images())
        output = _look(self.model(), source)
        for glimpse in output.glimpses[0]:
            n = len(glimpse.tiles)
            assert glimpse.weights.shape == glimpse.attention.shape == glimpse.valid.shape == (n,)
            assert abs(glimpse.weights.sum() - 1.0) < 1e-6
            assert (glimpse.weights >= 0).all()
            assert (glimpse.attention > 0).all()
            assert glimpse.tiles.locations.shape == (1, n, 2)
            x, y, w, h = glimpse.tiles.boxes[0].T
            assert ((x < self.size[0]) & (y < self.size[1]) & (x + w > 0) & (y + h > 0)).all()
        assert source.counters.tiles == sum(len(glimpse.tiles) for glimpse in output.glimpses[0])

    def test_maps_lie_on_the_image(self) -> None:
        """Check that maps have their grid's shape; attention covers the image and sums to 1."""
        for found in _look(self.model(), TensorSource(self.images())).maps[0]:
            assert found.values.shape == found.grid.shape
            if found.name == "attention":
                assert found.grid.cols * found.grid.step[0] >= self.size[0] - 1
                assert found.grid.rows * found.grid.step[1] >= self.size[1] - 1
                assert abs(np.nansum(found.values) - 1.0) < 1e-4

    def test_same_generator_same_output(self) -> None:
        """Check that in eval mode the generator's state decides everything; without one the result is fixed too."""
        model, images = self.model(), self.images(2)
        for seed in (3, None):
            one, other = (_look(model, TensorSource(images), seed) for _ in range(2))
            assert bool((one.logits == other.logits).all())
            for mine, yours in zip(one.glimpses, other.glimpses, strict=True):
                for a, b in zip(mine, yours, strict=True):
                    assert (a.tiles.locations == b.tiles.locations).all()
                    assert (a.weights == b.weights).all()

    def test_global_noise_is_left_alone(self) -> None:
        """Check that an eval pass neither uses nor advances torch's global generator."""
        model, source = self.model(), TensorSource(self.images())
        before = torch.random.get_rng_state()
        _look(model, source, None)
        assert bool((before == torch.random.get_rng_state()).all())

    def test_background_is_never_looked_at(self) -> None:
        """Check that outside the tissue maps are NaN, "attention" nowhere else, and no tile is centred there."""
        tissue = torch.zeros((1, self.size[1], self.size[0]), dtype=torch.bool)
        tissue[:, :, : self.size[0] // 2] = True
        source = TensorSource(self.images(), tissue)
        output = _look(self.model(), source)
        for found in output.maps[0]:
            cells = source.tissue(found.grid)[0].numpy()
            missing = np.isnan(found.values)
            assert missing[~cells].all()
            assert found.name != "attention" or not missing[cells].any()
        for glimpse in output.glimpses[0]:
            x, _, w, _ = glimpse.tiles.boxes[0].T
            assert (x + w / 2 <= self.size[0] / 2 + w).all()

    def test_one_cell_of_tissue_is_enough(self) -> None:
        """Check that with fewer cells than tiles wanted the model reads fewer."""
        tissue = torch.zeros((1, self.size[1], self.size[0]), dtype=torch.bool)
        tissue[:, 0, 0] = True
        output = _look(self.model(), TensorSource(self.images(), tissue))
        assert bool(output.logits.isfinite().all())
        assert bool(output.spread.isnan().all())
        assert output.unread_mass is None or float(output.unread_mass) < 1e-6

    def test_spread_says_whether_anything_was_drawn(self) -> None:
        """Check that spread is NaN where every generator leads to the same logits, and a number where they differ."""
        model, images = self.model(), self.images()
        outputs = [_look(model, TensorSource(images), seed) for seed in range(6)]
        same = all(torch.allclose(outputs[0].logits, other.logits, atol=1e-7, rtol=1e-5) for other in outputs[1:])
        assert all(bool(output.spread.isnan()) == same for output in outputs)
        assert not same or not any(glimpse.drawn for output in outputs for glimpse in output.glimpses[0])

    def test_unread_mass_is_what_the_maps_leave(self) -> None:
        """Check that it is 1 less the attention of the last glimpse's different tiles; a failed one is unread."""
        model, images = self.model(), self.images()
        for source in (TensorSource(images), FailingSource(images, (0,))):
            output = _look(model, source)
            if output.unread_mass is None:
                return
            last = output.glimpses[0][-1]
            _, first = np.unique(last.tiles.locations[0], axis=0, return_index=True)
            read = float(last.attention[first][last.valid[first]].sum())
            assert abs(float(output.unread_mass) - (1.0 - read)) < 1e-4

    def test_a_failed_tile_leaves_the_bag(self) -> None:
        """Check that it is marked, weighs nothing, and its pixels do not matter."""
        model, images = self.model(), self.images()
        output = _look(model, FailingSource(images, (0,)))
        for glimpse in output.glimpses[0]:
            assert not glimpse.valid[0]
            assert glimpse.weights[0] == 0.0
            assert abs(glimpse.weights.sum() - 1.0) < 1e-6
        assert bool(output.logits.isfinite().all())

    def test_only_failed_tiles_are_an_error(self) -> None:
        """Check that TileReadError is raised when not one tile could be read."""
        if not _look(self.model(), TensorSource(self.images())).glimpses[0]:
            return
        try:
            _look(self.model(), FailingSource(self.images(), None))
        except TileReadError:
            return
        raise AssertionError("all tiles failed, and the model gave a label")

    def test_loss_reaches_every_parameter(self) -> None:
        """Check that the loss is a finite scalar, and every parameter has a gradient that is not zero everywhere.

        A single draw may miss a part or leave a unit switched off, and what lies behind weights that start at 0 learns
        from the second step on: the gradients of a few steps are added up. A single number only has to take part: a
        bias added to all scores alike drops out of their softmax, and its gradient is 0 but for rounding.
        """
        model = self.model().train()
        optimiser = torch.optim.SGD((value for value in model.parameters() if value.requires_grad), lr=1e-3)
        for seed in range(STEPS):
            output = model(TensorSource(self.images(2)), Generator().manual_seed(seed))
            loss = model.loss(output, torch.tensor([0, self.classes - 1]))
            assert loss.shape == ()
            assert bool(loss.isfinite())
            loss.backward()
            optimiser.step()
        gradients = {name: value.grad for name, value in model.named_parameters() if value.requires_grad}
        missed = [name for name, gradient in gradients.items() if _unreached(gradient)]
        assert all(gradient is None or bool(gradient.isfinite().all()) for gradient in gradients.values())
        excused = {pattern: fnmatch.filter(missed, pattern) for pattern in self.unreached}
        assert all(excused.values()), f"reached after all, or no such parameter: {excused}"
        missed = [name for name in missed if not any(name in names for names in excused.values())]
        assert not missed, f"the loss does not reach {', '.join(missed)}"
        assert not self.attends or any(self.attends in name for name in gradients)

    def test_half_an_estimating_model_is_none(self) -> None:
        """Check that a model with a part of `Estimating` has all of it: else nobody would ask for the rest."""
        model = self.model()
        parts = [name for name in vars(Estimating) | Estimating.__annotations__ if not name.startswith("_")]
        there = [name for name in parts if hasattr(model, name)]
        assert there in ([], parts), f"of {', '.join(parts)} there is only {', '.join(there)}"

    def test_sums_are_what_is_promised(self) -> None:
        """Check that `exact` leaves nothing to chance, and that `until` reads no more tiles than its budget."""
        model = self.model()
        if not isinstance(model, Estimating) or model.other_quantity:
            return
        with torch.no_grad():
            exact = model.exact(source := TensorSource(self.images()))
            assert source.counters.tiles == _tiles(exact)
            assert bool(exact.spread.isnan())
            assert exact.unread_mass is not None and float(exact.unread_mass) < 1e-6
            assert not any(glimpse.drawn for glimpse in exact.glimpses[0])
            assert bool((exact.logits == model.exact(TensorSource(self.images())).logits).all())
            _look(model, source := TensorSource(self.images()))
            budget = 4 * source.counters.tiles
            for tolerance in (1e-6, 0.99):
                output = model.until(source := TensorSource(self.images()), tolerance, budget, Generator())
                assert 0 < source.counters.tiles == _tiles(output) <= budget
                assert bool(output.logits.isfinite().all())
                assert output.unread_mass is not None
                assert 0 <= float(output.unread_mass) <= 1
            certain = model.until(TensorSource(self.images()), 0.5, 10**6, Generator(), 1e-3)
            assert certain.unread_mass is not None and float(certain.unread_mass) <= 1e-3

    def test_exact_is_what_draws_estimate(self) -> None:
        """Check that predictions of an `Estimating` model are the exact sum on average, or that it offers no sum.

        On average a logit may be off by half of its standard deviation over draws, or by `bias` if that is more.
        """
        model = self.model()
        if not isinstance(model, Estimating):
            return
        if model.other_quantity:
            for look in (partial(model.exact), partial(model.until, tolerance=0.1, budget=10**6)):
                try:
                    look(TensorSource(self.images()))
                except InputError:
                    continue
                raise AssertionError("the prediction is of another quantity, and the sum is given all the same")
            return
        with torch.no_grad():
            exact = model.exact(TensorSource(self.images())).logits
        drawn = torch.stack([_look(model, TensorSource(self.images()), seed).logits for seed in range(64)])
        allowed = (0.5 * drawn.std(dim=0)).clamp(min=self.bias)
        assert bool(((drawn.mean(dim=0) - exact).abs() <= allowed).all())

    def test_certificates_are_what_is_promised(self) -> None:
        """Check that a certified label is that of `exact`, where there is such, and that the budget is kept."""
        model = self.model()
        if not isinstance(model, Certifying):
            return
        with torch.no_grad():
            counts = not model.uncertifiable
            whole = model.exact(TensorSource(self.images())) if counts and isinstance(model, Estimating) else None
        for level, budget in ((1.0, 64), (0.99, 12)):
            source = TensorSource(self.images())
            try:
                with torch.no_grad():
                    output = model.certified(source, level, budget, Generator().manual_seed(0))
            except InputError:
                assert model.uncertifiable, "a model that says nothing against a certificate refuses one"
                continue
            found = output.certificate
            assert not model.uncertifiable and found is not None
            assert found.level in (None, 1.0, level)
            assert found.lead[0] <= found.lead[1] and (found.level is None or found.lead[0] >= 0)
            assert (
                found.level != 1.0 or found.lead[0] > 0
            )  # a confidence may tell 0: docs/certificate.md, "The interval"
            assert int(output.logits[0].argmax()) == found.classes[0] != found.classes[1]
            assert source.counters.tiles == _tiles(output) and (whole is None or source.counters.tiles <= budget)
            if whole is not None and found.level == 1.0:
                lead = whole.logits[0, found.classes[0]] - whole.logits[0, found.classes[1]]
                assert found.lead[0] - 1e-3 <= float(lead) <= found.lead[1] + 1e-3
                assert int(whole.logits[0].argmax()) == found.classes[0]

    def test_modes_are_left_alone(self) -> None:
        """Check that a pass changes no mode of any part, and no weight."""
        model = self.model()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        _look(model, TensorSource(self.images()))
        assert not any(module.training for module in model.modules())
        assert all(bool((value == before[name]).all()) for name, value in model.state_dict().items())


def _look(model: Any, source: TensorSource, seed: int | None = 0) -> Output:
    with torch.no_grad():
        output: Output = model(source, None if seed is None else Generator().manual_seed(seed))
    return output


def _tiles(output: Output) -> int:
    return sum(len(glimpse.tiles) for glimpse in output.glimpses[0])
