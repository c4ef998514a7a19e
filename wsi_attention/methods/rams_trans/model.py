"""RAMS-Trans: a transformer looks at the whole image, then reads again what it looked at most, and classifies both.

Hu et al., "RAMS-Trans: Recurrent Attention Multi-scale Transformer for Fine-grained Image Recognition", ACM MM 2021,
https://arxiv.org/abs/2107.08192. The same transformer serves all scales, each with a class token of its own; where to
look is a rule on its attention rollout and carries no gradient: attention learns because every scale is supervised.

Where we differ from the paper: the region is read again at a finer level instead of enlarged; patches without tissue
count neither in the map nor in its mean; where nothing passes the threshold, all of the tissue is the region (the
released code crashes); boxes grow to squares and to a least size; several regions of the whole image may be read; and
in eval mode the scales' logits are averaged by default, for on a slide the finer scale holds what the first one cannot
show. `inference="first"` is the paper's: the finer scales then serve training alone.

As released, in full: tokens, rows and shape "as-released", background "seen", alpha 1.2, later_weight 0, inference
"first".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from wsi_attention.errors import InputError
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
from wsi_attention.nn.preprocess import HE_MEAN, HE_STD, Normalise, in_float32
from wsi_attention.nn.vit import ConvStem, VisionTransformer
from wsi_attention.options import one_of
from wsi_attention.protocols import TileSource
from wsi_attention.structures import AttentionMap, Glimpse, Output

TOKENS = ("own", "as-released")
ROWS = ("class", "as-released")
SHAPES = ("square", "padded", "as-released")
BACKGROUND = ("masked", "seen")
INFERENCE = ("all", "first")


class RamsTrans(nn.Module):
    """One transformer over the whole image and, scale by scale, over what it looked at most.

    Args:
        transformer: with one class token a scale; takes S × S images, S the side that its position embedding fits.
        classifier: (..., d) -> (..., classes), shared by the scales.
        preprocess: (m, c, h, w) pixels of any dtype -> floats on the model's device.
        tile_mpp: µm per pixel at the finest; a box that would be read finer grows instead.
        overview_mpp: µm per pixel where tissue is looked for; the model itself sees the whole image as S × S pixels.
        alpha: threshold over the mean of the importance map.
        boxes: regions read at the second scale, largest first; further scales read one region of each of them.
        least_area: patches of every region but the largest.
        least_side: of a box, in patches.
        most_side: of a box, in patches; of a larger one only the surroundings of its peak are read. None: no limit.
        tokens: "own": each pass has the class token of its scale alone; "as-released": every pass has all of them.
        rows: of the rollout that make the importance map: "class", the class token's, or the mean of all,
            "as-released".
        shape: "square" shows what surrounds the region, to a square; "padded" shows background there, which
            counts as such in the map; "as-released" is "square" with one pixel too many at the top and at the left.
        background: "masked" keeps patches without tissue out of the attention; "seen", as published, lets them draw
            some. In the importance map they never count.
        first_weight: of the first scale's loss.
        later_weight: λ_2, of every other scale's loss; the released code has 0.
        inference: in eval mode, "all" averages the scales' logits, "first" stops after the first and reads nothing.

    Raises:
        InputError: an option is not known, or a number out of range.
    """

    def __init__(
        self,
        transformer: VisionTransformer,
        classifier: nn.Module,
        preprocess: nn.Module,
        *,
        tile_mpp: float,
        overview_mpp: float,
        alpha: float = ALPHA,
        boxes: int = 1,
        least_area: int = 1,
        least_side: int = 1,
        most_side: int | None = None,
        tokens: str = "own",
        rows: str = "class",
        shape: str = "square",
        background: str = "masked",
        first_weight: float = 1.0,
        later_weight: float = 1.0,
        inference: str = "all",
    ) -> None:
        super().__init__()
        one_of("tokens", tokens, TOKENS)
        one_of("rows", rows, ROWS)
        one_of("shape", shape, SHAPES)
        one_of("background", background, BACKGROUND)
        one_of("inference", inference, INFERENCE)
        if min(tile_mpp, overview_mpp, alpha) <= 0 or min(boxes, least_area, least_side) < 1:
            raise InputError(
                f"tile_mpp, overview_mpp, alpha must be above 0 and boxes, least_area, least_side at least 1, got "
                f"{tile_mpp}, {overview_mpp}, {alpha} and {boxes}, {least_area}, {least_side}"
            )
        if most_side is not None and most_side < least_side:
            raise InputError(f"most_side must not be below least_side: got {most_side}, {least_side}")
        if min(first_weight, later_weight) < 0 or first_weight + later_weight == 0:
            raise InputError(f"weights of the loss must be 0 or more, one above 0: got {first_weight}, {later_weight}")
        self.transformer, self.classifier, self.preprocess = transformer, classifier, preprocess
        self.tile_mpp, self.overview_mpp, self.alpha = tile_mpp, overview_mpp, alpha
        self.boxes, self.least_area = boxes, least_area
        self.least_side, self.most_side = least_side, most_side
        self.tokens, self.rows, self.shape = tokens, rows, shape
        self.background, self.inference = background, inference
        self.first_weight, self.later_weight = first_weight, later_weight
        self.scales = len(transformer.class_tokens)
        self.cells = int(transformer.positions.shape[-1])
        self.size = self.cells * transformer.patch

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """Looks at the whole image, then at each scale reads what the scale before looked at most.

        Args:
            source: b images side by side.
            generator: not used: nothing here is drawn.

        Returns:
            logits (b, classes); a glimpse "scale-2", "scale-3" … for each scale that was read, the chain of boxes; the
            map "attention" on the whole image and a map for each box read, where it lies (in training, none for the
            last scale); spread NaN; as terms `scales` (b, scales, classes), the logits of each scale.

        Raises:
            NoTissueError: an image has no patch of tissue.
            TileReadError: not one region of some image could be read.
        """
        views, inside = whole_images(source, self.size), None
        logits, values = self._look(source, views, inside, 0)
        scores, maps = [logits], list(_maps(views, values, "attention", source.batch))
        glimpses: list[tuple[Glimpse, ...]] = []
        for scale in range(1, self._scales_now):
            assert values is not None
            found = find_regions(values, self.alpha, self.boxes if scale == 1 else 1, self.least_area)
            name, finest = f"scale-{scale + 1}", source.downsample(self.tile_mpp)
            views, inside, read = look_again(source, views, found, self._boxes(found), finest, name)
            logits, values = self._look(source, views, inside, scale)
            scores.append(logits)
            glimpses.append(read)
            maps = [(*old, *new) for old, new in zip(maps, _maps(views, values, name, source.batch), strict=True)]
        stacked = torch.stack(scores, dim=1)
        return Output(
            logits=stacked[:, 0] if self.inference == "first" else stacked.mean(dim=1),
            glimpses=tuple(zip(*glimpses, strict=True)) if glimpses else ((),) * source.batch,
            maps=tuple(maps),
            spread=logits.new_full((source.batch,), torch.nan),
            terms={"scales": stacked},
        )

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of the first scale, plus λ_2 times that of every later one (page §4), a scalar.

        Args:
            output: of `forward`.
            target: (b,) class indices.
        """
        scores: Tensor = output.terms["scales"]
        parts = [functional.cross_entropy(one.float(), target) for one in scores.unbind(dim=1)]
        weights = [self.first_weight] + [self.later_weight] * (len(parts) - 1)
        return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum()

    @property
    def _scales_now(self) -> int:
        return 1 if self.inference == "first" and not self.training else self.scales

    def _look(
        self, source: TileSource, views: Views, inside: Tensor | None, scale: int
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (b, classes) of one scale, and its views' importance (m, n, n); fused, without it, where none is due.

        The importance sums to 1 over tissue, NaN elsewhere. Views of one image share in its logits alike.
        """
        tissue = tissue_of(source, views, self.cells)
        if self.shape == "padded" and inside is not None:
            views = views._replace(pixels=without_surroundings(views.pixels, inside))
            tissue = within(tissue, inside, self.size)
        images = self.preprocess(views.pixels)
        tissue = tissue.to(images.device)
        seen = tissue if self.background == "masked" else None
        tokens = (scale,) if self.tokens == "own" else tuple(range(self.scales))
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
            if self.rows == "as-released":
                start[:] = 1 / start.shape[-1]
                return importance_as_released(rollout_rows(layers, start), grid, len(tokens))
            start[..., tokens.index(scale)] = 1
            return importance(rollout_rows(layers, start), grid, len(tokens))

    def _boxes(self, regions: Sequence[Region]) -> Tensor:
        """(r, 4): the regions' boxes in pixels of their views, by the rule and between the two sides."""
        patch = self.transformer.patch
        cells = boxes_of(regions, self.cells, self.least_side, self.most_side)
        if self.shape == "padded":
            return cells * patch
        if self.shape == "as-released":
            cells = pixel_boxes_as_released(cells, patch)
            return grown(cells, square_size(cells), (self.size, self.size))
        return grown(cells, square_size(cells), (self.cells, self.cells)) * patch


def _over_tissue(values: Tensor, tissue: Tensor) -> Tensor:
    """(m, n, n) scaled to sum 1 over the tissue, NaN elsewhere; even where not one patch of tissue has any."""
    inside = values.where(tissue, 0.0)
    total = inside.sum(dim=(-2, -1), keepdim=True)
    even = tissue.float() / tissue.sum(dim=(-2, -1), keepdim=True)
    return (inside / total).where(total > 0, even).masked_fill(~tissue, torch.nan)


def _mean_of_images(values: Tensor, images: tuple[int, ...], b: int) -> Tensor:
    """(m, d) -> (b, d): the mean over the views of each image."""
    share = functional.one_hot(torch.tensor(images, device=values.device), b).to(values.dtype)
    return (share / share.sum(dim=0)).T @ values


def _maps(views: Views, values: Tensor | None, name: str, b: int) -> tuple[tuple[AttentionMap, ...], ...]:
    """Each image's maps, one a view; the second of an image is called "name region 2", and so on."""
    found: list[list[AttentionMap]] = [[] for _ in range(b)]
    if values is not None:
        for image, grid, one in zip(views.images, views.grids(values.shape[-1]), values.numpy(), strict=True):
            number = len(found[image]) + 1
            found[image].append(AttentionMap(one, grid, name if number == 1 else f"{name} region {number}"))
    return tuple(map(tuple, found))


STEMS = ("linear", "conv")


def rams_trans(
    classes: int,
    *,
    size: int = 224,
    patch: int = 16,
    dim: int = 192,
    depth: int = 6,
    heads: int = 3,
    stem: str = "linear",
    scales: int = 2,
    tile_mpp: float = 0.5,
    overview_mpp: float = 16.0,
    mean: Sequence[float] = HE_MEAN,
    std: Sequence[float] = HE_STD,
    alpha: float = ALPHA,
    boxes: int = 1,
    least_area: int = 1,
    least_side: int = 1,
    most_side: int | None = None,
    tokens: str = "own",
    rows: str = "class",
    shape: str = "square",
    background: str = "masked",
    first_weight: float = 1.0,
    later_weight: float = 1.0,
    inference: str = "all",
) -> RamsTrans:
    """RAMS-Trans with a small transformer: the whole slide as 224 × 224 pixels, then its region as as many.

    Arguments not listed here are `RamsTrans`'s. The paper's is size 448, patch 16, dim 768, depth 12, heads 12, with
    weights from ImageNet-21k.

    Args:
        classes: number of classes.
        size: S, pixels along a side of every view; a multiple of patch.
        patch: pixels along a side of a patch.
        dim: length of a token; a multiple of heads.
        depth: blocks.
        heads: attention heads of a block.
        stem: "linear", the paper's patch embedding; "conv", small convolutions, for training on few slides.
        scales: looks at the image, the first one at the whole.
        mean: of each channel, of 1.
        std: of each channel, of 1.

    Raises:
        InputError: an argument is out of range or names nothing.
    """
    one_of("stem", stem, STEMS)
    if min(size, patch, dim, depth, heads, scales) < 1 or size % patch or dim % heads:
        raise InputError(
            f"size, patch, dim, depth, heads, scales must be at least 1, size a multiple of patch, dim of heads, got "
            f"{size}, {patch}, {dim}, {depth}, {heads}, {scales}"
        )
    if stem == "conv" and patch < 2:
        raise InputError(f"stem 'conv' needs patches of 2 pixels at least, got {patch}")
    grid = (size // patch, size // patch)
    embedding = ConvStem(len(mean), dim, patch) if stem == "conv" else None
    return RamsTrans(
        VisionTransformer(len(mean), patch, grid, dim, depth, heads, scales, embedding),
        nn.Linear(dim, classes),
        Normalise(mean, std),
        tile_mpp=tile_mpp,
        overview_mpp=overview_mpp,
        alpha=alpha,
        boxes=boxes,
        least_area=least_area,
        least_side=least_side,
        most_side=most_side,
        tokens=tokens,
        rows=rows,
        shape=shape,
        background=background,
        first_weight=first_weight,
        later_weight=later_weight,
        inference=inference,
    )
