"""TRT: a transformer looks at the whole slide, then again at the patches that carry most of its attention.

Su et al., "Re-Attention Transformer for Weakly Supervised Object Localization", BMVC 2022,
https://arxiv.org/abs/2208.01838; released code su-hui-zz/ReAttentionTransformer. Axes: b images, n = side² patches,
k kept patches, d channels.
Where we differ from the paper. The whole slide is the image, as a square; patches without tissue take no part. At
least one patch is kept (`selection`). The kept patches are taken out before the re-attention block, which leaves out
the released mask's leak of 1e-6 / n to each dropped patch. There is no stochastic depth.

Two things are added, and only if asked for:

* `finer`: each kept patch is read at a finer level, and this token replaces the patch's own in the weighted sum. The
  paper's weights λ come from the coarse tokens; on a slide the evidence is the fine detail, so with
  `scored_by="both"` the fine token is added to the coarse one before the re-attention block, and λ knows what was
  read. `scored_by="coarse"` is the paper's λ.
* `evidence`: while training, the mean of what each patch shows by itself, weighted with the preliminary attention, is
  classified too. The selection is a constant, so nothing else tells the attention which patches to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsi_attention.attention.cam import class_scores
from wsi_attention.errors import InputError, NoTissueError
from wsi_attention.geometry import Grid
from wsi_attention.methods.outputs import named_maps
from wsi_attention.methods.overview import square_view
from wsi_attention.methods.trt import reattention
from wsi_attention.methods.trt.finer import FinerTokens, records
from wsi_attention.methods.trt.reattention import ClassMaps, CoarseLook, ReAttention, at, coarse_look
from wsi_attention.nn.encoders import build_encoder
from wsi_attention.nn.heads import overview_logits
from wsi_attention.nn.preprocess import HE_MEAN, HE_STD, Normalise, in_float32
from wsi_attention.nn.vit import ConvStem, VisionTransformer
from wsi_attention.options import one_of
from wsi_attention.protocols import TileSource
from wsi_attention.structures import Glimpse, Output

SELECTIONS = ("at-least-one", "as-released")
SCORED_BY = ("both", "coarse")
OBJECTIVES = ("summed", "two-phase")
ALL_AT_ONCE, FIRST, SECOND = 0, 1, 2
"""Phases of training: all parts, all but the class maps, the class maps alone."""


class Scored(NamedTuple):
    """What the second look gave: b without patches whose tile failed, and λ, (b, n); logits; glimpses an image."""

    chosen: Tensor
    weights: Tensor
    logits: Tensor
    glimpses: tuple[tuple[Glimpse, ...], ...]


class ReAttentionTransformer(nn.Module):
    """Preliminary attention, the patches that carry its first share θ, re-attention among them, class maps.

    Args:
        transformer: of L >= 2 blocks.
        classes: number of classes.
        preprocess: (m, c, h, w) pixels of any dtype -> floats on the model's device.
        size: pixels along the square's side; a multiple of the transformer's patch.
        tile_mpp: µm per pixel of the tiles that `finer` reads.
        overview_mpp: µm per pixel of the overview on which tissue is found; the square is read at its own scale.
        mass: θ above 0; above 1 keeps all patches. Published: 0.6 to 0.95. Not comparable between grids.
        budget: most patches to keep, those with the largest mass; None for no limit. What attention the kept patches
            do not carry is `terms["unread"]`.
        finer: reads kept patches at a finer level; None, as published, reads nothing.
        scored_by: one of `SCORED_BY`, see above; without meaning if `finer` is None.
        selection: "at-least-one", or "as-released": none where one patch alone holds θ, so λ and t are 0.
        objective: "summed", the paper's loss, or "two-phase" as released: first all but the class maps, then, from
            epoch switch · epochs on, with all else frozen, the class maps alone.
        switch: share of the epochs that the first phase lasts.
        evidence: patches (b, d, side, side) before the first block -> class scores of each (b, classes, side, side).
        overview_weight: factor on the loss on the evidence.

    Raises:
        InputError: an argument is out of range or names nothing.
    """

    phase: Tensor

    def __init__(
        self,
        transformer: VisionTransformer,
        classes: int,
        preprocess: nn.Module,
        *,
        size: int,
        tile_mpp: float,
        overview_mpp: float,
        mass: float = 0.6,
        budget: int | None = None,
        finer: FinerTokens | None = None,
        scored_by: str = "both",
        selection: str = "at-least-one",
        objective: str = "summed",
        switch: float = 0.5,
        evidence: nn.Module | None = None,
        overview_weight: float = 1.0,
    ) -> None:
        super().__init__()
        one_of("scored_by", scored_by, SCORED_BY)
        one_of("selection", selection, SELECTIONS)
        one_of("objective", objective, OBJECTIVES)
        if finer is not None and selection == "as-released":
            raise InputError("selection 'as-released' may keep no patch at all: nothing to read at a finer level")
        if not (mass > 0 and 0 < switch < 1):
            raise InputError(f"mass must be above 0 and switch between 0 and 1, got mass {mass}, switch {switch}")
        last, dim = transformer.blocks[-1], transformer.dim
        self.transformer, self.preprocess, self.finer = transformer, preprocess, finer
        self.reattention = ReAttention(last, dim)  # type: ignore[arg-type]
        self.classifier, self.evidence = nn.Linear(dim, classes), evidence
        self.class_maps = ClassMaps(last, dim, classes)  # type: ignore[arg-type]
        self.side, self.size = size // transformer.patch, size
        self.tile_mpp, self.overview_mpp = tile_mpp, overview_mpp
        self.mass, self.budget, self.selection, self.scored_by = mass, budget, selection, scored_by
        self.objective, self.switch, self.overview_weight = objective, switch, overview_weight
        self._learning = frozenset(name for name, value in self.named_parameters() if value.requires_grad)
        self.register_buffer("phase", torch.tensor(ALL_AT_ONCE))
        self._enter(ALL_AT_ONCE if objective == "summed" else FIRST)

    def forward(self, source: TileSource, generator: torch.Generator | None = None) -> Output:
        """Looks at the whole image, keeps patches, scores them, classifies; nothing is random.

        Args:
            source: b images side by side.
            generator: not used.

        Returns:
            Logits (b, classes); a glimpse an image where `finer` is given; the maps "attention" (m), "reattention"
            (m') and "localisation" (m' ⊙ ReLU(CAM) of the winning class); spread NaN; and as terms `attention`,
            `chosen`, `weights`, `refined` (b, n), `unread` (b,), `class_maps` and `localisation` (b, classes, side,
            side; with their signs), `class_map_logits` and `overview_logits` (b, classes).

        Raises:
            NoTissueError: an image has no patch of tissue.
            TileReadError: not one tile of some image could be read.
        """
        view = square_view(source, self.size)
        grid = view.grid(self.side)
        tissue = source.tissue(grid).to(self.phase.device)
        if not bool(tissue.flatten(1).any(dim=-1).all()):
            raise NoTissueError(f"no tissue in any of the {self.side} × {self.side} patches: nothing to look at")
        with torch.set_grad_enabled(torch.is_grad_enabled() and int(self.phase) != SECOND):
            look = in_float32(partial(coarse_look, self.transformer), self.preprocess(view.pixels), tissue)
            scored = self.look_again(source, grid, look, tissue.flatten(1))
            overview = overview_logits(self.evidence, look.attention, look.embedded)
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

    def keep(self, attention: Tensor, tissue: Tensor) -> Tensor:
        """b (b, n): the patches with tissue that carry the first share θ of m, at most the budget."""
        if self.selection == "as-released":
            return reattention.kept_as_released(attention, self.mass) & tissue
        return reattention.kept(attention, self.mass, self.budget) & tissue

    def look_again(self, source: TileSource, grid: Grid, look: CoarseLook, tissue: Tensor) -> Scored:
        """λ among the kept patches, t = Σ λ_j X_j, and the last block over [X_0, t] (TRT §2.2, §2.3)."""
        chosen = self.keep(look.attention, tissue)
        order = look.attention.detach().masked_fill(~chosen, -1.0).sort(dim=-1, descending=True, stable=True).indices
        cells = order[:, : max(1, int(chosen.sum(dim=-1).max()))]
        real = valid = chosen.gather(-1, cells)
        scored = values = at(look.patches, cells)
        finer = self.finer(source, grid, cells, real, self.preprocess) if self.finer is not None else None
        if finer is not None:
            valid, values = finer.valid, finer.tokens
            scored = scored + values if self.scored_by == "both" else scored
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
        """CE(logits) + CE(GAP(CAM)), or one by the phase (TRT §2.5), + the loss on the evidence; target (b,)."""
        phase = int(self.phase)
        maps_loss = functional.cross_entropy(output.terms["class_map_logits"], target)
        if phase == SECOND:
            return maps_loss
        total = functional.cross_entropy(output.logits.float(), target)
        overview: Tensor | None = output.terms["overview_logits"]
        if overview is not None:
            total = total + self.overview_weight * functional.cross_entropy(overview, target)
        return total + maps_loss if phase == ALL_AT_ONCE else total

    def start_epoch(self, epoch: int, epochs: int, shares: Sequence[float]) -> None:
        """Changes from the first phase to the second in time; a training of one epoch has only the first."""
        first = max(1, min(round(self.switch * epochs), epochs - 1))
        self._enter(ALL_AT_ONCE if self.objective == "summed" else FIRST if epoch <= first else SECOND)

    @property
    def encoder(self) -> nn.Module | None:
        """Of the tiles; None where none are read."""
        return None if self.finer is None else self.finer.encoder

    @property
    def last_is_best(self) -> bool:
        """In two phases, validation does not see the class maps that the second trains: the last epoch is to keep."""
        return self.objective == "two-phase"

    def train(self, mode: bool = True) -> ReAttentionTransformer:
        """As ever; in the second phase all but the class maps stays in eval mode."""
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


STEMS = ("linear", "conv")


def trt(
    classes: int,
    *,
    size: int = 224,
    patch: int = 16,
    dim: int = 192,
    depth: int = 6,
    heads: int = 3,
    stem: str = "conv",
    mass: float = 0.6,
    finer: bool = True,
    budget: int = 32,
    tile_size: int = 256,
    tile_mpp: float = 0.5,
    overview_mpp: float = 16.0,
    scored_by: str = "both",
    selection: str = "at-least-one",
    objective: str = "summed",
    switch: float = 0.5,
    overview_weight: float = 1.0,
    mean: Sequence[float] = HE_MEAN,
    std: Sequence[float] = HE_STD,
    encoder: str = "small",
    encoder_widths: Sequence[int] = (24, 48, 96, 128),
    features: int = 128,
    pool: str = "mean+max",
    encoder_frozen: bool = False,
) -> ReAttentionTransformer:
    """TRT for stained tissue, small enough for a CPU: a slide seen at 224², 14 × 14 patches, 32 tiles read.

    Close to the paper is `dim=768, depth=12, heads=12, stem="linear", finer=False, overview_weight=0`, with weights
    that were trained elsewhere; this package has none. Arguments not listed here are `ReAttentionTransformer`'s.

    Args:
        classes: number of classes.
        size: pixels along the side of the square in which the whole slide is seen; a multiple of the patch.
        patch: pixels along a patch's side. Best where a patch is about as wide on the slide as a tile: then a tile
            shows all of its patch.
        dim: channels of a token; a multiple of heads.
        depth: L, blocks, at least 2.
        heads: attention heads of a block.
        stem: "linear", the paper's patch embedding; "conv", small convolutions, for training on few slides.
        mass: θ; where attention is still flat, budget and not θ decides how many patches are kept.
        finer: whether the kept patches are read at a finer level.
        budget: most patches to keep, and to read; without `finer` there is no limit.
        tile_size: side of a tile in pixels.
        tile_mpp: µm per pixel of the tiles.
        overview_mpp: µm per pixel of the overview on which tissue is found.
        overview_weight: factor on the loss on what each patch shows by itself; 0 is the paper's loss.
        mean: of each channel, of 1.
        std: of each channel, of 1.
        encoder: a name that `nn.encoder_choice.build_encoder` knows.
        encoder_widths: channels of the small encoder's stages.
        features: length of the small encoder's feature.
        pool: "mean", "max" or "mean+max", of the small encoder.
        encoder_frozen: whether training leaves the encoder's weights as they are.

    Raises:
        InputError: an argument is out of range or names nothing.
    """
    _check(size=size, patch=patch, dim=dim, depth=depth, heads=heads, budget=budget)
    if not min(tile_size, tile_mpp, overview_mpp) > 0:
        raise InputError(
            f"tile_size, tile_mpp, overview_mpp must be above 0, got {tile_size}, {tile_mpp}, {overview_mpp}"
        )
    one_of("stem", stem, STEMS)
    embedding = ConvStem(len(mean), dim, patch) if stem == "conv" else None
    grid = size // patch, size // patch
    transformer = VisionTransformer(len(mean), patch, grid, dim, depth, heads, embed_patches=embedding)
    reader = None
    if finer:
        network = build_encoder(
            encoder, len(mean), widths=encoder_widths, features=features, pool=pool, frozen=encoder_frozen
        )
        reader = FinerTokens(network, dim, tile_size=tile_size, tile_mpp=tile_mpp)
    return ReAttentionTransformer(
        transformer,
        classes,
        Normalise(mean, std),
        size=size,
        tile_mpp=tile_mpp,
        overview_mpp=overview_mpp,
        mass=mass,
        budget=budget if finer else None,
        finer=reader,
        scored_by=scored_by,
        selection=selection,
        objective=objective,
        switch=switch,
        evidence=_evidence(dim, classes) if overview_weight > 0 else None,
        overview_weight=overview_weight,
    )


def _evidence(dim: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(dim, dim, 1), nn.GELU(), nn.Conv2d(dim, classes, 1))


def _check(*, size: int, patch: int, dim: int, depth: int, heads: int, budget: int) -> None:
    if min(patch - 1, heads, budget) < 1 or depth < 2 or size < patch or size % patch or dim < heads or dim % heads:
        raise InputError(
            "size must be a multiple of patch, dim of heads, patch and depth at least 2, budget at least 1, got "
            f"size {size}, patch {patch}, dim {dim}, depth {depth}, heads {heads}, budget {budget}"
        )
