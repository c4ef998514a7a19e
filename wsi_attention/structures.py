"""The values that travel between rooms and processes. All are frozen; none holds a handle or a slide's pixels.

Arrays are NumPy except in `TileBatch` and `Output`, which live inside a forward pass and hold torch tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsi_attention.geometry import Grid, shares_of_cells

if TYPE_CHECKING:
    import geopandas
    import pandas
    from torch import Tensor

__all__ = [
    "DEMONSTRATION",
    "UNDECIDED",
    "AttentionMap",
    "Counters",
    "Glimpse",
    "Output",
    "Prediction",
    "Strip",
    "TileBatch",
    "TileSet",
    "TissueMask",
    "error_text",
    "purpose_warning",
    "shown_class",
    "warning_in",
]

Pixels = TypeVar("Pixels")


@dataclass(frozen=True, eq=False)
class TileSet:
    """Coordinates of tiles to read: no pixels.

    Attributes:
        locations: (b, n, 2) int64, (x, y) of each top left corner in level-0 pixels; may lie outside the slide.
        size: (w, h) of a tile in output pixels.
        downsample: level-0 pixels per output pixel.
    """

    locations: NDArray[np.int64]
    size: tuple[int, int]
    downsample: float

    def __post_init__(self) -> None:
        locations = np.ascontiguousarray(self.locations, np.int64)
        if locations.ndim == 2:
            locations = locations[None]
        if locations.ndim != 3 or locations.shape[-1] != 2:
            raise ValueError(f"locations must be (b, n, 2), got {np.shape(self.locations)}")
        object.__setattr__(self, "locations", locations)

    def __len__(self) -> int:
        return int(self.locations.shape[1])

    @property
    def footprint(self) -> tuple[int, int]:
        """(w, h) of a tile in level-0 pixels, rounded."""
        return round(self.size[0] * self.downsample), round(self.size[1] * self.downsample)

    def __repr__(self) -> str:
        images = f"{len(self.locations)}×" if len(self.locations) != 1 else ""
        return f"TileSet({images}{len(self)} tiles of {_by(self.size)} pixels at downsample {self.downsample:g})"

    @property
    def boxes(self) -> NDArray[np.int64]:
        """(b, n, 4) int64: x, y, w, h in level-0 pixels."""
        size = np.broadcast_to(np.array(self.footprint, np.int64), self.locations.shape)
        return np.concatenate([self.locations, size], axis=-1)

    def select(self, index: slice | NDArray[np.int64] | NDArray[np.bool_]) -> TileSet:
        """Return the tiles that the index picks along n."""
        return replace(self, locations=self.locations[:, index])


@dataclass(frozen=True, eq=False)
class TileBatch:
    """What a `TileSource` returns: pixels, and which of them are real.

    Attributes:
        pixels: (b, n, c, h, w); uint8 from slides, any float from tensors; meaningless where `valid` is False.
        valid: (b, n) bool; False where a tile could not be read. Such a tile leaves the bag; it is never white.
    """

    pixels: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Counters:
    """What reading cost: `tiles`, their output `pixels`, file `bytes` asked for, `seconds` spent, `failed` tiles."""

    tiles: int = 0
    pixels: int = 0
    bytes: int = 0
    seconds: float = 0.0
    failed: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            self.tiles + other.tiles,
            self.pixels + other.pixels,
            self.bytes + other.bytes,
            self.seconds + other.seconds,
            self.failed + other.failed,
        )


@dataclass(frozen=True, eq=False)
class Strip(Generic[Pixels]):
    """Some rows of an overview, with rows of their surroundings.

    Attributes:
        first: the first row of the strip itself.
        last: the row after its last.
        top: the row of the overview that `pixels` begin with; `first` or above.
        pixels: rows `top` to `last` or below, over the whole width: a tensor (b, c, h, w), or an array (h, w, 3).
    """

    first: int
    last: int
    top: int
    pixels: Pixels

    @property
    def own(self) -> slice:
        """The strip itself within `pixels`."""
        return slice(self.first - self.top, self.last - self.top)


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Where there is tissue, over the whole slide.

    Attributes:
        mask: (h, w) bool; pixel (r, c) covers level-0 [c·downsample, (c+1)·downsample) × [r·downsample, …).
        downsample: level-0 pixels per mask pixel.
        source: where it came from: "computed", or the path of a user's mask.
        notes: what a reader should know about how it was made, a sentence each.
    """

    mask: NDArray[np.bool_]
    downsample: float
    source: str = "computed"
    notes: tuple[str, ...] = ()

    @property
    def area(self) -> float:
        """Tissue area in level-0 pixels."""
        return float(self.mask.sum()) * self.downsample**2

    def fraction(self, grid: Grid) -> NDArray[np.float64]:
        """Return the share of each cell that is tissue, shape grid.shape."""
        return shares_of_cells(self.mask, self.downsample, grid)

    def __repr__(self) -> str:
        share = float(self.mask.mean()) if self.mask.size else 0.0
        size = _by(self.mask.shape[::-1])
        return f"TissueMask({size} pixels at downsample {self.downsample:g}, {share:.1%} tissue, {self.source})"


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """One value per cell of a grid over the slide.

    Attributes:
        values: (rows, cols) float32; NaN where there is no tissue, so nothing was asked there.
        grid: where the cells lie, level-0 pixels.
        name: what the values are, e.g. "attention".
    """

    values: NDArray[np.float32]
    grid: Grid
    name: str = "attention"

    def __repr__(self) -> str:
        known = self.values[np.isfinite(self.values)]
        step = "×".join(f"{side:g}" for side in self.grid.step)
        highest = f", highest {known.max():.4g}" if known.size else ""
        cells = f"{self.grid.cols}×{self.grid.rows} cells of {step} level-0 pixels"
        return f"AttentionMap({self.name!r}: {cells}, {known.size} with tissue{highest})"


