"""Declare every extension point on one page; outside packages implement these and register them as entry points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import ModelError
from wsi_attention.geometry import Box, Grid
from wsi_attention.structures import Counters, Output, Prediction, Strip, TileBatch, TileSet

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

__all__ = [
    "AttentionModel",
    "EpochAware",
    "Estimating",
    "Exporter",
    "Guided",
    "InStrips",
    "Listed",
    "RegionsReader",
    "Remembering",
    "RememberingTurned",
    "SlideReader",
    "SparseReader",
    "Stated",
    "TileSource",
]


@runtime_checkable
class SlideReader(Protocol):
    """Raw access to one open file. A reader only reads: `Slide` checks, whitens, counts and reopens.

    Calling the class with a path opens it, or raises `SlideOpenError` / `UnsupportedSlideError` with one clear line.
    """

    name: ClassVar[str]
    level_dimensions: tuple[tuple[int, int], ...]
    level_downsamples: tuple[float, ...]
    tile_sizes: tuple[tuple[int, int] | None, ...]
    """Stored tile size (w, h) of each level, None where unknown."""
    properties: Mapping[str, str]
    """The file's own tags under their OpenSlide names where there is one."""
    bounds: Box | None
    associated: tuple[str, ...]

    def __init__(self, path: str) -> None:
        """Open the path. Further parameters, each with a default, are the options of `open_slide(…, options=…)`."""
        ...

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Return True where this reader should be tried on the path; cheap, never raises."""
        ...

    def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return pixels (h, w, 3 or 4) of a stored level: location in level-0 pixels, size in that level's pixels.

        Outside the slide the pixels are white or transparent. Thread-safe.

        Raises:
            TileReadError: the pixels could not be read or decoded.
        """
        ...

    def read_associated(self, name: str) -> NDArray[np.uint8]:
        """Return a label, macro or thumbnail image, (h, w, 3)."""
        ...

    def close(self) -> None:
        """Release the handle; reading afterwards is an error."""
        ...


@runtime_checkable
class RegionsReader(Protocol):
    """A `SlideReader` that also reads many regions of a level in one request, each stored tile fetched once."""

    def read_regions(
        self, locations: NDArray[np.int64], level: int, size: tuple[int, int], out: NDArray[np.uint8]
    ) -> list[str | None]:
        """Write to `out` the pixels that `read` returns for each location, on white. Thread-safe.

        Args:
            locations: (n, 2) top left corners in level-0 pixels; may lie outside the slide.
            level: index of the level.
            size: (w, h) of every region in the level's pixels.
            out: (n, h, w, 3) to write to.

        Returns:
            For each region None, or one line that says why it cannot be read; `out` then holds zeros, or what it held.

        Raises:
            TileReadError: the request failed as a whole; `out` may hold anything.
        """
        ...


