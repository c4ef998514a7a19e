"""Certificates of Zoom-In: the label is that of `exact`, and regions are viewed only where a sub-tile is wanted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sources import AskedSource, blobs
from torch import Generator, Tensor

from wsi_attention.errors import InputError, TileReadError
from wsi_attention.methods.zoom_in.model import ZoomIn, zoom_in
from wsi_attention.structures import Certificate, Output, TileBatch, TileSet
from wsi_attention.tiles.tensors import TensorSource

SMALL = {
    "tile_size": 16,
    "tile_mpp": 1.0,
    "overview_mpp": 8.0,
    "view_mpps": (4.0,),
    "cells_um": (64.0, 16.0),
    "draws": 8,
    "encoder_widths": (8, 16),
    "features": 16,
    "attention_widths": (8, 8),
    "context": 3,
}
THREE = {**SMALL, "view_mpps": (4.0, 2.0), "cells_um": (64.0, 32.0, 16.0)}
EVERYTHING = 10**9


def model(seed: int = 0, **arguments: object) -> ZoomIn:
    torch.manual_seed(seed)
    return zoom_in(2, **{**SMALL, **arguments}).eval()


def image(seed: int = 0) -> Tensor:
    return blobs(2, 128, 32, Generator().manual_seed(seed))[0][1:]


def certificate(output: Output) -> Certificate:
    assert output.certificate is not None
    return output.certificate


@pytest.mark.parametrize("more", [{}, THREE], ids=["two steps", "three steps"])
@pytest.mark.parametrize("level", [1.0, 0.99])
def test_a_certified_label_is_that_of_the_exact_sum(more: dict[str, object], level: float) -> None:
    for seed in range(2):
        network, pixels = model(seed, **more), image(seed)
        exact = network.exact(TensorSource(pixels))
        output = network.certified(source := AskedSource(pixels), level, EVERYTHING, Generator().manual_seed(seed))
        found, glimpses = certificate(output), output.glimpses[0]
        assert found.kind == ("proof" if level == 1 else found.kind) != "no"
        assert int(output.logits.argmax()) == found.classes[0] == int(exact.logits.argmax())
        lead = float(exact.logits[0, found.classes[0]] - exact.logits[0, found.classes[1]])
        assert found.lead[0] - 1e-4 <= lead <= found.lead[1] + 1e-4
        assert source.counters.tiles == sum(len(glimpse.tiles) for glimpse in glimpses)
        assert found.tiles == int(glimpses[-1].valid.sum())
        assert [glimpse.name for glimpse in glimpses] == [one.name for one in exact.glimpses[0]]
        assert [one.name for one in output.maps[0]] == [one.name for one in exact.maps[0]]
        for glimpse in glimpses:
            assert glimpse.weights.sum() == pytest.approx(1)
            assert not glimpse.drawn
        read = float(glimpses[-1].attention[glimpses[-1].valid].sum())
        assert float(output.unread_mass) == pytest.approx(1 - read, abs=1e-5)  # type: ignore[arg-type]


def test_with_all_sub_tiles_read_the_answer_is_the_exact_one() -> None:
    network, pixels = model(), image()
    with torch.no_grad():
        network.classifier.bias += network.exact(TensorSource(pixels)).logits[0].flip(0)  # type: ignore[operator]
    exact = network.exact(TensorSource(pixels))
    output = network.certified(TensorSource(pixels), 1.0, EVERYTHING)
    assert certificate(output).tiles == len(exact.glimpses[0][-1].tiles) == 64
    np.testing.assert_allclose(output.logits.numpy(), exact.logits.numpy(), atol=1e-5)
    assert float(output.unread_mass) < 1e-9  # type: ignore[arg-type]
    for one, other in zip(output.maps[0], exact.maps[0], strict=True):
        np.testing.assert_allclose(one.values, other.values, atol=1e-7)


def test_the_budget_counts_views_and_sub_tiles() -> None:
    network, pixels = model(), image()
    for budget in (2, 3, 9):
        output = network.certified(source := AskedSource(pixels), 0.99, budget, Generator().manual_seed(1))
        assert source.counters.tiles <= budget
        again = network.certified(AskedSource(pixels), 0.99, budget, Generator().manual_seed(1))
        assert (output.logits == again.logits).all()
    with pytest.raises(InputError, match="a budget of 1 tiles certifies nothing; give at least 2"):
        network.certified(AskedSource(pixels), 0.99, 1)


class NoViews(TensorSource):
    """Views of some regions cannot be read; a view is larger than 16 level-0 pixels."""

    def __init__(self, images: Tensor, regions: set[tuple[int, int]] | None) -> None:
        super().__init__(images)
        self._regions = regions

    def read(self, tiles: TileSet) -> TileBatch:
        batch = super().read(tiles)
        if tiles.footprint[0] <= 16:
            return batch
        fails = [self._regions is None or (x, y) in self._regions for x, y in tiles.locations[0].tolist()]
        return TileBatch(batch.pixels, batch.valid & ~torch.tensor(fails)[None])


def test_a_region_that_cannot_be_viewed_is_unread_for_ever() -> None:
    network, pixels = model(), image()
    attention = network.exact(TensorSource(pixels)).terms["attention"][0]
    region = int(attention.argmax())
    place = {(region % 2 * 64, region // 2 * 64)}
    output = network.certified(NoViews(pixels, place), 1.0, EVERYTHING)
    exact = network.exact(NoViews(pixels, place))
    assert float(output.unread_mass) >= float(attention[region]) - 1e-6  # type: ignore[arg-type]
    assert certificate(output).kind == "no" or int(output.logits.argmax()) == int(exact.logits.argmax())
    assert certificate(output).failed == 1
    with pytest.raises(TileReadError):
        network.certified(NoViews(pixels, None), 1.0, EVERYTHING)