@dataclass(frozen=True, eq=False)
class Glimpse:
    """One request of a model: the tiles it read and what they counted for.

    Attributes:
        tiles: the boxes read, b = 1, in the order they were drawn.
        weights: (n,) share of each tile in the slide's feature; sums to 1 over the valid tiles, 0 where a tile failed.
        attention: (n,) the attention of the cell each tile was taken from.
        valid: (n,) bool; False where the tile could not be read.
        name: the stage, e.g. "tiles".
        drawn: whether tiles were drawn at random with these attentions, which then are the probabilities of one draw.
    """

    tiles: TileSet
    weights: NDArray[np.float64]
    attention: NDArray[np.float64]
    valid: NDArray[np.bool_]
    name: str = "tiles"
    drawn: bool = False

    def __repr__(self) -> str:
        weights = self.weights[np.isfinite(self.weights)]
        heaviest = f", highest weight {weights.max():.4g}" if weights.size else ""
        return f"Glimpse({self.name!r}: {self.tiles!r}, {int(self.valid.sum())} of them read{heaviest})"


@dataclass(frozen=True)
class Certificate:
    """How far the label of the sum over all tiles is settled by those that were read (docs/certificate.md).

    Attributes:
        level: 1 for a proof, a confidence such as 0.99, or None where the label is not settled.
        classes: index of the label, and of the class that comes closest to it as far as is known.
        lead: between which numbers the label's logit exceeds the other's in the whole sum.
        score: between which numbers this difference lies for any single tile.
        score_source: where these come from, in words.
        tiles: how many were read.
        drawn: how many of them were drawn at random.
        failed: how many could not be read.
    """

    level: float | None
    classes: tuple[int, int]
    lead: tuple[float, float]
    score: tuple[float, float]
    score_source: str
    tiles: int
    drawn: int
    failed: int

    @property
    def kind(self) -> str:
        """What stands in the column `certified`: "proof", the confidence such as "0.99", or "no"."""
        if self.level is None:
            return "no"
        return "proof" if self.level == 1 else f"{self.level:g}"


