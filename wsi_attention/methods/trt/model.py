"""TRT: a transformer looks at the whole slide, then again at the patches that carry most of its attention.

Su et al., "Re-Attention Transformer for Weakly Supervised Object Localization", BMVC 2022,
https://arxiv.org/abs/2208.01838; released code su-hui-zz/ReAttentionTransformer. Where we differ from the paper and
from the released code: docs/methods/trt.md §4. Axes: b images, n = side² patches, k kept patches, d channels.

Two things are added, and each can be switched off:

* `finer`: each kept patch is read at a finer level, and the token of that tile replaces the patch's own in the weighted
  sum. The paper's weights λ come from the coarse tokens; on a slide the evidence is the fine detail, so with
  `scored_by = "both"` the fine token is added to the coarse one before the re-attention block, and λ knows what was
  read. `scored_by = "coarse"` is the paper's λ.
* `evidence`: while training, the mean of what each patch shows by itself, weighted with the preliminary attention, is
  classified too. The selection is a constant, so nothing else tells the attention which patches to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_attention.attention.cam import class_scores
from wsi_attention.errors import InputError
from wsi_attention.geometry import OVERVIEW_PIXELS, Grid
from wsi_attention.methods.method import Method
from wsi_attention.methods.outputs import named_maps, require_tissue
from wsi_attention.methods.overview import square_view
from wsi_attention.methods.trt import reattention
from wsi_attention.methods.trt.finer import FinerTokens, records
from wsi_attention.methods.trt.reattention import ClassMaps, CoarseLook, ReAttention, at, coarse_look
from wsi_attention.nn.blocks import Encoder
from wsi_attention.nn.encoders import TileEncoder
from wsi_attention.nn.heads import attended, overview_logits
from wsi_attention.nn.known_features import tile_encoder
from wsi_attention.nn.preprocess import PixelOptions, in_float32
from wsi_attention.nn.vit import STEMS, ConvStem, VisionTransformer
from wsi_attention.options import option
from wsi_attention.protocols import TileSource
from wsi_attention.structures import Glimpse, Output

SELECTIONS = ("at-least-one", "as-released")
SCORED_BY = ("both", "coarse")
SELECTED_BY = ("mean", "heads")
OBJECTIVES = ("summed", "two-phase")
ALL_AT_ONCE, FIRST, SECOND = 0, 1, 2
"""Phases of training: all parts, all but the class maps, the class maps alone."""


@dataclass(frozen=True, kw_only=True)
class TrtOptions(PixelOptions):
    """TRT for stained tissue, small enough for a CPU: a slide seen at 224², 14 × 14 patches, 32 tiles read.

    Close to the paper is dim = 768, depth = 12, heads = 12, stem = "linear", finer = false, overview_weight = 0, with
    weights that were trained elsewhere; this package has none.
    """

    size: int = option(
        224,
        "pixels along the side of the square in which the whole slide is seen; a multiple of patch",
        low=2,
        high=65_536,
    )
    patch: int = option(
        16,
        "pixels along a patch's side; best where a patch is about as wide on the slide as a tile, so that a tile shows "
        "all of its patch",
        low=2,
        high=8192,
    )
    dim: int = option(192, "channels of a token; a multiple of heads", low=1, high=65_536)
    depth: int = option(6, "L, blocks of the transformer", low=2, high=1000)
    heads: int = option(3, "attention heads of a block", low=1, high=1000)
    stem: str = option(
        "conv",
        'how patches become tokens: "linear", by the patch embedding of the paper; "conv", by small convolutions, for '
        "training on few slides",
        choices=STEMS,
    )
    mass: float = option(
        0.6,
        "θ, the share of attention that the kept patches carry; above 1 all are kept. Not comparable between grids. "
        "Where attention is still flat, budget and not θ decides how many patches are kept",
        "TRT: 0.6 on CUB at 224 pixels, 0.65 at 384, 0.95 on ILSVRC",
        low=1e-6,
        high=100,
    )
    finer: bool = option(True, "true: the kept patches are read at a finer level, one tile each")
    budget: int = option(
        32,
        "the most patches that are kept, and tiles that are read; without finer there is no limit",
        low=1,
        high=100_000,
    )
    tile_size: int = option(256, "side of a tile in pixels", low=1, high=8192)
    tile_mpp: float = option(0.5, "µm per pixel of the tiles", low=0.02, high=50)
    overview_mpp: float = option(
        16.0,
        "µm per pixel of the overview on which tissue is found; the square is read at its own scale",
        low=0.02,
        high=1000,
    )
    scored_by: str = option(
        "both",
        'whose tokens decide the weights λ: "both", the coarse and the fine ones added, or "coarse", the paper\'s; '
        "without meaning where finer is false",
        "docs/methods/trt.md §4",
        choices=SCORED_BY,
    )
    selection: str = option(
        "at-least-one",
        'how many patches are kept at least; "as-released": none where one patch alone holds θ, so that λ is 0',
        "docs/methods/trt.md §2.1",
        choices=SELECTIONS,
    )
    selected_by: str = option(
        "mean",
        'whose attention keeps patches: "mean", that of all heads together, the paper\'s; "heads": each head keeps its '
        "own share of budget, and the loss on what patches show is of each head by itself, for regions so small that a "
        "mean hides them",
        "docs/methods/trt.md §2.1",
        choices=SELECTED_BY,
    )
    objective: str = option(
        "summed",
        '"summed": the loss of the paper. "two-phase", as released: first all but the class maps is trained, then they '
        "alone",
        "docs/methods/trt.md §2.5",
        choices=OBJECTIVES,
    )
    switch: float = option(0.5, 'share of the epochs that the first phase of "two-phase" lasts', low=0.001, high=0.999)
    overview_weight: float = option(
        1.0,
        "factor on the loss on what each patch shows by itself; 0 is the paper's loss",
        "docs/methods/trt.md §3",
        low=0,
    )
    encoder: TileEncoder = option(TileEncoder(), "the network that turns a tile into a feature")

    def check(self) -> None:
        """Raise InputError where options do not go together."""
        if self.size % self.patch:
            raise InputError(f"size must be a multiple of patch, got size {self.size}, patch {self.patch}")
        if self.dim % self.heads:
            raise InputError(f"dim must be a multiple of heads, got dim {self.dim}, heads {self.heads}")
        if self.selected_by == "heads" and self.selection == "as-released":
            raise InputError(
                'selected_by "heads" keeps a patch of each head at least; leave out selection "as-released"'
            )
        if self.finer and self.selection == "as-released":
            raise InputError(
                "selection 'as-released' may keep no patch at all, which leaves nothing to read at a finer level; "
                "take finer = false with it"
            )

    @property
    def side(self) -> int:
        """Patches along a side of the square."""
        return self.size // self.patch


class Scored(NamedTuple):
    """What the second look gave: b without patches whose tile failed, and λ, (b, n); logits; glimpses an image."""

    chosen: Tensor
    weights: Tensor
    logits: Tensor
    glimpses: tuple[tuple[Glimpse, ...], ...]


class ReAttentionTransformer(nn.Module):
    """Preliminary attention, the patches that carry its first share θ, re-attention among them, class maps.

    Args:
        transformer: of `depth` blocks, for a square of side × side patches.
        classes: number of classes.
        preprocess: (m, c, h, w) pixels of any dtype -> floats on the model's device.
        options: all numbers.
        finer: reads kept patches at a finer level; None, as published, reads nothing.
        evidence: patches (b, d, side, side) before the first block -> class scores of each (b, classes, side, side);
            None leaves the loss on them out, as the paper does.
    """

    phase: Tensor
    map_stride: int = 1
    overview_pixels: int = OVERVIEW_PIXELS

    def __init__(
        self,
        transformer: VisionTransformer,
        classes: int,
        preprocess: nn.Module,
        options: TrtOptions,
        finer: FinerTokens | None = None,
        evidence: nn.Module | None = None,
    ) -> None:
        super().__init__()
        last, dim = transformer.blocks[-1], transformer.dim
        self.transformer, self.preprocess, self.finer = transformer, preprocess, finer
        self.reattention = ReAttention(last, dim)
        self.classifier, self.evidence = nn.Linear(dim, classes), evidence
        self.class_maps = ClassMaps(last, dim, classes)
        self.options = options
        self.tile_mpp, self.overview_mpp = options.tile_mpp, options.overview_mpp
        self._learning = frozenset(name for name, value in self.named_parameters() if value.requires_grad)
        self.register_buffer("phase", torch.tensor(ALL_AT_ONCE))
        self._enter(ALL_AT_ONCE if options.objective == "summed" else FIRST)

    def forward(self, source: TileSource, generator: torch.Generator | None = None) -> Output:
        """Look at the whole image, keep patches, score them, classify; nothing is random.

        Args:
            source: b images side by side.
            generator: not used.

        Returns:
            Logits (b, classes); a glimpse an image where `finer` is given; the maps "attention" (m), "reattention"
            (m') and "localisation" (m' ⊙ ReLU(CAM) of the winning class); spread NaN; and as terms `attention`,
            `chosen`, `weights`, `refined` (b, n), `unread` (b,), `class_maps` and `localisation` (b, classes, side,
            side; with their signs), `class_map_logits` and `overview_logits` (b, classes; of each head, (b, h,
            classes), where each selects).

        Raises:
            NoTissueError: an image has no patch of tissue.
            TileReadError: not one tile of some image could be read.
        """
        view = square_view(source, self.options.size)
        grid = view.grid(self.options.side)
        tissue = source.tissue(grid).to(self.phase.device)
        require_tissue(tissue, "patches")
        with torch.set_grad_enabled(torch.is_grad_enabled() and int(self.phase) != SECOND):
            look = in_float32(partial(coarse_look, self.transformer), self.preprocess(view.pixels), tissue)
            scored = self.look_again(source, grid, look, tissue.flatten(1))
            overview = self._overview(look)
        classes = self.class_maps(look.earlier, look.packing, self.transformer.norm)
        refined = reattention.refined_attention(look.attention, scored.chosen, scored.weights)
        located, best = reattention.localisation_maps(refined, classes), scored.logits.argmax(dim=-1)
        shown = {
            "attention": look.attention,
            "reattention": refined,
            "localisation": located.relu()[torch.arange(len(best)), best].flatten(1),
        }
        return Output(
            logits=scored.logits,
            glimpses=scored.glimpses,
            maps=named_maps(shown, tissue, grid),
            spread=torch.full_like(scored.logits[:, 0], torch.nan),
            terms={
                "attention": look.attention,
                "chosen": scored.chosen,
                "weights": scored.weights,
                "refined": refined,
                "unread": 1 - (look.attention * scored.chosen).sum(dim=-1),
                "class_maps": classes,
                "localisation": located,
                "class_map_logits": class_scores(classes, tissue),
                "overview_logits": overview,
            },
        )

    def keep(self, attention: Tensor, tissue: Tensor, heads: Tensor | None = None) -> Tensor:
        """Return b (b, n) bool: the patches with tissue that carry the first share θ of m, at most `budget` of them.

        Args:
            attention: (b, n), m.
            tissue: (b, n) bool.
            heads: (b, h, n), of each head; each keeps its own where they are given.
        """
        mass = self.options.mass
        if self.options.selection == "as-released":
            return reattention.kept_as_released(attention, mass) & tissue
        budget = None if self.finer is None else self.options.budget
        if heads is not None:
            return reattention.kept_by_each(heads, mass, budget) & tissue
        return reattention.kept(attention, mass, budget) & tissue

    def _overview(self, look: CoarseLook) -> Tensor | None:
        """Return what patches show by themselves, weighted with m, (b, classes); of each head, (b, h, classes)."""
        if self.evidence is None or self.options.selected_by == "mean":
            return overview_logits(self.evidence, look.attention, look.embedded)
        scores = in_float32(self.evidence, look.embedded)
        return torch.stack([attended(scores, one) for one in look.heads.unbind(dim=1)], dim=1)

    def look_again(self, source: TileSource, grid: Grid, look: CoarseLook, tissue: Tensor) -> Scored:
        """Compute λ among the kept patches, t = Σ λ_j X_j, and pass [X_0, t] through the last block.

        See docs/methods/trt.md §2.3.
        """
        heads = look.heads if self.options.selected_by == "heads" else None
        chosen = self.keep(look.attention, tissue, heads)
        order = look.attention.detach().masked_fill(~chosen, -1.0).sort(dim=-1, descending=True, stable=True).indices
        cells = order[:, : max(1, int(chosen.sum(dim=-1).max()))]
        real = valid = chosen.gather(-1, cells)
        scored = values = at(look.patches, cells)
        finer = self.finer(source, grid, cells, real, self.preprocess) if self.finer is not None else None
        if finer is not None:
            valid, values = finer.valid, finer.tokens
            scored = scored + values if self.options.scored_by == "both" else scored
        weights = in_float32(self.reattention, scored, valid)
        token = reattention.weighted_token(weights.to(values.dtype), values)
        x = self.transformer.blocks[-1](torch.stack([look.class_token, token], dim=1))
        at_cells = look.attention.gather(-1, cells)
        return Scored(
            torch.zeros_like(chosen).scatter(-1, cells, valid),
            torch.zeros_like(look.attention).scatter(-1, cells, weights),
            in_float32(self.classifier, self.transformer.norm(x)[:, 0]),
            records(finer, real, weights, at_cells) if finer is not None else ((),) * len(cells),
        )

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """Return CE(logits) + CE(GAP(CAM)), or one of them by the phase, + the loss on the evidence; target (b,).

        See docs/methods/trt.md §2.5.
        """
        phase = int(self.phase)
        maps_loss = functional.cross_entropy(output.terms["class_map_logits"], target)
        if phase == SECOND:
            return maps_loss
        total = functional.cross_entropy(output.logits.float(), target)
        overview: Tensor | None = output.terms["overview_logits"]
        if overview is not None:
            labels = target if overview.ndim == 2 else target.unsqueeze(-1).expand(overview.shape[:2])
            own = functional.cross_entropy(overview.flatten(0, -2), labels.flatten())
            total = total + self.options.overview_weight * own
        return total + maps_loss if phase == ALL_AT_ONCE else total

    def start_epoch(self, epoch: int, epochs: int, shares: Sequence[float]) -> None:
        """Enter the phase that the epoch belongs to; a training of one epoch has only the first."""
        first = max(1, min(round(self.options.switch * epochs), epochs - 1))
        self._enter(ALL_AT_ONCE if self.options.objective == "summed" else FIRST if epoch <= first else SECOND)

    @property
    def encoder(self) -> Encoder | None:
        """The encoder of the tiles; None where no tiles are read."""
        return None if self.finer is None else self.finer.encoder

    @property
    def last_is_best(self) -> bool:
        """True with two phases: validation does not see the class maps that the second one trains."""
        return self.options.objective == "two-phase"

    def train(self, mode: bool = True) -> ReAttentionTransformer:
        """Set the mode of all parts; in the second phase all but the class maps stay in eval mode."""
        super().train(mode)
        if int(self.phase) == SECOND:
            for name, part in self.named_children():
                part.train(mode and name == "class_maps")
        return self

    def _enter(self, phase: int) -> None:
        self.phase.fill_(phase)
        for name, value in self.named_parameters():
            idle = phase == (FIRST if name.startswith("class_maps.") else SECOND)
            value.requires_grad_(name in self._learning and not idle)
        self.train(self.training)


def _trt(classes: int, options: TrtOptions) -> ReAttentionTransformer:
    dim, grid, channels = options.dim, (options.side, options.side), options.channels
    stem = ConvStem(channels, dim, options.patch) if options.stem == "conv" else None
    transformer = VisionTransformer(
        channels, options.patch, grid, dim, options.depth, options.heads, embed_patches=stem
    )
    finer = _finer(options) if options.finer else None
    evidence = _evidence(dim, classes) if options.overview_weight > 0 else None
    return ReAttentionTransformer(transformer, classes, options.preprocess(), options, finer, evidence)


def _finer(options: TrtOptions) -> FinerTokens:
    encoder = tile_encoder(options.encoder, options.channels)
    return FinerTokens(encoder, options.dim, tile_size=options.tile_size, tile_mpp=options.tile_mpp)


def _evidence(dim: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(dim, dim, 1), nn.GELU(), nn.Conv2d(dim, classes, 1))


PAPER = (
    'Su et al., "Re-Attention Transformer for Weakly Supervised Object Localization", BMVC 2022, '
    "https://arxiv.org/abs/2208.01838"
)
trt = Method(TrtOptions, _trt, "A transformer over the whole slide, then again over its most attended patches.", PAPER)
