"""Flips, quarter turns, stain and light changes of a whole training slide: it never looks the same twice.

`AugmentedSource` wraps any `TileSource`. Overview, tissue and tiles change together, and coordinates are mapped, so a
model sees one consistent slide that happens to be mirrored, turned and stained differently.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from wsi_attention import config
from wsi_attention.geometry import Grid
from wsi_attention.protocols import Listed, Remembering, RememberingTurned, TileSource
from wsi_attention.structures import Counters, TileBatch, TileSet

OPTICAL_DENSITY_FLOOR = 1.0
"""Added to the 8-bit value before the logarithm, so that black has a finite density."""


@dataclass(frozen=True)
class Symmetry:
    """One of the 8 symmetries of a rectangle's axes: first swap x and y, then mirror x, then mirror y."""

    swap: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @property
    def turn(self) -> int:
        """The number of this symmetry, see `protocols.RememberingTurned`."""
        return self.swap + 2 * self.mirror_x + 4 * self.mirror_y

    def image(self, pixels: Tensor) -> Tensor:
        """Return pixels (..., h, w) seen through the symmetry."""
        pixels = pixels.transpose(-1, -2) if self.swap else pixels
        axes = [axis for axis, mirrored in ((-1, self.mirror_x), (-2, self.mirror_y)) if mirrored]
        return pixels.flip(axes) if axes else pixels

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (w, h) after the symmetry from (w, h) before; it undoes itself."""
        return (size[1], size[0]) if self.swap else size


@dataclass(frozen=True, eq=False)
class ColourChange:
    """A linear change of optical density, and of the light.

    Attributes:
        matrix: (3, 3) float32; new density = density @ matrix.
        light: factor on the resulting grey values.
    """

    matrix: Tensor
    light: float

    def __call__(self, pixels: Tensor) -> Tensor:
        """Change pixels, uint8 (..., 3, h, w); white stays white apart from the light."""
        density = _densities(pixels.device)[pixels.long()].movedim(-3, -1)
        white = 255 + OPTICAL_DENSITY_FLOOR
        grey = (white * torch.exp(-(density @ self.matrix.to(density)))).sub_(OPTICAL_DENSITY_FLOOR).mul_(self.light)
        return grey.round_().clamp_(0, 255).to(torch.uint8).movedim(-1, -3).contiguous()


@dataclass(frozen=True, eq=False)
class Change:
    """How one training view of a slide differs from the slide.

    Attributes:
        symmetry: of everything.
        colour: of everything.
        overview: of the overview alone, after `colour`.
    """

    symmetry: Symmetry
    colour: ColourChange | None
    overview: ColourChange | None = None


def draw_change(strengths: config.Augmentation, generator: Generator) -> Change:
    """Draw a change; each stain's strength and the light vary uniformly within ± the given shares."""
    bits, uniform = torch.randint(0, 2, (3,), generator=generator), torch.rand(4, generator=generator) * 2 - 1
    dihedral = strengths.symmetry == "dihedral"
    symmetry = Symmetry(*(bool(bit) for bit in bits)) if dihedral else Symmetry()
    change = Change(symmetry, None)
    if strengths.stain or strengths.brightness:
        light = 1 + strengths.brightness * float(uniform[3])
        change = replace(change, colour=ColourChange(_restained(1 + strengths.stain * uniform[:3]), light))
    if strengths.overview_stain:
        uniform = torch.rand(3, generator=generator) * 2 - 1
        change = replace(change, overview=ColourChange(_restained(1 + strengths.overview_stain * uniform), 1.0))
    return change