@dataclass(frozen=True, eq=False)
class Output:
    """What a model's forward pass returns, for a batch of b images.

    Attributes:
        logits: (b, classes).
        glimpses: per image, the glimpses in the order they were read.
        maps: per image, the attention maps.
        spread: (b,) standard error of the winning class's probability under the sampling; NaN where nothing was drawn
            at random.
        terms: named tensors for the model's own loss and tests (attention, features …); no other room reads them.
        unread_mass: (b,) in [0, 1], share of the attention that lies on tiles that were not read, failed ones among
            them; None for a method whose attention is no distribution over tiles.
        tile_evidence: (b, n, classes) in [0, 1], how much each tile of the last glimpse speaks for each class, without
            gradient; training may accumulate it. None for a method that does not say.
        pooled: (b, d) the feature of each slide that its logits come from; None for a method without such.
        certificate: how far the label of the sum over all tiles is settled, of a single image; None where nobody asked.
        members: (m, b, classes), the probabilities of each member of an ensemble; None for a single model.
        parts: (b, p, classes), logits of the p parts of a model that is `protocols.InParts`, NaN where an image has no
            such part; None for another model.
    """

    logits: Tensor
    glimpses: tuple[tuple[Glimpse, ...], ...]
    maps: tuple[tuple[AttentionMap, ...], ...]
    spread: Tensor
    terms: dict[str, Any] = field(default_factory=dict)
    unread_mass: Tensor | None = None
    tile_evidence: Tensor | None = None
    pooled: Tensor | None = None
    certificate: Certificate | None = None
    members: Tensor | None = None
    parts: Tensor | None = None


DEMONSTRATION = "demonstration"
"""The purpose of a model that shows how the package works and nothing else."""
_WARNINGS = "demonstration model: the label means nothing on real tissue", "the model says that its purpose is "


def purpose_warning(purpose: str) -> str:
    """Say in a sentence what a label of a model with this purpose is worth; nothing for a model without one."""
    if purpose == DEMONSTRATION:
        return _WARNINGS[0]
    return f"{_WARNINGS[1]}{purpose}" if purpose else ""


UNDECIDED = "undecided"
"""The label where a conformal set does not hold one class alone."""


def error_text(spread: float | None) -> str:
    """Write a standard error behind a probability: " ± 0.031", " ± <0.001"; nothing where nothing was drawn."""
    if spread is None or math.isnan(spread):
        return ""
    return " ± <0.001" if spread < 0.0005 else f" ± {spread:.3f}"


def warning_in(notes: str) -> str:
    """Find such a sentence at the beginning of the column `notes` of predictions.csv; empty where there is none."""
    first = notes.partition("; ")[0]
    return first if first.startswith(_WARNINGS) else ""


def shown_class(name: str, purpose: str) -> str:
    """Name a class as people see it, "lesion (demonstration model)"; as it is for a model without such a purpose."""
    return f"{name} ({purpose} model)" if purpose else name


