"""Attention over an overview in strips, against the whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pairs import some_pairs
from torch import Generator, Tensor, nn

from wsi_attention.errors import InputError
from wsi_attention.geometry import OVERVIEW_PIXELS, Grid
from wsi_attention.methods import overview
from wsi_attention.methods.ats import ats
from wsi_attention.methods.overview import look_over
from wsi_attention.methods.zoom_in.model import zoom_in
from wsi_attention.nn.attention_nets import MnistAttentionNet, PooledAttention, TissueAttentionNet
from wsi_attention.nn.blocks import OverviewNet
from wsi_attention.nn.ink_attention import InkAttentionNet
from wsi_attention.slide.slide import open_slide
from wsi_attention.structures import Strip
from wsi_attention.tiles.source import SlideSource
from wsi_attention.tiles.tensors import TensorSource

NETWORKS = {
    "tissue": lambda: TissueAttentionNet(3, (6, 8), 5),
    "no context": lambda: TissueAttentionNet(3, (6,), 1),
    "deep": lambda: TissueAttentionNet(3, (4, 4, 4, 4), 3),
    "pooled": lambda: PooledAttention(TissueAttentionNet(3, (6, 8), 5), 3),
    "mnist": lambda: MnistAttentionNet(3),
    "ink": lambda: InkAttentionNet(3),
}


def network(name: str) -> Any:
    torch.manual_seed(1)
    return NETWORKS[name]().double().eval()


class Whole(TensorSource):
    """A source without strips."""

    overview_strips = None  # type: ignore[assignment]


@torch.no_grad()
def looked(source: TensorSource, name: str, tissue: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    net = network(name)
    grid = Grid.covering(source.extent, (2.0 * net.stride, 2.0 * net.stride))
    mask = source.tissue(grid) if tissue is None else tissue
    evidence = nn.Conv2d(net.dim, 2, 1).double()
    torch.nn.init.ones_(evidence.weight)
    logits, scores = look_over(source, net, nn.Identity(), (grid, 2.0), mask, evidence)
    assert scores is not None
    return logits, scores, mask


def images(b: int = 1) -> Tensor:
    return torch.rand(b, 3, 170, 94, generator=Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("b", "pixels"), some_pairs([1, 2], [1, 2_000, 9_000], each=1))
def test_strips_give_what_the_whole_gives(b: int, name: str, pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = looked(TensorSource(images(b)), name)
    monkeypatch.setattr(overview, "BLOCK_PIXELS", pixels)
    room = 1e-6 if name == "pooled" else 1e-12  # its logits are float32
    for found, expected in zip(looked(TensorSource(images(b)), name), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=room, atol=room)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_cell_less_of_surroundings_is_too_little(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = looked(TensorSource(images()), name)[0]
    monkeypatch.setattr(overview, "BLOCK_PIXELS", 1)
    made = NETWORKS[name]

    def shortsighted() -> Any:
        net = made()
        net.reach -= 1
        return net

    monkeypatch.setitem(NETWORKS, name, shortsighted)
    assert float((looked(TensorSource(images()), name)[0] - whole).abs().max()) > 1e-5


def test_cells_with_tissue_have_their_values_and_the_others_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, scores, everywhere = looked(TensorSource(images()), "tissue")
    tissue = torch.zeros_like(everywhere)
    tissue[0, 2:4, 5:7] = tissue[0, 15, 2] = True
    monkeypatch.setattr(overview, "BLOCK_PIXELS", 1)
    found, few, _ = looked(TensorSource(images()), "tissue", tissue)
    torch.testing.assert_close(found[tissue], whole[tissue], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(few[:, :, tissue[0]], scores[:, :, tissue[0]], rtol=1e-12, atol=1e-12)
    assert not found[0, 5:15].any()


def test_training_and_sources_without_strips_see_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = looked(TensorSource(images()), "tissue")[0]
    monkeypatch.setattr(overview, "BLOCK_PIXELS", 1)
    assert torch.equal(looked(Whole(images()), "tissue")[0], whole)

    def refused(self: TensorSource, downsample: float, rows: int, halo: int) -> Iterator[Strip[Tensor]]:
        raise AssertionError("strips in training")

    monkeypatch.setattr(TensorSource, "overview_strips", refused)
    source, net = TensorSource(images()), network("tissue").train()
    grid = Grid.covering(source.extent, (8.0, 8.0))
    assert look_over(source, net, nn.Identity(), (grid, 2.0), source.tissue(grid))[0].requires_grad


SMALL: dict[str, Any] = {"encoder_widths": (8, 8), "features": 8, "attention_widths": (8, 8), "tile_size": 16}
MODELS = {
    "ats": lambda **more: ats(2, draws=12, tile_mpp=2.0, overview_mpp=4.0, **SMALL, **more),
    "zoom-in": lambda **more: zoom_in(
        2, draws=12, tile_mpp=2.0, overview_mpp=8.0, view_mpps=(4.0,), cells_um=(64.0, 32.0), **SMALL, **more
    ),
}


def slide_pixels() -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:703, :917]
    inside = (x - 450) ** 2 / 380**2 + (y - 350) ** 2 / 280**2 < 1
    colour = np.where(inside[..., None], (190, 110, 160), (244, 243, 245)) + rng.normal(0, 12, (703, 917, 3))
    return colour.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("method", MODELS)
@pytest.mark.parametrize("whole", [10**6, 2_000])
def test_a_slide_in_strips_gets_the_same_label_and_tiles(
    method: str, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both where the overview is held whole, and where it is read strip by strip and tissue comes from a mask."""
    torch.manual_seed(0)
    model = MODELS[method]().eval()
    slide = open_slide(slide_pixels(), mpp=2.0)
    mask = SlideSource(slide).tissue_mask
    with torch.inference_mode():
        expected = model(SlideSource(slide, tissue=mask), Generator().manual_seed(3))
        monkeypatch.setattr(overview, "BLOCK_PIXELS", 3_000)
        source = SlideSource(slide, tissue=mask, whole=whole)
        found = model(source, Generator().manual_seed(3))
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    for mine, yours in zip(found.glimpses[0], expected.glimpses[0], strict=True):
        np.testing.assert_array_equal(mine.tiles.locations, yours.tiles.locations)
    for mine, yours in zip(found.maps[0], expected.maps[0], strict=True):
        np.testing.assert_allclose(mine.values, yours.values, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found.terms["overview_logits"], expected.terms["overview_logits"])
    assert source.overview_pixels == SlideSource(slide)._views.pixels(source.overview_downsample(model.overview_mpp))


def test_an_overview_of_no_pixels_or_too_many_for_the_network_is_refused() -> None:
    for method, made in MODELS.items():
        assert made(overview_pixels=10**8).overview_pixels == 10**8, method
        with pytest.raises(InputError, match="overview_pixels is 0; it must lie between 1 and"):
            made(overview_pixels=0)
    with pytest.raises(InputError, match="reach"):
        overview.check_overview(OVERVIEW_PIXELS + 1, OverviewNet())
    overview.check_overview(OVERVIEW_PIXELS, OverviewNet())


@pytest.mark.parametrize("seed", range(20))
def test_blocks_hold_all_tissue_once_and_are_cut_close_to_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tissue = rng.random((int(rng.integers(1, 12)), int(rng.integers(1, 60)))) < rng.choice([0.0, 0.02, 0.3])
    met = np.zeros(tissue.shape, int)
    for rows, cols in overview.blocks_with(tissue, 40, 3):
        block = tissue[rows, cols]
        assert block[0].any() and block[-1].any()
        met[rows, cols] += 1
    assert met.max(initial=0) <= 1 and met[tissue].all()
