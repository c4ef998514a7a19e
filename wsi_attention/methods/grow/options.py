"""The numbers of `grow`: each stands here once, and recipes, model folders and docs are made from it."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_attention.errors import InputError
from wsi_attention.methods.overview import OverviewOptions
from wsi_attention.nn.encoders import TileEncoder
from wsi_attention.nn.overview_colours import OverviewPixelOptions
from wsi_attention.options import option, other_default

SHOWN, ATTENTION = "shown", "attention"
POOLINGS = (SHOWN, ATTENTION)
CENTRED, LEFT_OUT = "centred", "leave-one-out"
GRADIENTS = (CENTRED, LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class GrowingOptions(OverviewOptions):
    """The numbers of growing attention, whatever the networks."""

    tile_size: int = option(256, "side of a tile in pixels", low=1, high=8192)
    tile_mpp: float = option(0.5, "µm per pixel of the tiles", low=0.02, high=50)
    overview_mpp: float = option(
        16.0,
        "µm per pixel of the overview, coarser for very large slides; best is tile_size · tile_mpp / 2^(number of "
        "attention_widths): one cell of attention is as large as one tile then, and tiles of neighbouring cells touch",
        low=0.02,
        high=1000,
    )
    draws: int = option(
        32, "N, tiles drawn by attention; fewer where a slide has fewer cells of tissue", low=1, high=100_000
    )
    balanced: bool = option(
        True,
        "true: draws are spread over the tissue, so that a cluster of cells is met rather than missed; false: each is "
        "drawn without regard to the others, as in ats",
        "docs/methods/grow.md §2.1",
    )
    growth: int = option(
        8,
        "tiles of a round of growing: unread neighbours of telling tiles, by what they are expected to weigh; 0 never "
        "grows",
        low=0,
        high=10_000,
    )
    rounds: int = option(
        4,
        "rounds of growing at most; none is begun where no tile of the slide has an unread neighbour",
        low=0,
        high=100,
    )
    explore: float = option(
        0.0,
        "where no tile of its block was read, an unread tile is expected to have this many times the median gate of "
        "the tiles that were: growing goes there, by attention, rather than around tiles that tell less; 0 grows "
        "around tiles that were read, and nowhere else, as all training does",
        "docs/methods/grow.md §2.3",
        low=0.0,
        high=1e6,
    )
    settled: float = option(
        0.0,
        "growing ends after a round whose tiles have less than this share of the weight; 0 lets all rounds happen",
        low=0.0,
        high=1.0,
    )
    side: int = option(
        3,
        "cells along a side of a block, odd: what is read around a telling tile, and what a tile is seen with; 1 sees "
        "and grows nothing around a tile",
        low=1,
        high=31,
    )
    around: bool = option(
        True, "true: a tile is judged with the mean feature of the tiles of its block that were read; false: by itself"
    )
    pooling: str = option(
        SHOWN,
        'what a tile counts for. "shown": its attention times what gated attention on its feature says; "attention": '
        "its attention alone, as in ats",
        choices=POOLINGS,
    )
    gradient: str = option(
        CENTRED,
        'what attention learns of a drawn tile. "centred": what it adds to the mean, as in ats; "leave-one-out": what '
        "the loss would be without it, which goes on learning where few tiles are drawn",
        "docs/methods/grow.md §3",
        choices=GRADIENTS,
    )
    hidden: int = option(64, "length of the two hidden vectors of the gated attention on tiles", low=1, high=65_536)
    hold: float = option(
        1.25,
        "once training is over, no tile says more for a class than this many times the most that a tile said then; 0 "
        "does not hold tiles",
        "docs/methods/grow.md §2.5",
        low=0.0,
        high=1e6,
    )
    most: tuple[float, ...] = option(
        (),
        "the most that a tile says for each class over any other, its gate included; empty: training fits it by `hold`",
        "docs/methods/grow.md §2.5",
        low=1e-12,
    )
    learn_weight: float = option(
        0.5,
        "factor on the loss that draws attention towards what the tiles that were read have shown; 0 leaves attention "
        "to the gradient of the draw and to the loss on the overview",
        low=0.0,
    )
    foresee_weight: float = option(
        0.0,
        "factor on the loss that makes the overview foresee what the tiles that were read show, so that attention "
        "learns where stains are alike too; 0 leaves it out",
        "docs/methods/grow.md §2.6",
        low=0.0,
    )
    entropy_weight: float = option(1e-4, "above 0 it pushes attention towards uniform", low=0.0)
    floor: float = option(
        1e-2,
        "share of the attention that is spread evenly over the tissue",
        "docs/methods/grow.md §2",
        low=0,
        high=0.999,
    )

    def check(self) -> None:
        """Raise InputError where options do not go together."""
        if self.side % 2 == 0:
            raise InputError(f"side {self.side}: a block has a middle, so that its side is odd; take {self.side + 1}")
        if self.explore and (self.side == 1 or not self.growth * self.rounds):
            found = f"explore {self.explore:g} beside growth {self.growth}, rounds {self.rounds}, side {self.side}"
            raise InputError(f"{found}: exploring is a part of growing; take explore = 0, or let tiles grow (side 3)")


@dataclass(frozen=True, kw_only=True)
class GrowOptions(GrowingOptions, OverviewPixelOptions):
    """Growing attention for stained tissue: with the defaults one cell of attention is 128 µm, the side of one tile."""

    encoder: TileEncoder = option(TileEncoder(), "the network that turns a tile into a feature")
    attention_widths: tuple[int, ...] = option(
        (24, 48, 64), "channels of the attention network's stages, each halving the overview", low=1, high=65_536
    )
    context: int = option(7, "side of the attention network's depthwise kernel, in cells", low=1, high=8192)
    squares: int = option(
        1,
        "side in pixels of the squares of the overview whose mean and deviation the attention network sees; 1: the "
        "pixels themselves. Squares learn faster, and from fewer slides",
        low=1,
        high=256,
    )


@dataclass(frozen=True, kw_only=True)
class GrowMnistOptions(GrowingOptions):
    """Growing attention on Megapixel MNIST: canvases of 1500² seen at 180², tiles of 50²; scales in pixels.

    Digits have no neighbours to read, so that nothing grows, and a tile is judged by itself.
    """

    tile_size: int = other_default(GrowingOptions, "tile_size", 50)
    tile_mpp: float = other_default(GrowingOptions, "tile_mpp", 1.0)
    overview_mpp: float = other_default(GrowingOptions, "overview_mpp", 1500 / 180)
    draws: int = other_default(GrowingOptions, "draws", 10)
    growth: int = other_default(GrowingOptions, "growth", 0)
    around: bool = other_default(GrowingOptions, "around", False)
    channels: int = option(1, "channels of the images", low=1, high=65_536)
    earlier_draws: tuple[int, ...] = option(
        (),
        "tiles drawn of a canvas in earlier parts of training, which is cut into equal parts; the last one has draws",
        low=1,
        high=100_000,
    )
