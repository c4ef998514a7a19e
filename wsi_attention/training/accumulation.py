"""Maps that add up while a model trains (OAA).

Key: (slide fingerprint, class). Geometry: the slide's own frame; a training view is mirrored and turned, so every map
and every tile is mapped back before it is accumulated. Whole class maps pass the gate by rank; the evidence of sampled
tiles is kept as it is, with a counter of visits. Nothing is written in the first epoch: a maximum never forgets.

The maps live in memory, and a whole file of them is written before the state of each epoch; a restart takes the file
that belongs to its state, so a killed training ends with the same bytes as an undisturbed one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_attention.attention.accumulation import (
    WARM_UP,
    Memory,
    acceptance,
    accumulate_cells,
    accumulate_maximum,
    accumulate_mean,
    gate,
    to_bytes,
)
from wsi_attention.errors import InputError
from wsi_attention.geometry import Grid
from wsi_attention.structures import AttentionMap, Glimpse, Output
from wsi_attention.training.augment import AugmentedSource
from wsi_attention.training.data import Example
from wsi_attention.training.map_store import STORE, MapStore, SlideMaps, completed, open_maps, write_maps
from wsi_attention.training.processes import owned, total

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Accumulation:
    """The memory of a training run.

    Args:
        rule: "maximum" (OAA) or "mean" (the released averaging variant, for class maps only).
        classes: class names.
        epochs: of the whole training.
        found: what earlier epochs accumulated.
    """

    def __init__(
        self, rule: str, classes: Sequence[str], epochs: int, found: Mapping[str, SlideMaps] | None = None
    ) -> None:
        self.rule, self.classes, self.epochs = rule, tuple(classes), epochs
        self.found: dict[str, SlideMaps] = dict(found or {})
        self.touched: set[str] = set()
        self.kind = "maps"

    def add(self, example: Example, shown: AugmentedSource, output: Output, epoch: int) -> None:
        """Accumulate what one pass over one slide showed.

        Args:
            example: the slide.
            shown: the slide as the model saw it.
            output: with the maps "class-0" …, or else with `tile_evidence`.
            epoch: from 1.

        Raises:
            InputError: the output has neither, or the rule does not fit.
        """
        maps = class_maps(output, len(self.classes))
        if maps:
            self._add_maps(example, shown, maps, output.logits.detach(), epoch - 1)
        elif output.tile_evidence is not None and self.rule == "maximum":
            self._add_glimpses(example, shown, output.glimpses[0][-1], output.tile_evidence[0], epoch - 1)
        else:
            lack = "class maps and no evidence of its tiles" if self.rule == "maximum" else "class maps to average"
            raise InputError(f'accumulate = "{self.rule}": this model gives no {lack}; set accumulate to "none"')
        self.touched.add(example.key)

    def store(self) -> MapStore:
        """Return what there is so far."""
        return MapStore(self.kind, self.rule, self.classes, self.found)

    def _add_maps(
        self, example: Example, shown: AugmentedSource, maps: list[AttentionMap], logits: Tensor, epoch: int
    ) -> None:
        grid = plain_grid(shown, maps[0].grid.step)
        one = self.found.get(example.key) or self._empty(example, grid, (1, 1))
        values = torch.from_numpy(np.stack([found.values for found in maps]))
        plain = looked_up(values, maps[0].grid, shown.shown_points(centres(grid))).view(one.values.shape).cpu()
        label = torch.zeros(1, len(self.classes), dtype=torch.bool)
        label[0, example.label] = True
        updates = one.updates.flatten()[None]
        accepted = acceptance(gate(logits.cpu(), label), label, updates, epoch, self.epochs)
        memory = Memory(one.decoded[None], updates)
        rule = accumulate_mean if self.rule == "mean" else accumulate_maximum
        after = rule(memory, plain[None], accepted)
        waits = bool(after.updates[0, example.label] == 0)
        self.found[example.key] = replace(
            one,
            values=self._encoded(after.values[0]),
            updates=after.updates[0, :, None, None],
            waiting=(example.label,) if waits else (),
            pending=self._encoded(plain * label[0, :, None, None]) if waits else None,
        )

    def _add_glimpses(
        self, example: Example, shown: AugmentedSource, glimpse: Glimpse, evidence: Tensor, epoch: int
    ) -> None:
        self.kind, evidence = "glimpses", evidence.detach().float().cpu()
        boxes = glimpse.tiles.boxes[0][glimpse.valid].astype(np.float64)
        grid = plain_grid(shown, (float(glimpse.tiles.footprint[0]), float(glimpse.tiles.footprint[1])))
        one = self.found.get(example.key) or self._empty(example, grid, grid.shape)
        if epoch >= WARM_UP:
            cells = _cells_at(one.grid, shown.plain_points(boxes[:, :2] + boxes[:, 2:] / 2))
            real, inside = torch.from_numpy(glimpse.valid), torch.from_numpy(cells >= 0)
            memory = Memory(one.decoded.flatten(1), one.updates.flatten(1))
            after = accumulate_cells(memory, torch.from_numpy(cells)[inside], evidence[real][inside].T)
            values, updates = self._encoded(after.values).view_as(one.values), after.updates.view_as(one.updates)
            one = replace(one, values=values, updates=updates)
        self.found[example.key] = one

    def share(self, fabric: Fabric, examples: Sequence[Example]) -> None:
        """Exchange between processes what each has accumulated since the last call; `examples` are all slides."""
        if fabric.world_size > 1:
            known = {example.key: example for example in examples}
            mine = {key: packed(self.found[key]) for key in self.touched}
            dtype = torch.float32 if self.rule == "mean" else torch.uint8
            for key, vector in owned(fabric, list(known), mine).items():
                own = unpacked(vector, known[key].name, len(self.classes), dtype)
                self.found[key] = replace(own, seen=known[key].seen)
            kinds = torch.tensor([float(self.kind == "glimpses")], device=fabric.device)
            self.kind = "glimpses" if float(total(fabric, kinds)) else "maps"
        self.touched.clear()

    def _empty(self, example: Example, grid: Grid, counted: tuple[int, int]) -> SlideMaps:
        values = self._encoded(torch.zeros(len(self.classes), *grid.shape))
        updates = torch.zeros(len(self.classes), *counted, dtype=torch.int64)
        return SlideMaps(example.name, grid, values, updates, seen=example.seen)

    def _encoded(self, values: Tensor) -> Tensor:
        return values.float() if self.rule == "mean" else to_bytes(values)


def class_maps(output: Output, classes: int) -> list[AttentionMap]:
    """Return the maps "class-0" … of the first image in the order of the classes; empty where one is missing."""
    named = {found.name: found for found in output.maps[0]}
    wanted = [f"class-{c}" for c in range(classes)]
    return [named[name] for name in wanted] if all(name in named for name in wanted) else []


def looked_up(values: Tensor, grid: Grid, points: NDArray[np.float64]) -> Tensor:
    """Return the values (k, n) of maps (k, rows, cols) at points (n, 2); 0 outside and where they are NaN."""
    cells = _cells_at(grid, points)
    found = values.flatten(1)[:, torch.from_numpy(cells.clip(min=0))]
    return found.masked_fill(torch.from_numpy(cells < 0), 0.0).nan_to_num(nan=0.0)


def packed(one: SlideMaps) -> Tensor:
    """Return all numbers of a slide's maps in one float64 vector, to travel between processes."""
    grid, pending = one.grid, one.values[:0] if one.pending is None else one.pending
    waits = 1 + one.waiting[0] if one.waiting else 0
    facts = (grid.rows, grid.cols, *grid.step, *grid.origin, one.updates[0].numel(), waits, len(pending))
    parts = (torch.tensor(facts, dtype=torch.float64), one.updates, one.values, pending)
    return torch.cat([part.flatten().double() for part in parts])