@runtime_checkable
class SparseReader(Protocol):
    """A `SlideReader` that knows which stored tiles are not in its file; it reads them as white.

    Where tissue is expected at such a place, it counts as unreadable. For other readers, and files of which it does not
    know, transparent pixels count so.
    """

    def absent(self, level: int, tiles: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Return which stored tiles are missing; called after their pixels were read.

        Args:
            level: index of the level.
            tiles: (n, 2), (column, row) in the grid of the level's `tile_sizes`.

        Returns:
            (n,), False where it is not known; None where it is not known of the whole level.
        """
        ...


@runtime_checkable
class RedrawingReader(SparseReader, Protocol):
    """A `SparseReader` that draws missing tiles of a level from another one, where that has them."""

    def emptied_by(self, level: int) -> int:
        """Return the level whose missing tiles leave a level empty."""
        ...


@runtime_checkable
class TileSource(Protocol):
    """Where a model gets pixels: a slide, or plain tensors. The only thing a model ever sees of a slide."""

    extent: tuple[int, int]
    """(w, h) in level-0 pixels."""
    batch: int
    """Images side by side; 1 for a slide."""

    @property
    def counters(self) -> Counters:
        """What reading has cost so far."""
        ...

    def downsample(self, mpp: float) -> float:
        """Return the level-0 pixels per pixel at a µm/px, snapped to a stored level within 5 %, never below 1."""
        ...

    def overview_downsample(self, mpp: float) -> float:
        """Return the downsample of the overview: as `downsample`, but coarser where it would have too many pixels."""
        ...

    def overview(self, downsample: float) -> Tensor:
        """Return the whole extent, (b, c, h, w) with h = ceil(extent[1] / downsample).

        Pixel (r, c) covers exactly its downsample × downsample level-0 square; beyond the extent it is background.
        """
        ...

    def tissue(self, grid: Grid) -> Tensor:
        """Return the cells worth looking at, (b, rows, cols) bool."""
        ...

    def aligned(self, tiles: TileSet) -> TileSet:
        """Return the tiles, each moved by at most half a tile to where it is cheap to read.

        A tile still covers the centre it had. For tiles that stand for a place, not where the method depends on
        geometry.
        """
        ...

    def read(self, tiles: TileSet) -> TileBatch:
        """Read all tiles of a glimpse in one request, in the order given."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """What may know what an encoder says of tiles, so that they need not be read; a `TileSource` that does is asked.

    Whoever makes it knows which encoder its features are of; a model has one (`AttentionModel.encoder`).
    """

    def remembered(self, tiles: TileSet) -> tuple[Tensor, Tensor] | None:
        """Return features (b, n, d) and which of them are known, (b, n) bool; None where it knows nothing of them."""
        ...

    def remember(self, tiles: TileSet, features: Tensor, valid: Tensor) -> None:
        """Take up the features (b, n, d) of tiles that were read; those that are not `valid` (b, n) mean nothing."""
        ...


@runtime_checkable
class Listed(Protocol):
    """A `TileSource` whose tiles are given, such as those whose features are known, for methods that take them all."""

    def listed(self, size: tuple[int, int], downsample: float) -> TileSet | None:
        """Return all tiles of that size and downsample; None where no tiles of the kind are given."""
        ...


@runtime_checkable
class RememberingTurned(Remembering, Protocol):
    """What also knows tiles that are turned or mirrored before they are encoded, as augmentation does."""

    def turned(self, turn: int) -> Remembering | None:
        """Return what is asked for the same tiles seen so; 0 is not turned at all. None where it knows nothing of them.

        Args:
            turn: the sum of 1 where x and y change places, 2 where x is mirrored then, 4 where y is.
        """
        ...


@runtime_checkable
class InStrips(Protocol):
    """A `TileSource` that can show its overview strip by strip, so that the whole is never in memory."""

    def overview_strips(self, downsample: float, rows: int, halo: int) -> Iterator[Strip[Tensor]]:
        """Yield all rows of `overview(downsample)` from top to bottom, `rows` a strip, fewer in the last one.

        Each comes with up to `halo` rows of its surroundings above and below, fewer at the border.
        """
        ...


class AttentionModel(Protocol):
    """An ordinary `torch.nn.Module` that classifies what a `TileSource` shows; `contract_of` checks that it is one."""

    @property
    def tile_mpp(self) -> float:
        """The finest µm per pixel that is read; that of the overview where no tile is."""
        ...

    @property
    def overview_mpp(self) -> float:
        """µm per pixel of the overview, or at which tissue is looked for."""
        ...

    @property
    def overview_pixels(self) -> int:
        """The most pixels of the overview at prediction; `geometry.OVERVIEW_PIXELS` unless it can be seen in strips."""
        ...

    @property
    def map_stride(self) -> int:
        """Overview pixels along a side of a cell of the maps; training mirrors slides at the edge of a cell."""
        ...

    @property
    def encoder(self) -> Module | None:
        """What turns tiles (m, c, h, w) into features (m, d); None where tiles are not encoded one by one."""
        ...

    @property
    def preprocess(self) -> Module:
        """What turns pixels (m, c, h, w) of any dtype into floats on the model's device."""
        ...

    def forward(self, source: TileSource, generator: Generator | None = None) -> Output:
        """Run one pass; draws come from the generator. In eval mode the same generator state yields the same output."""
        ...

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """Return the paper's own loss, a scalar; target (b,) class indices."""
        ...


ATTRIBUTES = ("tile_mpp", "overview_mpp", "overview_pixels", "map_stride", "encoder", "preprocess")


def contract_of(model: object) -> AttentionModel:
    """Return a model as what the rest of the package uses of it.

    Raises:
        ModelError: it lacks an attribute of `AttentionModel`; the text names all that it lacks.
    """
    lacking = [name for name in ATTRIBUTES if not hasattr(model, name)]
    if lacking:
        raise ModelError(
            f"a model of class {type(model).__name__} lacks {', '.join(lacking)};"
            " wsi_attention.protocols.AttentionModel says what they mean"
        )
    return cast(AttentionModel, model)


@runtime_checkable
class InParts(Protocol):
    """A model of which parts answer by themselves too; its `Output.parts` holds their logits.

    Training reports how each part does beside the whole.

    Attributes:
        part_names: what the parts are called, in the order of `Output.parts`; none where there are none now.
    """

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts."""
        ...


@runtime_checkable
class EpochAware(Protocol):
    """A model that behaves differently in the course of training; the loop tells it where it is.

    Nothing of this may live outside the model's buffers, or an interrupted training would not go on as it was: the
    loop calls it at the start of every epoch, after a restart too.
    """

    @property
    def last_is_best(self) -> bool:
        """True where the model is kept as its last epoch leaves it, because validation cannot tell its epochs apart."""
        ...

    def start_epoch(self, epoch: int, epochs: int, shares: Sequence[float]) -> None:
        """Begin epoch 1 … epochs; `shares` is each class's share of the training images."""
        ...


@runtime_checkable
class LabelAware(Protocol):
    """A model that in training looks closer at images of some classes: its pass depends on the labels."""

    def learning_pass(self, source: TileSource, target: Tensor, generator: Generator | None = None) -> Output:
        """Run the forward pass of training, for images whose labels are known; target (b,) class indices."""
        ...


class Aim(Protocol):
    """What the logits of a model mean; see `targets.target.Target`, which says all of it."""

    @property
    def kind(self) -> str:
        """The target, such as "label"."""
        ...

    @property
    def unknown(self) -> float:
        """The standard error of what rests on a single draw."""
        ...

    def loss(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the mean loss of logits (b, k), a scalar."""
        ...

    def read(self, logits: Tensor) -> Tensor:
        """Map logits (..., k) to the numbers that stand for them, (..., m), such as probabilities."""
        ...

    def headline(self, numbers: Tensor) -> Tensor:
        """Map the numbers (..., m) to those (..., h) of which the greatest is what the spread is of."""
        ...


@runtime_checkable
class AnyTarget(Protocol):
    """A model that may learn other things than one label: its loss takes what stands for cross-entropy from here.

    `Method.any_target` is to say so too, because a recipe is checked before a model is built.
    """

    target: Aim


@runtime_checkable
class Guided(Protocol):
    """A model that learns the maps which an earlier training accumulated, such as OAA+."""

    def guided_loss(self, output: Output, target: Tensor, accumulated: Tensor) -> Tensor:
        """Return the loss that replaces `loss` for images that have such maps, a scalar.

        Args:
            output: of `forward`.
            target: (b,) class indices.
            accumulated: (b, classes, rows, cols) in [0, 1], on the grid of the output's last maps.
        """
        ...


@runtime_checkable
class Estimating(Protocol):
    """A model whose draws estimate a sum over all cells; the sum can also be computed exactly, or more closely.

    Training, prediction, `exact` and `until` are of one quantity. Where the model's options make its prediction another
    one, `other_quantity` says so, and `exact` and `until` raise `InputError` with it.
    """

    draws: int
    """Tiles of one draw; `until` reads as many a round."""

    @property
    def other_quantity(self) -> str:
        """Why there is no such sum to compute or to come closer to, as a clause; empty where there is."""
        ...

    def exact(self, source: TileSource) -> Output:
        """Compute the sum itself: read every cell of tissue, in parts that bound memory; spread NaN. For eval mode."""
        ...

    def until(
        self,
        source: TileSource,
        tolerance: float,
        budget: int,
        generator: Generator | None = None,
        unread: float | None = None,
    ) -> Output:
        """Draw round after round until both limits are met or `budget` tiles were read.

        The spread must be at most `tolerance`, and the attention mass of what was not read at most `unread` (None:
        `tolerance` too).
        """
        ...


@runtime_checkable
class Certifying(Protocol):
    """A model that can read on until the label of the sum over all tiles is settled (docs/certificate.md)."""

    @property
    def uncertifiable(self) -> str:
        """Why it gives no certificate, as a clause; empty where it does."""
        ...

    def certified(
        self,
        source: TileSource,
        level: float,
        budget: int,
        generator: Generator | None = None,
        calibration: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> Output:
        """Read a single image until the label is settled or `budget` tiles were read; the output has a certificate.

        Args:
            source: one image.
            level: 1 for nothing but a proof, or a confidence above 0.5 that is enough.
            budget: tiles that may be asked for, views among them.
            generator: of what is drawn.
            calibration: (scale, shift) of each class; the label is that of scale·logit + shift. None leaves logits.
        """
        ...


@runtime_checkable
class Holding(Protocol):
    """A model that can be held to say no more by a tile than tiles said in training (docs/methods/grow.md §2.5)."""

    def said(self, output: Output) -> Tensor:
        """Return the most that a tile of each image said for each class over another, (b, classes), 0 or more."""
        ...

    def hold(self, most: Sequence[float]) -> Mapping[str, object]:
        """Be held from now on, and return the options that say so; none where it is not to be held.

        Args:
            most: (classes,) the most that tiles said in training, as `said` has them.
        """
        ...


@runtime_checkable
class Stated(Protocol):
    """A model that says what its answer is about, for the model card."""

    @property
    def quantity(self) -> str:
        """What training, prediction, exact and anytime mode estimate or compute, in a sentence or two."""
        ...


@runtime_checkable
class Exporter(Protocol):
    """Writes one `Prediction` as one file or folder.

    An exporter that shows pixels takes `overview`, `tiles` or both as further arguments, each with a default; one that
    tells the slide's name in the results folder takes `slide_name`. See `export.heatmap` and `export.report`.
    """

    @property
    def suffix(self) -> str:
        """Where it goes in the results folder, such as "geojson/{slide}.geojson"."""
        ...

    def __call__(self, prediction: Prediction, path: Path) -> None:
        """Write the file whole; the caller passes a temporary path and renames it."""
        ...