@dataclass(frozen=True, eq=False)
class Prediction:
    """A slide's label with the regions it rests on; plain values, so it pickles and can be written by any exporter.

    Attributes:
        slide: the slide's path as it was given.
        extent: (w, h) of level 0.
        mpp: µm per level-0 pixel.
        bounds: (x, y) of the bounds that QuPath crops to; (0, 0) where the file names none.
        classes: class names in the order of `probabilities`; none for a target without classes, such as a number.
        probabilities: (classes,) float64; sum 1, unless a slide may have several labels.
        spread: standard error of the winning probability under the sampling of tiles; None where nothing was drawn at
            random. It cannot know of tissue that no draw has shown: see `unread_mass`.
        glimpses: what was read, first glimpse first.
        maps: attention maps over the slide.
        tissue: the mask that attention was confined to.
        counters: what reading cost, tiles and overview together.
        overview_pixels: pixels of the overview that attention looked at.
        provenance: slide fingerprint, weights sha256, seed, versions, and where mpp came from.
        notes: what a reader of the result should know although the slide could be done, one sentence each.
        shortfalls: what the result lacks, one sentence each, such as tiles that could not be read; empty where nothing.
        unread_mass: share of the attention on tiles that were not read, in [0, 1]; None for a method whose attention is
            no distribution over tiles. What lies there, neither label nor spread knows.
        purpose: what the model says it is for, "demonstration" or ""; stands beside the label wherever that is shown.
        patient: whose slide it is; empty where nobody says.
        among: the conformal set, the classes that cannot be told apart from the right one; None where the model has no
            such sets. The label is undecided where it does not hold one class alone.
        unlike: how far the slide is from those of the training, as a share of what is usual there; above 1 it is
            unlike them. None where the model does not know.
        certified: whether the label is that of the sum over all tiles: "proof", a confidence such as "0.99", or "no";
            empty where nobody asked. It says nothing on whether that label is true.
        target: what the model was asked for, "label" for one class a slide.
        values: (column of predictions.csv, number) of a target beyond one label; the spread is of the same unit.
        called: the label, where it is not simply the most probable class.
    """

    slide: str
    extent: tuple[int, int]
    mpp: float
    bounds: tuple[int, int]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    spread: float | None
    glimpses: tuple[Glimpse, ...]
    maps: tuple[AttentionMap, ...]
    tissue: TissueMask
    counters: Counters
    overview_pixels: int
    provenance: dict[str, object]
    notes: tuple[str, ...] = ()
    shortfalls: tuple[str, ...] = ()
    unread_mass: float | None = None
    purpose: str = ""
    patient: str = ""
    among: tuple[str, ...] | None = None
    unlike: float | None = None
    certified: str = ""
    target: str = "label"
    values: tuple[tuple[str, float], ...] = ()
    called: str = ""

    @property
    def label(self) -> str:
        """The class with the highest probability; `UNDECIDED` where a conformal set does not hold it alone."""
        return self.highest if self.among in (None, (self.highest,)) else UNDECIDED

    @property
    def highest(self) -> str:
        """The class with the highest probability, decided or not, the first of equals; other targets may say more."""
        return self.called or self.classes[int(np.argmax(self.probabilities))]

    @property
    def probability(self) -> float | None:
        """The highest probability, decided or not; None where the label is not one class."""
        return float(self.probabilities.max()) if not self.called and self.classes else None

    @property
    def numbers(self) -> tuple[tuple[str, float], ...]:
        """All there is to show, (name, number): classes with their probabilities, most probable first, then values."""
        shares = zip(self.classes, self.probabilities.tolist(), strict=True)
        return (*sorted(shares, key=lambda one: -one[1]), *self.values)

    @property
    def decided(self) -> bool:
        """Whether the label is a class."""
        return self.among in (None, (self.highest,))

    @property
    def calibrated(self) -> bool:
        """Whether the probabilities went through a calibration; the model's own then stand in the provenance."""
        return "uncalibrated" in self.provenance

    @property
    def status(self) -> str:
        """ "partial" where tiles failed or the slide is coarser than the model reads, otherwise "done"."""
        return "partial" if self.shortfalls else "done"

    @property
    def remarks(self) -> tuple[str, ...]:
        """All there is to say about the result: the model's purpose, shortfalls, notes."""
        return (*filter(None, [self.warning]), *self.shortfalls, *self.notes)

    @property
    def warning(self) -> str:
        """A sentence on what a label of a model with this purpose is worth; empty for a model without one."""
        return purpose_warning(self.purpose)

    @property
    def shown_label(self) -> str:
        """The label as people see it: with the model's purpose, "lesion (demonstration model)"."""
        return shown_class(self.label, self.purpose)

    @property
    def shown_lead(self) -> str:
        """What the highest probability is of, as people see it: the label, or "undecided, most probable benign"."""
        named = self.label if self.decided else f"{UNDECIDED}, most probable {self.highest}"
        return shown_class(named, self.purpose)

    @property
    def verdict(self) -> str:
        """Label, probability and error on one line, e.g. "benign 0.912 ± 0.031"; no error where nothing was drawn."""
        probability = "" if self.probability is None else f" {self.probability:.3f}"
        return f"{self.shown_lead}{probability}{error_text(self.spread)}"

    def __repr__(self) -> str:
        tiles = sum(int(glimpse.valid.sum()) for glimpse in self.glimpses)
        unread = "" if self.unread_mass is None else f", {self.unread_mass:.1%} of the attention unread"
        return f"Prediction({self.slide!r}: {self.verdict}, {tiles} tiles read{unread}, {self.status})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the label, the share of each class, and where the model looked."""
        from wsi_attention.notebook import prediction_html

        return prediction_html(self)

    def to_dataframe(self) -> pandas.DataFrame:
        """Return the table of tiles as a data frame, one row for each tile asked for, in the order of drawing.

        Returns:
            The columns of `tiles/<slide>.csv`, with numbers in full; NaN where one is not known.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        from wsi_attention.export.frames import tile_frame

        return tile_frame(self)

    def to_geodataframe(self) -> geopandas.GeoDataFrame:
        """Return the data frame of tiles with each tile's box as geometry, in level-0 pixels, y downwards.

        Returns:
            The columns of `to_dataframe` and `geometry`, without a coordinate reference system: slides have none.

        Raises:
            MissingExtraError: geopandas is not installed.
        """
        from wsi_attention.export.frames import tile_geoframe

        return tile_geoframe(self)


def _by(size: tuple[int, ...]) -> str:
    return "×".join(map(str, size))