class AugmentedSource:
    """A `TileSource` that shows a changed version of another one.

    The mirror line is the far edge of the overview at `overview_downsample`, so mirrored overviews show exactly the
    same pixels as plain ones. Overviews at another downsample are aligned to the nearest of their own pixels.

    Args:
        source: the slide as it is.
        change: what to change; colours change only in 8-bit RGB pixels.
        overview_downsample: where the model takes its overview.
        cell: overview pixels a cell of the model's maps; the mirror line is then a cell's edge, so that a cell seen
            mirrored is a cell of the plain slide.
    """

    def __init__(self, source: TileSource, change: Change, overview_downsample: float, cell: int = 1) -> None:
        self._source, self._change, self._symmetry = source, change, change.symmetry
        d = overview_downsample * cell
        pixels = self._symmetry.size((math.ceil(source.extent[0] / d), math.ceil(source.extent[1] / d)))
        self._lines = (pixels[0] * d, pixels[1] * d)
        self._mirrored = (self._symmetry.mirror_x, self._symmetry.mirror_y)
        sides = zip(self._symmetry.size(source.extent), self._lines, self._mirrored, strict=True)
        width, height = (math.floor(line) if mirrored else side for side, line, mirrored in sides)
        self.extent: tuple[int, int] = (width, height)
        self.batch = source.batch
        self.plain_extent: tuple[int, int] = source.extent
        self._memory = _memory_of(source, change)

    @property
    def counters(self) -> Counters:
        """What reading has cost so far."""
        return self._source.counters

    def downsample(self, mpp: float) -> float:
        """Return what the wrapped source returns."""
        return self._source.downsample(mpp)

    def overview_downsample(self, mpp: float) -> float:
        """Return what the wrapped source returns."""
        return self._source.overview_downsample(mpp)

    def overview(self, downsample: float) -> Tensor:
        """Return the overview (b, c, h, w) of the changed slide."""
        pixels = _coloured(self._coloured(self._source.overview(downsample)), self._change.overview)
        swapped = Symmetry(swap=self._symmetry.swap).image(pixels)
        width = round(self._lines[0] / downsample) if self._mirrored[0] else swapped.shape[-1]
        height = round(self._lines[1] / downsample) if self._mirrored[1] else swapped.shape[-2]
        return replace(self._symmetry, swap=False).image(_fitted(swapped, width, height))

    def tissue(self, grid: Grid) -> Tensor:
        """Return (b, rows, cols) bool of a grid over the changed slide."""
        origin, span = grid.origin, (grid.cols * grid.step[0], grid.rows * grid.step[1])
        x = self._lines[0] - origin[0] - span[0] if self._symmetry.mirror_x else origin[0]
        y = self._lines[1] - origin[1] - span[1] if self._symmetry.mirror_y else origin[1]
        plain = replace(grid, origin=(x, y))
        if self._symmetry.swap:
            plain = Grid(grid.cols, grid.rows, (grid.step[1], grid.step[0]), (y, x))
        return self._symmetry.image(self._source.tissue(plain))

    def aligned(self, tiles: TileSet) -> TileSet:
        """Return the tiles moved as the wrapped source moves them."""
        plain = self._plain_tiles(tiles)
        shift = self._source.aligned(plain).locations - plain.locations
        shift = (shift[..., ::-1] if self.swapped else shift) * np.where(self._mirrored, -1, 1)
        return replace(tiles, locations=tiles.locations + shift)

    def read(self, tiles: TileSet) -> TileBatch:
        """Read tiles at places of the changed slide."""
        batch = self._source.read(self._plain_tiles(tiles))
        return replace(batch, pixels=self._symmetry.image(self._coloured(batch.pixels)))

    def remembered(self, tiles: TileSet) -> tuple[Tensor, Tensor] | None:
        """Return what is known of tiles seen as they are here, see `protocols.Remembering`."""
        return self._memory.remembered(self._plain_tiles(tiles)) if self._memory else None

    def remember(self, tiles: TileSet, features: Tensor, valid: Tensor) -> None:
        """Hand on the features of tiles seen as they are here."""
        if self._memory:
            self._memory.remember(self._plain_tiles(tiles), features, valid)

    def listed(self, size: tuple[int, int], downsample: float) -> TileSet | None:
        """Return the tiles that the wrapped source lists, where nothing is turned; None where it lists none."""
        if self._symmetry.turn or not isinstance(self._source, Listed):
            return None
        return self._source.listed(size, downsample)

    @property
    def swapped(self) -> bool:
        """Whether x and y of the plain slide have changed places."""
        return self._symmetry.swap

    def plain_points(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map points (..., 2) of the changed slide to the plain one, (x, y) in level-0 pixels."""
        mirrored = np.where(self._mirrored, np.array(self._lines) - points, points)
        return mirrored[..., ::-1] if self.swapped else mirrored

    def shown_points(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map points (..., 2) of the plain slide to the changed one; undoes `plain_points`."""
        turned = points[..., ::-1] if self.swapped else points
        return np.where(self._mirrored, np.array(self._lines) - turned, turned)

    def _plain_tiles(self, tiles: TileSet) -> TileSet:
        far = np.array(self._mirrored) * np.array(tiles.size, np.float64) * tiles.downsample
        corners = tiles.locations.astype(np.float64) + far
        locations = np.floor(self.plain_points(corners) + 0.5).astype(np.int64)
        return TileSet(locations, self._symmetry.size(tiles.size), tiles.downsample)

    def _coloured(self, pixels: Tensor) -> Tensor:
        return _coloured(pixels, self._change.colour)


def _coloured(pixels: Tensor, change: ColourChange | None) -> Tensor:
    usable = pixels.dtype == torch.uint8 and pixels.shape[-3] == 3
    return change(pixels) if change is not None and usable else pixels


def _memory_of(source: TileSource, change: Change) -> Remembering | None:
    """Return what may know tiles of the source seen through a change; colours are never the same twice."""
    if change.colour is not None:
        return None
    if change.symmetry.turn:
        return source.turned(change.symmetry.turn) if isinstance(source, RememberingTurned) else None
    return source if isinstance(source, Remembering) else None


def _fitted(pixels: Tensor, width: int, height: int) -> Tensor:
    """Return the image cut, or filled with background, on the right and below."""
    h, w = pixels.shape[-2:]
    if (h, w) == (height, width):
        return pixels
    background = 255 if pixels.dtype == torch.uint8 else 0
    canvas = pixels.new_full((*pixels.shape[:-2], height, width), background)
    canvas[..., : min(h, height), : min(w, width)] = pixels[..., :height, :width]
    return canvas


@cache
def _densities(device: torch.device) -> Tensor:
    """Return the natural optical density of each 8-bit value, (256,) float32."""
    values = torch.arange(256, device=device, dtype=torch.float64)
    white = 255 + OPTICAL_DENSITY_FLOOR
    return torch.log(white / (values + OPTICAL_DENSITY_FLOOR)).float()


def _restained(strengths: Tensor) -> Tensor:
    """Return what changes densities (n, 3) so that each stain is as strong as is said, (3, 3) float32."""
    stains = _stains()
    matrix: Tensor = torch.linalg.inv(stains) @ torch.diag(strengths).double() @ stains
    return matrix.float()


@cache
def _stains() -> Tensor:
    """Return the RGB densities of haematoxylin, eosin and DAB as rows (Ruifrok and Johnston 2001, as in
    scikit-image).
    """
    from skimage.color import rgb_from_hed

    return torch.from_numpy(np.array(rgb_from_hed, np.float64))
