"""RAMS-Trans as a model: the shipped contract, the page's figures, the chain of boxes, gradients, learning."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wsi_attention.errors import TileReadError
from wsi_attention.models.rams_trans import RamsTrans
from wsi_attention.models.rams_trans_builders import rams_trans
from wsi_attention.testing.models import FailingSource, ModelContract

SMALL = {
    "size": 64,
    "patch": 8,
    "dim": 24,
    "depth": 3,
    "heads": 3,
    "tile_mpp": 1.0,
    "overview_mpp": 4.0,
}


def small(**arguments: object) -> RamsTrans:
    torch.manual_seed(0)
    return rams_trans(2, **{**SMALL, **arguments}).eval()  # type: ignore[arg-type]


class OneRegion(ModelContract):
    """A glimpse of one tile: where that one fails nothing is left."""

    def test_a_failed_tile_leaves_the_bag(self) -> None:
        with pytest.raises(TileReadError, match="none of the 1 regions of scale-2"):
            self.model()(FailingSource(self.images(), (0,)))


class TestPaper(OneRegion):
    def build(self) -> nn.Module:
        return rams_trans(self.classes, **SMALL)  # type: ignore[arg-type]


class TestAsReleased(OneRegion):
    def build(self) -> nn.Module:
        released = {"tokens": "as-released", "rows": "as-released", "shape": "as-released", "later_weight": 0.0}
        return rams_trans(self.classes, alpha=1.2, **released, **SMALL)  # type: ignore[arg-type]


class TestFirstScaleOnly(ModelContract):
    def build(self) -> nn.Module:
        return rams_trans(self.classes, inference="first", stem="conv", **SMALL)  # type: ignore[arg-type]


class TestSeveralRegions(ModelContract):
    def build(self) -> nn.Module:
        return rams_trans(self.classes, boxes=4, scales=3, alpha=1.02, shape="padded", **SMALL)  # type: ignore[arg-type]
