"""RAMS-Trans: a transformer looks at the whole image, then reads again what it looked at most, and classifies both.

Hu et al., "RAMS-Trans: Recurrent Attention Multi-scale Transformer for Fine-grained Image Recognition", ACM MM 2021,
https://arxiv.org/abs/2107.08192. The same transformer serves all scales, each with a class token of its own. Where to
look is a rule on its attention rollout and carries no gradient: attention learns because every scale is supervised.
The mathematics is in docs/methods/rams_trans.md, and where we differ from the paper in docs/methods/rams_trans.md §5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from wsi_attention.errors import InputError
from wsi_attention.geometry import OVERVIEW_PIXELS
from wsi_attention.methods.method import Method
from wsi_attention.methods.rams_trans.regions import (
    ALPHA,
    Region,
    Views,
    boxes_of,
    find_regions,
    grown,
    look_again,
    pixel_boxes_as_released,
    square_size,
    tissue_of,
    whole_images,
    within,
    without_surroundings,
)
from wsi_attention.methods.rams_trans.rollout import importance, importance_as_released, rollout_rows
from wsi_attention.nn.blocks import Encoder
from wsi_attention.nn.preprocess import PixelOptions, in_float32
from wsi_attention.nn.vit import STEMS, ConvStem, VisionTransformer
from wsi_attention.options import option
from wsi_attention.protocols import Aim, TileSource
from wsi_attention.structures import AttentionMap, Glimpse, Output
from wsi_attention.targets.one_label import OneLabel

TOKENS = ("own", "as-released")
ROWS = ("class", "as-released")
SHAPES = ("square", "padded", "as-released")
BACKGROUND = ("masked", "seen")
INFERENCE = ("all", "first")


@dataclass(frozen=True, kw_only=True)
class RamsTransOptions(PixelOptions):
    """RAMS-Trans with a small transformer: the whole slide as 224 × 224 pixels, then its region as as many.

    As released, in full: tokens, rows and shape "as-released", background "seen", alpha 1.2, later_weight 0, inference
    "first".
    """

    size: int = option(224, "S, pixels along a side of every view; a multiple of patch", "paper: 448", low=1, high=8192)
    patch: int = option(16, "P, pixels along a side of a patch", "paper: 16; released code: 32", low=1, high=1024)
    dim: int = option(192, "length of a token; a multiple of heads", "paper: 768", low=1, high=65_536)
    depth: int = option(6, "blocks of the transformer", "paper: 12", low=1, high=1000)
    heads: int = option(3, "attention heads of a block", "paper: 12", low=1, high=1000)
    stem: str = option(
        "linear",
        'patch embedding. "linear": the paper; "conv": small convolutions, for training on few slides',
        choices=STEMS,
    )
    scales: int = option(2, "views of increasing scale, the first one of the whole image", "paper: 2", low=1, high=16)
    tile_mpp: float = option(
        0.5, "finest µm per pixel that is read; a box that would be read finer grows instead", low=0.02, high=50
    )
    overview_mpp: float = option(
        16.0,
        "µm per pixel at which tissue is looked for; the model itself sees the whole image as size² pixels",
        low=0.02,
        high=1000,
    )
    alpha: float = option(
        ALPHA, "threshold on importance, as a factor on its mean", "paper: 1.3; released code: 1.2", low=1e-6
    )
    boxes: int = option(
        1,
        "regions that are read at the second scale, largest first; further scales read one region of each of them",
        "paper: 1",
        low=1,
        high=1000,
    )
    least_area: int = option(1, "fewest patches of a region; the largest one is read however small", low=1)
    least_side: int = option(1, "shortest side of a box, in patches", low=1)
    most_side: int | None = option(
        None,
        "longest side of a box, in patches; of a larger one only the surroundings of its peak are read. No limit where "
        "nothing is given",
        low=1,
    )
    tokens: str = option(
        "own",
        'class tokens that a pass sees. "own": that of its scale; "as-released": those of all scales',
        "docs/methods/rams_trans.md §2.4",
        choices=TOKENS,
    )
    rows: str = option(
        "class",
        'rows of the rollout that make the importance. "class": the class token\'s; "as-released": the mean of all',
        "docs/methods/rams_trans.md §2.2",
        choices=ROWS,
    )
    shape: str = option(
        "square",
        'what a view shows beside its region. "square": its surroundings; "padded": background, which counts as such '
        'in the map; "as-released": as "square", with one pixel too many at the top and at the left',
        "docs/methods/rams_trans.md §2.3",
        choices=SHAPES,
    )
    background: str = option(
        "masked",
        'patches without tissue. "masked": no token attends to them; "seen": tokens may, as published. They never '
        "count in the importance",
        choices=BACKGROUND,
    )
    first_weight: float = option(1.0, "factor on the loss of the first scale", "paper: 1", low=0)
    later_weight: float = option(
        1.0, "λ_2, factor on the loss of every other scale", "paper: 1; released code: 0", low=0
    )
    inference: str = option(
        "all",
        'what prediction returns. "all": the mean of the logits of all scales; "first": those of the first one, '
        "nothing else is read",
        "docs/methods/rams_trans.md §2.5; paper: first",
        choices=INFERENCE,
    )

    def check(self) -> None:
        """Raise InputError where options do not go together."""
        if self.size % self.patch:
            raise InputError(f"size must be a multiple of patch, got {self.size} and {self.patch}")
        if self.dim % self.heads:
            raise InputError(f"dim must be a multiple of heads, got {self.dim} and {self.heads}")
        if self.stem == "conv" and self.patch < 2:
            raise InputError(f"stem 'conv' needs patches of 2 pixels at least, got {self.patch}")
        if self.most_side is not None and self.most_side < self.least_side:
            raise InputError(f"most_side must not be below least_side, got {self.most_side} and {self.least_side}")
        if self.first_weight + self.later_weight == 0:
            raise InputError("first_weight and later_weight are both 0; one must be above 0")


class RamsTrans(nn.Module):
    """One transformer over the whole image and, scale by scale, over what it looked at most.

    Args:
        transformer: has one class token per scale; takes S × S images, S the side that its position embedding fits.
        classifier: (..., d) -> (..., classes), shared by the scales.
        preprocess: (m, c, h, w) pixels of any dtype -> floats on the model's device.
        options: all numbers.
    """

    encoder: Encoder | None = None
    overview_pixels: int = OVERVIEW_PIXELS
    map_stride: int = 1

    def __init__(
        self, transformer: VisionTransformer, classifier: nn.Module, preprocess: nn.Module, options: RamsTransOptions
    ) -> None:
        super().__init__()
        self.transformer, self.classifier, self.preprocess = transformer, classifier, preprocess
        self.options, self.tile_mpp, self.overview_mpp = options, options.tile_mpp, options.overview_mpp
        self.scales = len(transformer.class_tokens)
        self.cells = int(transformer.positions.shape[-1])
        self.size = self.cells * transformer.patch
        self.target: Aim = OneLabel()

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """Look at the whole image, then at each scale read what the scale before looked at most.

        Args:
            source: b images side by side.
            generator: not used, because nothing is drawn.

        Returns:
            logits (b, classes); a glimpse "scale-2", "scale-3" … for each scale that was read; the map "attention" on
            the whole image and a map on each box that was read (in training, none for the last scale); spread NaN; as
            term `scales` (b, scales, classes), the logits of each scale.

        Raises:
            NoTissueError: an image has no patch of tissue.
            TileReadError: an image of which no region could be read.
        """
        views, inside = whole_images(source, self.size), None
        logits, values = self._look(source, views, inside, 0)
        scores, maps = [logits], list(_maps(views, values, "attention", source.batch))
        glimpses: list[tuple[Glimpse, ...]] = []
        for scale in range(1, self._scales_now):
            assert values is not None
            most = self.options.boxes if scale == 1 else 1
            found = find_regions(values, self.options.alpha, most, self.options.least_area)
            name, finest = f"scale-{scale + 1}", source.downsample(self.tile_mpp)
            views, inside, read = look_again(source, views, found, self._boxes(found), finest, name)
            logits, values = self._look(source, views, inside, scale)
            scores.append(logits)
            glimpses.append(read)
            maps = [(*old, *new) for old, new in zip(maps, _maps(views, values, name, source.batch), strict=True)]
        stacked = torch.stack(scores, dim=1)
        return Output(
            logits=stacked[:, 0] if self.options.inference == "first" else stacked.mean(dim=1),
            glimpses=tuple(zip(*glimpses, strict=True)) if glimpses else ((),) * source.batch,
            maps=tuple(maps),
            spread=logits.new_full((source.batch,), torch.nan),
            terms={"scales": stacked},
            parts=self._padded(stacked),
        )

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """Return the cross-entropy of each scale with its weight, summed, a scalar (docs/methods/rams_trans.md §4).

        Another target than one label has its own loss in place of cross-entropy.

        Args:
            output: of `forward`.
            target: (b,) class indices.
        """
        scores: Tensor = output.terms["scales"]
        parts = [self.target.loss(one.float(), target) for one in scores.unbind(dim=1)]
        weights = [self.options.first_weight] + [self.options.later_weight] * (len(parts) - 1)
        return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum()

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the scales, each of which answers by itself."""
        return tuple(f"scale-{number}" for number in range(1, self.scales + 1))

    def _padded(self, logits: Tensor) -> Tensor:
        """Return logits (b, s, classes) with NaN for the scales that were not looked at, (b, scales, classes)."""
        return functional.pad(logits.detach(), (0, 0, 0, self.scales - logits.shape[1]), value=torch.nan)

    @property
    def _scales_now(self) -> int:
        return 1 if self.options.inference == "first" and not self.training else self.scales

    def _look(
        self, source: TileSource, views: Views, inside: Tensor | None, scale: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits (b, classes) of one scale, and the importance (m, n, n) of its views.

        The importance sums to 1 over the tissue of a view and is NaN elsewhere. It is None, and not computed, for the
        last scale in training. All views of an image count alike in its logits.
        """
        tissue = tissue_of(source, views, self.cells)
        if self.options.shape == "padded" and inside is not None:
            views = views._replace(pixels=without_surroundings(views.pixels, inside))
            tissue = within(tissue, inside, self.size)
        images = self.preprocess(views.pixels)
        tissue = tissue.to(images.device)
        seen = tissue if self.options.background == "masked" else None
        tokens = (scale,) if self.options.tokens == "own" else tuple(range(self.scales))
        values: Tensor | None = None
        if self.training and scale + 1 == self.scales and scale > 0:
            features = self.transformer.tokens(images, tokens, seen)
        else:
            features, layers = self.transformer.with_mean_attention(images, tokens, seen)
            values = _over_tissue(self._importance(layers, tokens, scale), tissue).cpu()
        logits = in_float32(self.classifier, features[:, tokens.index(scale)])
        return in_float32(partial(_mean_of_images, images=views.images, b=source.batch), logits), values

    @torch.no_grad()
    def _importance(self, layers: Sequence[Tensor], tokens: tuple[int, ...], scale: int) -> Tensor:
        grid, start = (self.cells, self.cells), layers[0].new_zeros(1, 1, layers[0].shape[-1])
        with torch.autocast(start.device.type, enabled=False):
            if self.options.rows == "as-released":
                start[:] = 1 / start.shape[-1]
                return importance_as_released(rollout_rows(layers, start), grid, len(tokens))
            start[..., tokens.index(scale)] = 1
            return importance(rollout_rows(layers, start), grid, len(tokens))

    def _boxes(self, regions: Sequence[Region]) -> Tensor:
        """Return (r, 4), x, y, w, h of the boxes to read, in pixels of views (docs/methods/rams_trans.md §2.3)."""
        patch = self.transformer.patch
        cells = boxes_of(regions, self.cells, self.options.least_side, self.options.most_side)
        if self.options.shape == "padded":
            return cells * patch
        if self.options.shape == "as-released":
            cells = pixel_boxes_as_released(cells, patch)
            return grown(cells, square_size(cells), (self.size, self.size))
        return grown(cells, square_size(cells), (self.cells, self.cells)) * patch


def _over_tissue(values: Tensor, tissue: Tensor) -> Tensor:
    """Return (m, n, n) scaled to sum 1 over tissue, NaN elsewhere; uniform where the values over tissue are all 0."""
    inside = values.where(tissue, 0.0)
    total = inside.sum(dim=(-2, -1), keepdim=True)
    even = tissue.float() / tissue.sum(dim=(-2, -1), keepdim=True)
    return (inside / total).where(total > 0, even).masked_fill(~tissue, torch.nan)


def _mean_of_images(values: Tensor, images: tuple[int, ...], b: int) -> Tensor:
    """Return (b, d), the mean of (m, d) over the views of each image."""
    share = functional.one_hot(torch.tensor(images, device=values.device), b).to(values.dtype)
    return (share / share.sum(dim=0)).T @ values


def _maps(views: Views, values: Tensor | None, name: str, b: int) -> tuple[tuple[AttentionMap, ...], ...]:
    """Return the maps of each image, one per view; the second of an image is called "name region 2", and so on."""
    found: list[list[AttentionMap]] = [[] for _ in range(b)]
    if values is not None:
        for image, grid, one in zip(views.images, views.grids(values.shape[-1]), values.numpy(), strict=True):
            number = len(found[image]) + 1
            found[image].append(AttentionMap(one, grid, name if number == 1 else f"{name} region {number}"))
    return tuple(map(tuple, found))


def _rams_trans(classes: int, options: RamsTransOptions) -> RamsTrans:
    channels, patch, dim = options.channels, options.patch, options.dim
    grid = (options.size // patch, options.size // patch)
    stem = ConvStem(channels, dim, patch) if options.stem == "conv" else None
    transformer = VisionTransformer(channels, patch, grid, dim, options.depth, options.heads, options.scales, stem)
    return RamsTrans(transformer, nn.Linear(dim, classes), options.preprocess(), options)


PAPER = (
    'Hu et al., "RAMS-Trans: Recurrent Attention Multi-scale Transformer for Fine-grained Image Recognition", '
    "ACM MM 2021, https://arxiv.org/abs/2107.08192"
)
rams_trans = Method(
    RamsTransOptions,
    _rams_trans,
    "RAMS-Trans: a transformer sees the whole slide, then reads again the region it looked at most.",
    PAPER,
    any_target=True,
)
