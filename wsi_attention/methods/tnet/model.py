"""TNet: from an overview, the best few regions of a grid, then the best few inside each, down to the finest scale.

Papadopoulos, Korus & Memon, "Hard-Attention for Scalable Image Classification", NeurIPS 2021,
https://arxiv.org/abs/2102.10212, released as Tpap/TNet; paragraph numbers are those of its equations in
`attention.glimpse_grid` and `attention.glimpse_policy`. Ours are: every region is read from the image at its own scale
and never cut out of a picture of its parent or enlarged; regions without tissue cannot be chosen; training draws
without replacement with the likelihood that such draws have, where the released code takes the k most probable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from wsi_attention.attention.sampling import smoothed_softmax
from wsi_attention.errors import InputError, TileReadError
from wsi_attention.methods.overview import square_view
from wsi_attention.methods.tnet import policy
from wsi_attention.methods.tnet.crops import CropGrid, child_locations, child_positions, crop_grids, crop_means
from wsi_attention.methods.tnet.networks import (
    AddedPosition,
    FeatureAndMap,
    FeatureMean,
    FeatureWeighting,
    JoinedPosition,
    LocationModule,
)
from wsi_attention.methods.tnet.regions import (
    Level,
    Read,
    RegionCanvas,
    Regions,
    gathered,
    glimpses,
    overview_level,
    read_level,
)
from wsi_attention.nn.bags import encode
from wsi_attention.nn.encoders import build_encoder
from wsi_attention.nn.preprocess import HE_MEAN, HE_STD, Normalise, in_float32
from wsi_attention.options import one_of
from wsi_attention.protocols import TileSource
from wsi_attention.structures import AttentionMap, Output, TileBatch

SELECTIONS = ("without-replacement", "as-released")
LOGITS = ("plain", "unit-norm")
Maps = list[AttentionMap]


class TNet(nn.Module):
    """Regions of regions, chosen by a location module, their features pooled with the overview's, a classifier.

    `attended` may be changed at any time, its length too: one location module serves all levels.

    Args:
        encoder: (m, c, h, w) -> (m, d), rows of length 1.
        seen: runs the encoder and gives its feature and map.
        location: φ (v, c, n, n) -> logits (v, n²).
        position: features (b, N, d), positions (b, N, 3) -> (b, N, d').
        pooling: features (b, N, d'), real (b, N) -> F̄ (b, d'), shares (b, N).
        classifier: (..., d') -> (..., classes), of F̄ and of each feature alone.
        preprocess: (m, c, h, w) pixels of any dtype -> floats on the model's device.
        base: r, pixels a side of every view.
        tile_mpp: the finest µm per pixel that is read; levels below it are left out.
        overview_mpp: µm per pixel at which tissue is looked for; the overview itself has r pixels.
        grid: n, crops along an axis.
        overlap: o, side of a crop over its parent's; n·o at least 1.
        attended: k of each level, from the coarsest; fewer where a region has fewer cells of tissue.
        selection: "without-replacement" draws in training; "as-released" takes the k most probable there too, and
            log(p + 1e-10) for the likelihood. Eval mode always takes the k most probable.
        logits: "plain", or "unit-norm" as released, which caps p at 0.27 (n = 3) or 0.10 (n = 5).
        class_share: λ_c.
        reward_share: λ_r.
        policy_weight: λ_f.
        regularised_levels: the overview and so many levels less one have a loss of their own; None for all.
        contrast_weight: factor on the contrastive term, which says nothing of a batch of one.
        baseline_kept: share of the running baseline that a step keeps; the paper's 0.9 is for steps of 64 images.
    """

    baseline: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        seen: FeatureAndMap,
        location: nn.Module,
        position: nn.Module,
        pooling: nn.Module,
        classifier: nn.Module,
        preprocess: nn.Module,
        *,
        base: int,
        tile_mpp: float,
        overview_mpp: float,
        grid: int,
        overlap: float,
        attended: Sequence[int],
        selection: str = "without-replacement",
        logits: str = "plain",
        class_share: float = 0.3,
        reward_share: float = 0.3,
        policy_weight: float = 0.1,
        regularised_levels: int | None = None,
        contrast_weight: float = 0.0,
        baseline_kept: float = policy.BASELINE_KEPT,
    ) -> None:
        super().__init__()
        one_of("selection", selection, SELECTIONS)
        one_of("logits", logits, LOGITS)
        if grid < 2 or not 0 < overlap <= 1 or grid * overlap < 1:
            raise InputError(f"crops must cover their parent: grid·overlap >= 1, got grid {grid}, overlap {overlap}")
        if min(base, *attended, 1) < 1 or not attended or min(tile_mpp, overview_mpp) <= 0:
            numbers = f"base {base}, attended {list(attended)}, tile_mpp {tile_mpp}, overview_mpp {overview_mpp}"
            raise InputError(f"base and each of attended must be at least 1 and mpp above 0; got {numbers}")
        self.encoder, self.seen, self.location, self.position = encoder, seen, location, position
        self.pooling, self.classifier, self.preprocess = pooling, classifier, preprocess
        self.base, self.tile_mpp, self.overview_mpp = base, tile_mpp, overview_mpp
        self.grid, self.overlap, self.attended = grid, overlap, tuple(attended)
        self.selection, self.logits, self.baseline_kept = selection, logits, baseline_kept
        self.class_share, self.reward_share, self.policy_weight = class_share, reward_share, policy_weight
        self.regularised_levels, self.contrast_weight = regularised_levels, contrast_weight
        self.register_buffer("baseline", torch.tensor(policy.BASELINE_START))

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """Sees the overview, then reads one level of regions after the other, one request each, and classifies.

        Args:
            source: b images side by side.
            generator: of the draws in training; torch's global one where None. Eval mode draws nothing.

        Returns:
            logits (b, classes), a glimpse a level ("level-1", …), maps "location-1", … (p of the best crop there, 0
            where no parent was looked into) and "attention" (π of each region spread over its tissue), spread NaN; as
            terms, N features an image with the overview first: `features` (b, N, d'), `feature_logits`
            (b, N, classes), `shares` π, `valid`, `level`, `log_probability` (b, N), `pooled` (b, d'),
            `log_likelihood` (b,). A slide that the overview shows at the finest scale has no regions.

        Raises:
            NoTissueError: an image has no tissue.
            TileReadError: not one region of some image's first level could be read.
        """
        view = square_view(source, self.base)
        side, smallest = round(view.side), math.ceil(self.base * source.downsample(self.tile_mpp))
        crops = crop_grids(side, smallest, self.overlap, self.grid, len(self.attended))
        canvas = RegionCanvas(source, crops[-1].patch if crops else side)
        levels, reads, maps = [overview_level(view, side, self._see)], list[Read](), list[Maps]()
        likelihood = torch.zeros(source.batch, device=levels[0].features.device)
        for crop, k in zip(crops, self.attended, strict=False):
            tissue = canvas.candidates(levels[-1].regions, crop, self.grid).to(likelihood.device)
            parents, tissue = levels[-1].only(tissue.any(dim=-1)), tissue[tissue.any(dim=-1)]
            if not len(tissue):
                break
            attention, chosen = self._choose(parents, tissue, crop, k, generator)
            likelihood = likelihood.index_add(0, chosen.image, chosen.log_probability)
            read, level = read_level(source, chosen, self.base, self._see)
            if not reads and not bool(torch.isin(chosen.image, level.regions.image).all()):
                raise TileReadError(f"none of the {len(read.tiles)} regions that attention asked for could be read")
            maps.append(canvas.highest(parents.regions, crop, attention, f"location-{len(maps) + 1}"))
            reads, levels = [*reads, read], [*levels, level]
        return self._output(canvas, levels, reads, maps, likelihood)

    def draw(self, attention: Tensor, k: int, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Up to k cells of each row of attention (v, n²), and which of them are real, (v, k) both; by the mode."""
        if self.training and self.selection == "without-replacement":
            return policy.attend(attention, k, generator)
        return policy.attend_top(attention, k)

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """λ_c·CE(F̄) + (1 − λ_c)·mean CE(feature) + λ_f·`policy_loss` + the contrastive term (§4), a scalar.

        In train mode it moves the running baseline. target (b,) class indices.
        """
        counted = self._regularised(output)
        labels = target.unsqueeze(-1).expand(counted.shape)[counted]
        each = functional.cross_entropy(output.terms["feature_logits"][counted], labels)
        total = policy.balanced(functional.cross_entropy(output.logits, target), each, self.class_share)
        total = total + self.policy_weight * self.policy_loss(output, target)
        if self.training and any(output.glimpses):
            self._move_baseline(*self._rewards(output, target))
        if not self.contrast_weight:
            return total
        return total + self.contrast_weight * in_float32(policy.pairwise_contrast, output.terms["pooled"], target)

    def policy_loss(self, output: Output, target: Tensor) -> Tensor:
        """λ_r·L_R + (1 − λ_r)·the same of each region alone (§3), a scalar; 0 where nothing was chosen."""
        baseline, (whole, each) = float(self.baseline), self._rewards(output, target)
        loss = policy.reinforce(output.terms["log_likelihood"], whole, baseline)
        if not len(each):
            return loss
        alone = policy.reinforce(output.terms["log_probability"][self._regularised(output, 1)], each, baseline)
        return policy.balanced(loss, alone, self.reward_share)

    def _rewards(self, output: Output, target: Tensor) -> tuple[Tensor, Tensor]:
        """R (b,) of the images and R_n of every region with a loss of its own."""
        each, counted = output.terms["feature_logits"], self._regularised(output, 1)
        alone = policy.reward(each, target.unsqueeze(-1).expand(counted.shape))[counted]
        return policy.reward(output.logits, target), alone

    def _move_baseline(self, whole: Tensor, each: Tensor) -> None:
        each = each if len(each) else whole
        moved = policy.next_baseline(float(self.baseline), whole, each, self.reward_share, self.baseline_kept)
        self.baseline.fill_(moved)

    def _regularised(self, output: Output, first: int = 0) -> Tensor:
        """(b, N) bool: the features with a loss of their own, from level `first` on."""
        level, last = output.terms["level"], self.regularised_levels
        counted: Tensor = output.terms["valid"] & (level >= first)
        return counted if last is None else counted & (level < last)

    def _choose(
        self, parents: Level, tissue: Tensor, crop: CropGrid, k: int, generator: Generator | None
    ) -> tuple[Tensor, Regions]:
        """p (v, n²) of the crops of all parents, and the children; no gradient goes into φ (§2.3)."""
        regions, n = parents.regions, self.grid
        phi = in_float32(partial(crop_means, grid=crop, side=regions.side, n=n), parents.maps.detach())
        logits = in_float32(self.location, phi)
        logits = logits.masked_fill(~tissue, -torch.inf)
        logits = policy.unit_norm_logits(logits) if self.logits == "unit-norm" else logits
        attention = smoothed_softmax(logits)
        cells, drawn = self.draw(attention, k, generator)
        each = policy.log_likelihood_of_each(logits, cells, drawn)
        if self.selection == "as-released":
            each = policy.log_probability_as_released(logits, cells)
        places = child_locations(regions.places, cells, (crop, crop), n)
        positions = child_positions(regions.positions, cells, n)
        image = regions.image.unsqueeze(-1).expand(cells.shape)
        children = Regions(image, places, positions, attention.gather(-1, cells), each, crop.patch)
        return attention, children.only(drawn)

    def _see(self, batch: TileBatch) -> tuple[Tensor, Tensor]:
        """Features (b, m, d) and maps (b, m, c, h, w), zeros where not valid."""
        if not bool(batch.valid.any()):
            return self.seen.nothing(batch.valid)
        return self.seen.split(encode(batch, self.preprocess, self.seen))

    def _output(
        self, canvas: RegionCanvas, levels: list[Level], reads: list[Read], maps: list[Maps], likelihood: Tensor
    ) -> Output:
        b, bag = len(likelihood), gathered(levels, len(likelihood))
        features = in_float32(self.position, bag.features, bag.positions)
        pooled, shares = in_float32(self.pooling, features, bag.valid)
        by_level = [shares[level.regions.image, place] for level, place in zip(levels, bag.places, strict=True)]
        attention = canvas.spread([level.regions for level in levels], by_level)
        return Output(
            logits=in_float32(self.classifier, pooled),
            glimpses=glimpses(reads, by_level[1:], b),
            maps=tuple(zip(*maps, attention, strict=True)),
            spread=torch.full((b,), torch.nan, device=pooled.device),
            terms={
                "features": features,
                "feature_logits": in_float32(self.classifier, features),
                "shares": shares,
                "pooled": pooled,
                "valid": bag.valid,
                "level": bag.level,
                "log_probability": bag.log_probability,
                "log_likelihood": likelihood,
            },
        )


POSITIONS = ("added", "joined")
POOLINGS = ("weighted", "mean")


def tnet(
    classes: int,
    *,
    base: int = 128,
    tile_mpp: float = 0.5,
    overview_mpp: float = 16.0,
    grid: int = 5,
    overlap: float = 0.25,
    attended: Sequence[int] = (4, 3, 2, 2),
    mean: Sequence[float] = HE_MEAN,
    std: Sequence[float] = HE_STD,
    encoder: str = "small",
    encoder_widths: Sequence[int] = (24, 48, 96, 128),
    features: int = 128,
    pool: str = "mean+max",
    encoder_frozen: bool = False,
    map_layer: str = "",
    location_width: int = 64,
    position: str = "added",
    pooling: str = "weighted",
    dropout: float = 0.25,
    selection: str = "without-replacement",
    logits: str = "plain",
    class_share: float = 0.7,
    reward_share: float = 0.3,
    policy_weight: float = 0.1,
    regularised_levels: int | None = None,
    contrast_weight: float = 0.0,
    baseline_kept: float = 0.98,
) -> TNet:
    """TNet for stained tissue: each level looks four times closer, and at most 4 + 12 + 24 + 48 regions are read.

    Arguments not listed here are `TNet`'s. Numbers that differ from the paper's: a label says less of one region of a
    slide than of one of a photograph, so the loss of single regions weighs less (the paper has class_share 0.05 to
    0.3); training sees one slide at a time, so the baseline moves more slowly.

    Args:
        classes: number of classes.
        base: pixels a side of the overview and of every region.
        tile_mpp: the finest µm per pixel that is read.
        overview_mpp: µm per pixel at which tissue is looked for.
        mean: of each channel, of 1.
        std: of each channel, of 1.
        encoder: a name that `nn.encoder_choice.build_encoder` knows.
        encoder_widths: channels of the small encoder's stages.
        features: length of the small encoder's feature.
        pool: "mean", "max" or "mean+max", of the small encoder.
        encoder_frozen: whether training leaves the encoder's weights as they are.
        map_layer: layer of the encoder whose output the location module sees; the encoder's own choice where empty.
        location_width: channels of the location module.
        position: "added" as for fMoW, CUB and NABirds; "joined" as for ImageNet.
        pooling: "weighted" by the feature weighting module as for CUB and NABirds; "mean" as for ImageNet and fMoW.
        dropout: share of the pooled feature's components left out in training.

    Raises:
        InputError: an argument is out of range or names nothing.
    """
    one_of("position", position, POSITIONS)
    one_of("pooling", pooling, POOLINGS)
    network = build_encoder(
        encoder, len(mean), widths=encoder_widths, features=features, pool=pool, frozen=encoder_frozen
    )
    seen = FeatureAndMap(network, map_layer, len(mean), base)
    dim = int(network.dim)
    return TNet(
        network,
        seen,
        LocationModule(seen.map_shape[0], location_width),
        AddedPosition(dim, projected=encoder_frozen) if position == "added" else JoinedPosition(dim),
        FeatureWeighting(dim) if pooling == "weighted" else FeatureMean(),
        nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, classes)),
        Normalise(mean, std),
        base=base,
        tile_mpp=tile_mpp,
        overview_mpp=overview_mpp,
        grid=grid,
        overlap=overlap,
        attended=attended,
        selection=selection,
        logits=logits,
        class_share=class_share,
        reward_share=reward_share,
        policy_weight=policy_weight,
        regularised_levels=regularised_levels,
        contrast_weight=contrast_weight,
        baseline_kept=baseline_kept,
    )