def unpacked(vector: Tensor, name: str, classes: int, dtype: torch.dtype) -> SlideMaps:
    """Return the maps that `packed` took; undoes it."""
    rows, cols, dx, dy, x, y, counted, waits, pending = vector[:9].tolist()
    grid = Grid(int(rows), int(cols), (dx, dy), (x, y))
    sizes = [classes * int(counted), classes * grid.rows * grid.cols, int(pending) * grid.rows * grid.cols]
    updates, values, late = torch.split(vector[9:], sizes)
    cells = (1, 1) if counted == 1 else grid.shape
    return SlideMaps(
        name,
        grid,
        values.view(classes, *grid.shape).to(dtype),
        updates.view(classes, *cells).long(),
        (int(waits) - 1,) if waits else (),
        late.view(classes, *grid.shape).to(dtype) if pending else None,
    )


def begin(rule: str, classes: Sequence[str], epochs: int, folder: Path, epoch: int) -> Accumulation | None:
    """Return the accumulation of a training that has finished `epoch` epochs; None with rule "none".

    Raises:
        InputError: the file that belongs to that epoch is missing or damaged.
    """
    if rule == "none":
        return None
    begun = Accumulation(rule, classes, epochs)
    if epoch > 0:
        store = open_maps(_snapshot(folder, epoch))
        begun.found, begun.kind = dict(store.found), store.kind
    return begun


def save_epoch(accumulation: Accumulation | None, folder: Path, epoch: int) -> None:
    """Write the maps of a finished epoch; called before the state that belongs to them is written."""
    if accumulation:
        write_maps(_snapshot(folder, epoch), accumulation.store())


def save_last(accumulation: Accumulation | None, folder: Path) -> None:
    """Write the finished store beside the model; labels without an accepted map get their latest one."""
    if accumulation:
        write_maps(folder / STORE, completed(accumulation.store()))


def tidy(folder: Path, epoch: int | None = None) -> None:
    """Remove the files of all epochs but one."""
    for path in folder.glob(_snapshot(folder, 0).name.replace("0", "*")):
        if epoch is None or path != _snapshot(folder, epoch):
            path.unlink(missing_ok=True)


def _snapshot(folder: Path, epoch: int) -> Path:
    return folder / f"{STORE.partition('.')[0]}-{epoch}.{STORE.partition('.')[2]}"


def plain_grid(shown: AugmentedSource, step: tuple[float, float]) -> Grid:
    """Return the grid over the plain slide whose cells have the given step in the changed view."""
    return Grid.covering(shown.plain_extent, (step[1], step[0]) if shown.swapped else step)


def centres(grid: Grid) -> NDArray[np.float64]:
    """Return the centres of all cells, (rows · cols, 2)."""
    return grid.centres(np.arange(grid.rows * grid.cols))


def _cells_at(grid: Grid, points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the flat indices of the cells that points (n, 2) lie in; −1 outside."""
    cols, rows = (np.floor((points[:, i] - grid.origin[i]) / grid.step[i]).astype(np.int64) for i in (0, 1))
    inside = (cols >= 0) & (cols < grid.cols) & (rows >= 0) & (rows < grid.rows)
    return np.where(inside, rows * grid.cols + cols, -1)
