"""TNet: from an overview, the best few regions of a grid, then the best few inside each, down to the finest scale.

Papadopoulos, Korus & Memon, "Hard-Attention for Scalable Image Classification", NeurIPS 2021,
https://arxiv.org/abs/2102.10212, released as Tpap/TNet. The mathematics is in docs/methods/tnet.md, and where we differ
in docs/methods/tnet.md §6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from wsi_attention.attention.sampling import smoothed_softmax
from wsi_attention.errors import InputError
from wsi_attention.geometry import OVERVIEW_PIXELS
from wsi_attention.methods.method import Method
from wsi_attention.methods.outputs import require_tiles
from wsi_attention.methods.overview import square_view
from wsi_attention.methods.tnet import policy
from wsi_attention.methods.tnet.crops import CropGrid, child_locations, child_positions, crop_grids, crop_means
from wsi_attention.methods.tnet.networks import (
    AddedPosition,
    FeatureAndMap,
    FeatureMean,
    FeatureWeighting,
    JoinedPosition,
    LevelWeighting,
    LocationModule,
)
from wsi_attention.methods.tnet.regions import (
    Level,
    Read,
    RegionCanvas,
    Regions,
    See,
    gathered,
    glimpses,
    overview_level,
    padded_rows,
    read_level,
)
from wsi_attention.methods.tnet.trunk import CoarseTrunk
from wsi_attention.nn.attention_nets import TissueAttentionNet
from wsi_attention.nn.bags import encode
from wsi_attention.nn.blocks import Encoder
from wsi_attention.nn.encoders import TileEncoder
from wsi_attention.nn.preprocess import PixelOptions, in_float32
from wsi_attention.options import option
from wsi_attention.protocols import TileSource
from wsi_attention.structures import AttentionMap, Output, TileBatch

SELECTIONS = ("without-replacement", "as-released")
LOGITS = ("plain", "unit-norm")
POSITIONS = ("added", "joined")
POOLINGS = ("weighted", "mean", "by-level")
TRUNKS = ("encoder", "tissue")
ANSWERS = ("pooled", "levels")
NEAR = 2.0
"""A view up to so many times coarser than `tile_mpp` is for the tile encoder, where there is a trunk for the others."""
Maps = list[AttentionMap]


@dataclass(frozen=True, kw_only=True)
class TNetOptions(PixelOptions):
    """TNet for stained tissue: each level looks four times closer, and at most 4 + 12 + 24 + 48 regions are read."""

    base: int = option(
        128, "r, pixels along a side of the overview and of every region", "paper: 77 to 224", low=1, high=8192
    )
    tile_mpp: float = option(0.5, "finest µm per pixel that is read; levels below it are left out", low=0.02, high=50)
    overview_mpp: float = option(
        16.0, "µm per pixel at which tissue is looked for; the overview itself has base² pixels", low=0.02, high=1000
    )
    grid: int = option(5, "n, crops along an axis", "paper: 3 or 5", low=2, high=64)
    overlap: float = option(
        0.25,
        "o, side of a crop over that of its parent; n·o must be at least 1, so that the crops cover the parent. A "
        "quarter is the step between the levels of most slides",
        "paper: 0.34 to 0.5",
        low=1e-3,
        high=1,
    )
    attended: tuple[int, ...] = option(
        (4, 3, 2, 2),
        "k of each level from the coarsest, regions chosen in each region; fewer where a region has less tissue",
        "paper: one or two levels of 1 to 5 regions",
        low=1,
        high=4096,
    )
    encoder: TileEncoder = option(TileEncoder(), "the network that turns a view into a feature")
    map_layer: str = option(
        "", "layer of the encoder whose output the location module sees; where empty, the encoder's last map but one"
    )
    trunk: str = option(
        "encoder",
        'what looks at views. "encoder": the tile encoder at all of them, the paper; "tissue": a trunk of its own, '
        "pooled over tissue, at those with regions below them or more than twice as coarse as tile_mpp, the encoder at "
        "the rest",
        "docs/methods/tnet.md §6",
        choices=TRUNKS,
    )
    trunk_widths: tuple[int, ...] = option(
        (32, 64), "channels of the trunk after each of its stages, which halve the view", low=1, high=65_536
    )
    trunk_context: int = option(5, "side of the trunk's kernel over cells, odd", low=1, high=99)
    overview_weight: float = option(
        0.0,
        "factor on the loss on what the cells of each coarse level show by themselves; needs a trunk; 0 is the paper's "
        "loss",
        "docs/methods/tnet.md §4",
        low=0,
    )
    answer: str = option(
        "pooled",
        'what the logits are: "pooled", those of the pooled feature, the paper; "levels", the mean of these and of '
        "what the cells of each coarse level show, which needs a trunk. Each is taught by itself",
        "docs/methods/tnet.md §2.6",
        choices=ANSWERS,
    )
    location_width: int = option(64, "channels of the location module", low=1, high=65_536)
    position: str = option(
        "added",
        'how a position joins its feature. "added": the paper for fMoW, CUB and NABirds; "joined": for ImageNet',
        "docs/methods/tnet.md §2.4",
        choices=POSITIONS,
    )
    pooling: str = option(
        "weighted",
        'how features are pooled. "weighted": the paper for CUB and NABirds; "mean": for ImageNet and fMoW; '
        '"by-level": as weighted, but each level starts with the same share, however many regions it has',
        "docs/methods/tnet.md §2.5",
        choices=POOLINGS,
    )
    dropout: float = option(
        0.25,
        "share of the pooled feature's components that training leaves out",
        "paper: 0.25 for CUB and NABirds, 0.5 for ImageNet and fMoW",
        low=0,
        high=0.99,
    )
    selection: str = option(
        "without-replacement",
        'how training chooses regions. "without-replacement" draws them; "as-released" takes the k most probable, with '
        "log(p + 1e-10) for the likelihood. Prediction always takes the k most probable",
        "docs/methods/tnet.md §3",
        choices=SELECTIONS,
    )
    logits: str = option(
        "plain",
        'logits of the location module. "unit-norm" is as released, and caps p at 0.27 (n = 3) or 0.10 (n = 5)',
        "docs/methods/tnet.md §2.3",
        choices=LOGITS,
    )
    class_share: float = option(
        0.7,
        "λ_c, share of the pooled feature in the classification loss; the rest is that of single features. The label "
        "of a slide says less of one region than that of a photograph, hence more than in the paper",
        "paper: 0.05 to 0.3",
        low=0,
        high=1,
    )
    reward_share: float = option(
        0.3, "λ_r, share of the whole slide's reward in the policy loss", "paper: 0.05 to 0.3", low=0, high=1
    )
    policy_weight: float = option(0.1, "λ_f, factor on the policy loss", "paper: 0.1", low=0)
    regularised_levels: int | None = option(
        None,
        "levels with a loss of their own, the overview first; all of them where nothing is given",
        "paper: 2 of 3 for fMoW at 896 px",
        low=1,
    )
    contrast_weight: float = option(
        0.0,
        "factor on the contrastive term, which is 0 for one slide at a time",
        "released code: 100 for CUB, 50 for NABirds",
        low=0,
    )
    baseline_kept: float = option(
        0.98,
        "share of the running baseline that a step keeps; more than in the paper, because a step sees one slide",
        "released code: 0.9, for steps of 64 images",
        low=0,
        high=1,
    )

    def check(self) -> None:
        """Raise InputError unless there is a level and its crops cover their parent."""
        if self.grid * self.overlap < 1:
            raise InputError(
                f"crops must cover their parent: grid · overlap must be at least 1, not {self.grid} · {self.overlap}"
            )
        if not self.attended:
            raise InputError("attended is empty; give the regions of one level at least, such as [4]")
        if self.trunk == "encoder" and self.encoder.turns > 1:
            raise InputError(
                f"encoder.turns {self.encoder.turns}: the location module looks inside the encoder, which must see a "
                'view in one turn; take turns = 1, or trunk = "tissue"'
            )
        if self.trunk == "encoder" and self.overview_weight:
            raise InputError('overview_weight needs trunk = "tissue"; give both, or leave it out')
        if self.answer == "levels" and not self.overview_weight:
            raise InputError('answer "levels" needs overview_weight above 0, or nothing teaches the levels to answer')
        if self.trunk == "tissue" and (self.base % 2 ** len(self.trunk_widths) or not self.trunk_context % 2):
            raise InputError(
                f"the trunk needs base to be a multiple of {2 ** len(self.trunk_widths)}, 2 to the power of its "
                f"stages, and an odd trunk_context; got {self.base} and {self.trunk_context}"
            )


class TNet(nn.Module):
    """Regions of regions, chosen by a location module, their features pooled with the overview's, a classifier.

    Args:
        encoder: (m, c, h, w) -> (m, d), rows of length 1.
        seen: runs the encoder and returns its feature and map; None where a trunk scores the crops.
        location: φ (v, c, n, n) -> logits (v, n²); None where a trunk scores the crops.
        position: features (b, N, d), positions (b, N, 3) -> (b, N, d').
        pooling: features (b, N, d'), real (b, N), level (b, N) -> F̄ (b, d'), shares (b, N).
        classifier: (..., d') -> (..., classes), of F̄ and of each feature alone.
        preprocess: (m, c, h, w) pixels of any dtype -> floats on the model's device.
        options: all numbers.
        trunk: looks at coarse views in place of the encoder; None, as published, for the encoder at all views.

    Attributes:
        attended: k of each level. It may be changed at any time, its length too: one location module serves all levels.
        baseline: running mean of the rewards.
    """

    overview_pixels: int = OVERVIEW_PIXELS
    map_stride: int = 1
    baseline: Tensor

    def __init__(
        self,
        encoder: Encoder,
        seen: FeatureAndMap | None,
        location: nn.Module | None,
        position: nn.Module,
        pooling: nn.Module,
        classifier: nn.Module,
        preprocess: nn.Module,
        options: TNetOptions,
        trunk: CoarseTrunk | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.seen, self.location, self.position = encoder, seen, location, position
        self.pooling, self.classifier, self.preprocess, self.trunk = pooling, classifier, preprocess, trunk
        self.options, self.attended = options, options.attended
        self.tile_mpp, self.overview_mpp = options.tile_mpp, options.overview_mpp
        self.register_buffer("baseline", torch.tensor(policy.BASELINE_START))

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """Look at the overview, read one level of regions after the other, one request each, and classify.

        Args:
            source: b images side by side.
            generator: source of the draws in training; torch's global one where None. Eval mode draws nothing.

        Returns:
            logits (b, classes); one glimpse per level ("level-1", …); the maps "location-1", … (the highest p of the
            crops at a cell, 0 where no region was looked into) and "attention" (π of each region, spread evenly over
            its tissue); spread NaN; and as terms, N features per image with the overview first: `features`
            (b, N, d'), `feature_logits` (b, N, classes), `shares` π, `valid`, `level`, `log_probability` (b, N),
            `pooled` (b, d'), `log_likelihood` (b,). With a trunk also `level_logits` (b, l, classes), what the cells of
            each level that it saw say by themselves, NaN where an image has no such region. `pooled_logits` are those
            of the pooled feature. There are no regions where the overview shows the finest scale.

        Raises:
            NoTissueError: an image has no tissue.
            TileReadError: an image of which no region of the first level could be read.
        """
        view = square_view(source, self.options.base)
        side, smallest = round(view.side), math.ceil(self.options.base * source.downsample(self.tile_mpp))
        crops = crop_grids(side, smallest, self.options.overlap, self.options.grid, len(self.attended))
        canvas = RegionCanvas(source, crops[-1].patch if crops else side)
        see = self._looks(canvas, [side, *(crop.patch for crop in crops)], source.downsample(self.tile_mpp))
        levels = [overview_level(view, side, see[0], self.baseline.device)]
        reads, maps = list[Read](), list[Maps]()
        likelihood = torch.zeros(source.batch, device=levels[0].features.device)
        for crop, k in zip(crops, self.attended, strict=False):
            tissue = canvas.candidates(levels[-1].regions, crop, self.options.grid).to(likelihood.device)
            parents, tissue = levels[-1].only(tissue.any(dim=-1)), tissue[tissue.any(dim=-1)]
            if not len(tissue):
                break
            attention, chosen = self._choose(parents, tissue, canvas, crop, k, generator)
            likelihood = likelihood.index_add(0, chosen.image, chosen.log_probability)
            read, level = read_level(source, chosen, self.options.base, see[len(levels)])
            if not reads:
                require_tiles(padded_rows(read.valid, chosen.image, source.batch)[chosen.image], "regions")
            maps.append(canvas.highest(parents.regions, crop, attention, f"location-{len(maps) + 1}"))
            reads, levels = [*reads, read], [*levels, level]
        return self._output(canvas, levels, reads, maps, likelihood)

    def draw(self, attention: Tensor, k: int, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return up to k cells of each row of attention (v, n²), and which of them are real; both (v, k)."""
        if self.training and self.options.selection == "without-replacement":
            return policy.attend(attention, k, generator)
        return policy.attend_top(attention, k)

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """Return the loss, a scalar, and in train mode move the running baseline (docs/methods/tnet.md §4).

        λ_c·CE(F̄) + (1 − λ_c)·mean CE(single features) + λ_f·`policy_loss` + the contrastive term; with a trunk also
        `overview_weight` times the mean CE of what the cells of each coarse level show.

        Args:
            output: of `forward`.
            target: (b,) class indices.
        """
        numbers = self.options
        counted = self._regularised(output)
        labels = target.unsqueeze(-1).expand(counted.shape)[counted]
        each = functional.cross_entropy(output.terms["feature_logits"][counted], labels)
        whole = functional.cross_entropy(output.terms["pooled_logits"], target)
        total = policy.balanced(whole, each, numbers.class_share)
        total = total + numbers.policy_weight * self.policy_loss(output, target)
        if self.trunk is not None and numbers.overview_weight:
            total = total + numbers.overview_weight * self._overview_loss(output, target)
        if self.training and any(output.glimpses):
            self._move_baseline(*self._rewards(output, target))
        if not numbers.contrast_weight:
            return total
        return total + numbers.contrast_weight * in_float32(policy.pairwise_contrast, output.terms["pooled"], target)

    def policy_loss(self, output: Output, target: Tensor) -> Tensor:
        """Return λ_r·L_R + (1 − λ_r)·that of single regions, 0 where nothing was chosen (docs/methods/tnet.md §3)."""
        baseline, (whole, each) = float(self.baseline), self._rewards(output, target)
        loss = policy.reinforce(output.terms["log_likelihood"], whole, baseline)
        if not len(each):
            return loss
        alone = policy.reinforce(output.terms["log_probability"][self._regularised(output, 1)], each, baseline)
        return policy.balanced(loss, alone, self.options.reward_share)

    def _overview_loss(self, output: Output, target: Tensor) -> Tensor:
        own: Tensor = output.terms["level_logits"]
        there = own.isfinite().all(dim=-1)
        if not bool(there.any()):
            return own.new_zeros(())
        return functional.cross_entropy(own[there], target.unsqueeze(-1).expand(there.shape)[there])

    def _rewards(self, output: Output, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return R (b,) of the images, and R_n of every region with a loss of its own."""
        each, counted = output.terms["feature_logits"], self._regularised(output, 1)
        alone = policy.reward(each, target.unsqueeze(-1).expand(counted.shape))[counted]
        return policy.reward(output.terms["pooled_logits"], target), alone

    def _move_baseline(self, whole: Tensor, each: Tensor) -> None:
        each = each if len(each) else whole
        share, kept = self.options.reward_share, self.options.baseline_kept
        self.baseline.fill_(policy.next_baseline(float(self.baseline), whole, each, share, kept))

    def _regularised(self, output: Output, first: int = 0) -> Tensor:
        """Return (b, N) bool, the features with a loss of their own, from level `first` on."""
        level, last = output.terms["level"], self.options.regularised_levels
        counted: Tensor = output.terms["valid"] & (level >= first)
        return counted if last is None else counted & (level < last)

    def _choose(
        self, parents: Level, tissue: Tensor, canvas: RegionCanvas, crop: CropGrid, k: int, generator: Generator | None
    ) -> tuple[Tensor, Regions]:
        """Return p (v, n²) of the crops of all parents, and the children; no gradient goes into φ."""
        regions, n = parents.regions, self.options.grid
        logits = self._crop_logits(parents, canvas, crop).masked_fill(~tissue, -torch.inf)
        logits = policy.unit_norm_logits(logits) if self.options.logits == "unit-norm" else logits
        attention = smoothed_softmax(logits)
        cells, drawn = self.draw(attention, k, generator)
        each = policy.log_likelihood_of_each(logits, cells, drawn)
        if self.options.selection == "as-released":
            each = policy.log_probability_as_released(logits, cells)
        places = child_locations(regions.places, cells, (crop, crop), n)
        positions = child_positions(regions.positions, cells, n)
        image = regions.image.unsqueeze(-1).expand(cells.shape)
        children = Regions(image, places, positions, attention.gather(-1, cells), each, crop.patch)
        return attention, children.only(drawn)

    def _crop_logits(self, parents: Level, canvas: RegionCanvas, crop: CropGrid) -> Tensor:
        """Return logits (v, n²) of the crops of all parents; no gradient goes into their maps."""
        side, n = parents.regions.side, self.options.grid
        if self.location is not None:
            phi = in_float32(partial(crop_means, grid=crop, side=side, n=n), parents.maps.detach())
            logits: Tensor = in_float32(self.location, phi)
            return logits
        assert self.trunk is not None
        tissue = canvas.share(parents.regions, self.trunk.cells).to(parents.maps.device)
        return in_float32(partial(self.trunk.crop_logits, crop=crop, side=side, n=n), parents.maps, tissue)

    def _looks(self, canvas: RegionCanvas, sides: Sequence[int], finest: float) -> list[See]:
        """Return what looks at each level, the overview first: the trunk at coarse ones, where there is a trunk.

        Args:
            canvas: the tissue.
            sides: of the regions of each level, in level-0 pixels.
            finest: downsample of the tiles.
        """
        if self.trunk is None:
            return [self._see_all] * len(sides)
        near = sides[-1] / self.options.base <= NEAR * finest
        coarse = partial(self._see_coarse, trunk=self.trunk, canvas=canvas)
        return [*[coarse] * (len(sides) - 1), partial(self._see_tiles, trunk=self.trunk) if near else coarse]

    def _see_all(self, batch: TileBatch, regions: Regions) -> tuple[Tensor, Tensor]:
        """Return features (b, m, d) and maps (b, m, c, h, w) of the encoder, zeros where a view is not valid."""
        assert self.seen is not None
        if not bool(batch.valid.any()):
            return self.seen.nothing(batch.valid)
        return self.seen.split(encode(batch, self.preprocess, self.seen))

    def _see_tiles(self, batch: TileBatch, regions: Regions, trunk: CoarseTrunk) -> tuple[Tensor, Tensor]:
        """Return features (b, m, d) of the encoder, and maps (b, m, 0, g, g): no region is chosen in a tile."""
        features = batch.valid.new_zeros((*batch.valid.shape, self.encoder.dim)).float()
        if bool(batch.valid.any()):
            features = encode(batch, self.preprocess, self.encoder)
        return features, features.new_zeros(*batch.valid.shape, 0, trunk.cells, trunk.cells)

    def _see_coarse(
        self, batch: TileBatch, regions: Regions, trunk: CoarseTrunk, canvas: RegionCanvas
    ) -> tuple[Tensor, Tensor]:
        """Return features (b, m, d) and maps (b, m, c, g, g) of the trunk, pooled over the tissue of each view."""
        flat = trunk.nothing(batch.valid)
        if bool(batch.valid.any()):
            flat = encode(batch, self.preprocess, trunk)
        maps = trunk.maps(flat)
        tissue = padded_rows(canvas.share(regions, trunk.cells).to(maps.device), regions.image, len(maps))
        features = in_float32(trunk.pool, maps.flatten(0, 1), tissue.flatten(0, 1))
        return features.reshape(*batch.valid.shape, -1), maps

    def _output(
        self, canvas: RegionCanvas, levels: list[Level], reads: list[Read], maps: list[Maps], likelihood: Tensor
    ) -> Output:
        b, bag = len(likelihood), gathered(levels, len(likelihood))
        features = in_float32(self.position, bag.features, bag.positions)
        pooled, shares = in_float32(self.pooling, features, bag.valid, bag.level)
        by_level = [shares[level.regions.image, place] for level, place in zip(levels, bag.places, strict=True)]
        attention = canvas.spread([level.regions for level in levels], by_level)
        own = None if self.trunk is None else _own_logits(self.trunk, canvas, levels, b)
        logits = in_float32(self.classifier, pooled)
        return Output(
            logits=logits if own is None or self.options.answer == "pooled" else _mean_answer(logits, own),
            glimpses=glimpses(reads, by_level[1:], b),
            maps=tuple(zip(*maps, attention, strict=True)),
            spread=torch.full((b,), torch.nan, device=pooled.device),
            pooled=pooled,
            terms={
                "features": features,
                "feature_logits": in_float32(self.classifier, features),
                "shares": shares,
                "pooled": pooled,
                "pooled_logits": logits,
                "valid": bag.valid,
                "level": bag.level,
                "log_probability": bag.log_probability,
                "log_likelihood": likelihood,
                **({} if own is None else {"level_logits": own}),
            },
            parts=None if own is None else self._padded(torch.cat([logits.unsqueeze(1), own], dim=1)),
        )

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the pooled feature and of the levels that the trunk may see; each of them answers by itself."""
        if self.trunk is None:
            return ()
        return ("pooled", "overview", *(f"level-{number}" for number in range(1, len(self.attended) + 1)))

    def _padded(self, found: Tensor) -> Tensor:
        """Return the logits (b, p, classes) of parts with NaN for levels that the trunk did not see."""
        missing = len(self.part_names) - found.shape[1]
        return functional.pad(found.detach(), (0, 0, 0, missing), value=torch.nan)


def _mean_answer(pooled: Tensor, own: Tensor) -> Tensor:
    """Return the mean (b, classes) of pooled logits and those of levels (b, l, classes); NaN ones do not count."""
    return torch.cat([pooled.unsqueeze(1), own], dim=1).nanmean(dim=1)


def _own_logits(trunk: CoarseTrunk, canvas: RegionCanvas, levels: Sequence[Level], b: int) -> Tensor:
    """Return (b, l, classes), what the cells of each level that the trunk saw say; NaN where there is no region."""
    seen = [level for level in levels if level.maps.shape[1]]
    found = []
    for level in seen:
        tissue = canvas.share(level.regions, trunk.cells).to(level.maps.device)
        found.append(in_float32(partial(trunk.own_logits, b=b), level.maps, tissue, level.regions.image))
    return torch.stack(found, dim=1) if found else levels[0].features.new_zeros(b, 0, trunk.evidence.out_channels)


POOLING = {"weighted": FeatureWeighting, "by-level": LevelWeighting}


def _tnet(classes: int, options: TNetOptions) -> TNet:
    encoder, trunk, seen, location = options.encoder.build(options.channels), None, None, None
    added, dim = options.position == "added", encoder.dim
    if options.trunk == "tissue":
        network = TissueAttentionNet(options.channels, options.trunk_widths, options.trunk_context)
        trunk = CoarseTrunk(network, options.base, dim, classes)
    else:
        seen = FeatureAndMap(encoder, options.map_layer, options.channels, options.base)
        location = LocationModule(seen.map_shape[0], options.location_width)
    return TNet(
        encoder,
        seen,
        location,
        AddedPosition(dim, projected=options.encoder.frozen) if added else JoinedPosition(dim),
        FeatureMean() if options.pooling == "mean" else POOLING[options.pooling](dim),
        nn.Sequential(nn.Dropout(options.dropout), nn.Linear(dim, classes)),
        options.preprocess(),
        options,
        trunk,
    )


PAPER = (
    'Papadopoulos, Korus & Memon, "Hard-Attention for Scalable Image Classification", NeurIPS 2021, '
    "https://arxiv.org/abs/2102.10212"
)
tnet = Method(
    TNetOptions, _tnet, "TNet: the best regions of an overview, then the best inside each, to the finest scale.", PAPER
)
