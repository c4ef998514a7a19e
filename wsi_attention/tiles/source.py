"""`TileSource` over a slide: its overview, its tissue, its tiles, and what reading them cost."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_attention.defaults import BATCH
from wsi_attention.errors import NoTissueError, TileReadError
from wsi_attention.geometry import MPP_TOLERANCE, OVERVIEW_PIXELS, Grid, downsample_of
from wsi_attention.protocols import Remembering, RememberingTurned
from wsi_attention.slide.lookalikes import check_lookalikes
from wsi_attention.slide.overviews import Overviews
from wsi_attention.slide.seen import Overview, Seen
from wsi_attention.slide.slide import Slide
from wsi_attention.slide.snapping import snapped_to_tiles
from wsi_attention.slide.strangers import leave_out_strangers
from wsi_attention.slide.view import View, check_open
from wsi_attention.structures import Counters, Strip, TileBatch, TileSet, TissueMask
from wsi_attention.tiles.cells import cells_with_tissue
from wsi_attention.tiles.missing import missing_tissue
from wsi_attention.tiles.reading import TileBlock, read_tiles
from wsi_attention.tiles.strays import strays
from wsi_attention.tiles.tensors import TensorSource
from wsi_attention.timing import spent_on

__all__ = ["SlideSource", "TensorSource"]

TISSUE_MPP = 16.0
"""µm/px of the overview that tissue is looked for on, where no overview has been read before."""
LEAST_KNOWN, MOST_CUT = 0.02, 0.5
"""Of a slide of which less is stored, or of whose tissue more is missing, nothing is said."""
LEAST_PIXELS = 4_096
"""Tissue is not told from glass on fewer pixels; slides of less than about a millimetre are looked at closer for it."""


class SlideSource:
    """One slide as a model sees it. Not for several threads at once; the reading inside it is parallel.

    Attributes:
        extent: (w, h) of level 0.
        batch: 1, one slide.
        failures: one line for each tile that could not be read.
        snap: whether `aligned` moves tiles.
        memory: what is known of the slide's tiles, None for nothing; set by whoever knows the encoder.
    """

    def __init__(
        self,
        slide: Slide,
        tissue: TissueMask | None = None,
        batch: int = BATCH,
        max_overview: int = OVERVIEW_PIXELS,
        snap: bool = True,
        whole: int = OVERVIEW_PIXELS,
    ) -> None:
        """Read nothing yet.

        Args:
            slide: an open slide.
            tissue: where to look; found on the overview if None.
            batch: tiles per task.
            max_overview: the most pixels that an overview may have.
            snap: moves tiles that stand for a place to where they meet the fewest stored tiles.
            whole: the most pixels of an overview in one array; larger ones are shown in strips only.
        """
        check_open(slide)
        self.slide = slide
        self.extent: tuple[int, int] = slide.dimensions
        self.batch = 1
        self.failures: list[str] = []
        self.snap = snap
        self.memory: RememberingTurned | None = None
        self._tiles_per_task, self._views = batch, Overviews(slide, max_overview, whole)
        self._of_tiles = Counters()
        self._notes: dict[str, None] = {}
        self._shortfalls: dict[str, None] = {}
        self._tissue = tissue
        self._shown: float | None = None

    @property
    def counters(self) -> Counters:
        """What reading has cost so far, overviews and tiles together: `tiles` and `pixels` count what was read,
        `failed` the tiles that could not be read."""
        return self._views.counters + self._of_tiles

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result should know although nothing is missing, one sentence each."""
        return (*self.slide.notes, *self._notes, *(self._tissue.notes if self._tissue else ()))

    @property
    def shortfalls(self) -> tuple[str, ...]:
        """What was seen less well than the model asked for, one sentence each; empty when all is well."""
        return tuple(self._shortfalls)

    def downsample(self, mpp: float) -> float:
        """Return level-0 pixels per pixel at the wanted µm/px, snapped to a stored level within 5 %, never below 1.

        A slide coarser than wanted is read as it is, which is a shortfall.

        Raises:
            MissingMppError: nobody says how large the slide's pixels are.
        """
        finest = self.slide.mpp
        wanted = downsample_of(mpp, finest)
        if wanted < 1 - MPP_TOLERANCE:
            self._shortfalls[f"the finest level is {finest:.3g} µm/px, the model reads {mpp:.3g}: read as it is"] = None
        return self.slide.snapped(wanted)

    def overview_downsample(self, mpp: float) -> float:
        """Return `downsample`, or a coarser one that keeps the overview within its pixel limit, which is a shortfall.

        Raises:
            MissingMppError: nobody says how large the slide's pixels are.
        """
        wanted = self.downsample(mpp)
        allowed = self._views.allowed(wanted)
        if allowed > wanted:
            told = f"the overview at {mpp:.3g} µm/px would exceed {self._views.most / 1e6:g} Mpx:"
            self._shortfalls[f"{told} seen at {allowed * self.slide.mpp:.3g} µm/px"] = None
        return allowed

    def whole_overview_downsample(self, mpp: float) -> float:
        """Return `overview_downsample`, or a coarser one for which `overview` fits into one array."""
        return self._views.whole_at(self.overview_downsample(mpp))

    @spent_on("overview")
    def check_levels(self, overview_mpp: float) -> None:
        """Compare the slide's levels at a few places, and leave out those that show something else, which is noted.

        Args:
            overview_mpp: of the overview that is read anyway, in which the places are looked for, if tissue is given.

        Raises:
            SlideOpenError: no smaller level shows what level 0 shows.
            MissingMppError: nobody says how large the slide's pixels are.
            UnsupportedSlideError: not brightfield.
            TileReadError: the file's pixels could not be read.
        """

        def picture_downsample() -> float:
            if self._tissue is None:
                return self._views.whole_at(self._tissue_downsample())
            return self.whole_overview_downsample(overview_mpp)

        def picture() -> Overview:
            self._views.forget()
            return self._views.at(picture_downsample())

        before = self.slide.levels
        compared = self.slide.levels_compared
        leave_out_strangers(self.slide, picture)
        if not compared:
            check_lookalikes(self.slide, picture)
        if self.slide.levels != before:
            self._views.forget()
        self._look_for_gaps(self._views.at(picture_downsample()))

    def _look_for_gaps(self, overview: Overview) -> None:
        """Note what an overview shows, and whether tissue seems to go on where nothing is stored.

        Raises:
            TileReadError: most of what there is to see, or of the slide, is not in the file.
        """
        self.slide.seen = seen = Seen(overview)
        if seen.known < LEAST_KNOWN or seen.cut > MOST_CUT:
            raise TileReadError(
                f"{self.slide.path}: {1 - seen.known:.0%} of the slide is not in the file, in the tissue too as far as"
                " can be seen: an incomplete copy? Copy it again; leave it out if it is blank"
            )
        if seen.cut > 0:
            missing = f"about {100 * seen.cut:.2g} % of the tissue is not in the file and was not looked at"
            self._shortfalls[missing] = None

    def check_stored(self, *mpps: float) -> None:
        """Note how much of the tissue has no pixels in the file at the scales that are read, in µm/px."""
        for downsample in dict.fromkeys(map(self.downsample, mpps)):
            missing = missing_tissue(self.slide, self.tissue_mask, downsample)
            if missing > 0:
                scale = f"{downsample * self.slide.mpp:.3g} µm/px"
                note = f"{max(missing, 0.01):.0%} of the tissue is not in the file at {scale}"
                self._notes[f"{note}; it is seen through a finer level, or counts as unread"] = None

    def overview(self, downsample: float) -> Tensor:
        """Return the whole slide, (1, 3, ceil(h / downsample), ceil(w / downsample)) uint8, white beyond the slide.

        Raises:
            InputError: more pixels than an overview in one array may have.
            UnsupportedSlideError: not brightfield.
            TileReadError: the file's pixels could not be read.
        """
        rgb = self.overview_rgb(downsample)
        self._shown = downsample
        return torch.from_numpy(np.array(np.moveaxis(rgb, -1, 0)[None], order="C"))

    def overview_rgb(self, downsample: float) -> NDArray[np.uint8]:
        """Return the same as (h, w, 3) uint8; read once for each downsample. Errors as in `overview`."""
        with spent_on("overview"):
            return self._views.rgb(downsample)

    def overview_strips(self, downsample: float, rows: int, halo: int) -> Iterator[Strip[Tensor]]:
        """Yield the overview in strips of some rows, with rows of their surroundings: (1, 3, rows and more, w) uint8.

        What is too large for one array is read strip by strip, and again each time it is asked for.

        Raises:
            InputError: more pixels than an overview may have.
            UnsupportedSlideError: not brightfield.
            TileReadError: the file's pixels could not be read.
        """
        self._shown = downsample
        strips = self._views.strips(downsample, rows, halo)
        while True:
            with spent_on("overview"):
                strip = next(strips, None)
            if strip is None:
                return
            pixels = torch.from_numpy(np.array(np.moveaxis(strip.pixels, -1, 0)[None], order="C"))
            yield Strip(strip.first, strip.last, strip.top, pixels)

    @property
    def overview_pixels(self) -> int:
        """Pixels of the overview that the model looked at; of the one tissue was found on, if it looked at none."""
        downsample = self._shown or next(iter(self._views.read), None)
        return self._views.pixels(downsample) if downsample else 0

    @property
    def tissue_mask(self) -> TissueMask:
        """Where there is tissue: as given, or found on the first overview that was read. May be empty.

        Raises:
            MissingMppError: nobody says how large the slide's pixels are.
            UnsupportedSlideError: not brightfield.
            TileReadError: the file's pixels could not be read.
        """
        if self._tissue is None:
            with spent_on("overview"):
                self._tissue = self._views.tissue(self._tissue_downsample())
        return self._tissue

    def tissue(self, grid: Grid) -> Tensor:
        """Return (1, rows, cols) bool: the cells of which at least 10 % is tissue, else those with the most.

        Raises:
            NoTissueError: there is none.
        """
        cells = cells_with_tissue(self.tissue_mask, grid)
        if not cells.any():
            raise NoTissueError(f"{self.slide.path}: no tissue found; if there is some, give a mask of your own")
        return torch.from_numpy(cells[None])

    def aligned(self, tiles: TileSet) -> TileSet:
        """Move each tile by the least shift to where it meets the fewest stored tiles of its level (`slide.snapping`).

        With `snap=False` the tiles stay where they are.
        """
        if not self.snap:
            return tiles
        view = View(self.slide, tiles.downsample)
        return replace(tiles, locations=snapped_to_tiles(view, tiles.locations[0], tiles.size))

    @spent_on("read")
    def read(self, tiles: TileSet) -> TileBatch:
        """Read all tiles in one request, (1, n, 3, h, w) uint8 in the order given; white beyond the slide.

        A tile that cannot be read is not valid, is counted, and leaves a line in `failures`; no error is raised, even
        if all of them fail.

        Raises:
            ValueError: not one image's locations, or finer than level 0.
        """
        if tiles.downsample < 1:
            raise ValueError(f"{self.slide.path}: tiles at downsample {tiles.downsample} asked; the finest is 1")
        start = time.perf_counter()
        block = read_tiles(self.slide, tiles, self._tiles_per_task)
        self.failures += block.errors
        self._drop_strays(tiles, block)
        good, area = int(block.valid.sum()), tiles.size[0] * tiles.size[1]
        self._count(Counters(good, good * area, block.bytes, time.perf_counter() - start, len(tiles) - good))
        pixels = torch.from_numpy(block.pixels).permute(0, 3, 1, 2)
        return TileBatch(pixels[None], torch.from_numpy(block.valid)[None])

    def remembered(self, tiles: TileSet) -> tuple[Tensor, Tensor] | None:
        """Return what the memory knows of tiles, see `protocols.Remembering`; None without one."""
        return self.memory.remembered(tiles) if self.memory else None

    def remember(self, tiles: TileSet, features: Tensor, valid: Tensor) -> None:
        """Hand features of tiles to the memory, where there is one."""
        if self.memory:
            self.memory.remember(tiles, features, valid)

    def turned(self, turn: int) -> Remembering | None:
        """Return the memory of tiles that are turned before they are encoded; None without one."""
        return self.memory.turned(turn) if self.memory else None

    def _drop_strays(self, tiles: TileSet, block: TileBlock) -> None:
        """Count a tile as unread that shows something else than the overview at hand."""
        if not self._views.read:
            return
        finest = min(self._views.read)
        there = np.flatnonzero(block.valid)
        pixels = block.pixels if len(there) == len(block.pixels) else block.pixels[there]
        odd = there[strays(pixels, tiles.boxes[0, there], self._views.rgb(finest), finest)]
        block.valid[odd], block.pixels[odd] = False, 0
        self.failures += [
            f"{self.slide.path}: the tile at ({x}, {y}) shows something else than the overview; its pixels are damaged"
            for x, y in tiles.locations[0, odd].tolist()
        ]

    def _tissue_downsample(self) -> float:
        """Return the downsample of an overview that has been read, or one to read; its limits are no shortfall."""
        read = next((one for one in self._views.read if self._views.pixels(one) >= LEAST_PIXELS), None)
        if read is not None:
            return read
        closest = math.sqrt(self.extent[0] * self.extent[1] / LEAST_PIXELS)
        wanted = min(downsample_of(TISSUE_MPP, self.slide.mpp), closest)
        return self._views.allowed(self.slide.snapped(wanted))

    def _count(self, cost: Counters) -> None:
        self._of_tiles = self._of_tiles + cost
