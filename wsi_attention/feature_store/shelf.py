"""The features of one slide by one encoder, in memory and on disk: what `protocols.Remembering` is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_attention.feature_store.kind import Kind
from wsi_attention.feature_store.shards import SUFFIX, DamagedError, Place, Shard, new_name, read_shard
from wsi_attention.structures import TileSet

MOST_WAITING = 1024
"""Tiles that are kept in memory before they are written; a killed process loses at most so many."""
MANY_FILES = 8
"""Files of a slide beyond which they are written anew as one."""
HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""Types that are stored as float32, which holds each of their values, and given back as they were."""


class Shelf:
    """Features of one slide by one encoder. Several processes may have one of the same slide at the same time.

    A process writes files of its own and reads those of all, so no locks are needed. A file that another process has
    removed meanwhile, to make room or to write several as one, only means that its tiles are read again.

    Args:
        folder: takes the files.
        kind: of the features.
        slide: the slide's identity.
        write: (path, shard) -> whether it was written.
        damaged: is told of each file that cannot be used, and why.

    Attributes:
        known: tiles asked for that were known.
        unknown: tiles asked for that were not.
    """

    def __init__(
        self,
        folder: Path,
        kind: Kind,
        slide: str,
        write: Callable[[Path, Shard], bool],
        damaged: Callable[[Path, str], None],
    ) -> None:
        self.folder, self._kind, self._slide = folder, kind.key, slide
        self._any_turn = kind.any_turn
        self._write, self._damaged = write, damaged
        self.known = self.unknown = 0
        self._rows: dict[Place, NDArray[Any]] = {}
        self._files: set[str] = set()
        self._waiting: list[Place] = []
        self._dtype = "float32"
        self._lock = Lock()

    @property
    def bytes(self) -> int:
        """Memory in use, about."""
        row = next(iter(self._rows.values()), None)
        return 0 if row is None else len(self._rows) * (row.nbytes + 200)

    def remembered(self, tiles: TileSet) -> tuple[Tensor, Tensor] | None:
        """Return features (1, n, d) and which are known (1, n); None where none is."""
        return self.recall(tiles, 0)

    def remember(self, tiles: TileSet, features: Tensor, valid: Tensor) -> None:
        """Keep the features (1, n, d) of the tiles that are `valid` (1, n)."""
        self.keep(tiles, features, valid, 0)

    def turned(self, turn: int) -> Turned:
        """Return what is known of the same tiles seen turned; see `protocols.RememberingTurned`."""
        return Turned(self, 0 if self._any_turn else turn)

    def recall(self, tiles: TileSet, turn: int) -> tuple[Tensor, Tensor] | None:
        """Do as `remembered`, for tiles that are turned before they are encoded."""
        if len(tiles.locations) != 1:
            return None
        rows = [self._rows.get(place) for place in _places(tiles, turn)]
        known = [row is not None for row in rows]
        self.known, self.unknown = self.known + sum(known), self.unknown + len(rows) - sum(known)
        first = next((row for row in rows if row is not None), None)
        if first is None:
            return None
        features = np.zeros((len(rows), len(first)), first.dtype)
        for i, row in enumerate(rows):
            if row is not None:
                features[i] = row
        kind = HALF.get(self._dtype)
        found = torch.from_numpy(features)
        return (found if kind is None else found.to(kind))[None], torch.tensor(known)[None]

    def keep(self, tiles: TileSet, features: Tensor, valid: Tensor, turn: int) -> None:
        """Do as `remember`, for tiles that were turned before they were encoded."""
        if len(tiles.locations) != 1:
            return
        self._dtype = str(features.dtype).removeprefix("torch.")
        values = (features.float() if self._dtype in HALF else features)[0].cpu().numpy().copy()
        usable = valid[0].cpu().numpy() & np.isfinite(values).all(axis=-1)
        with self._lock:
            for place, row, good in zip(_places(tiles, turn), values, usable.tolist(), strict=True):
                if good and place not in self._rows:
                    self._rows[place] = row
                    self._waiting.append(place)
        if len(self._waiting) >= MOST_WAITING:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet, as one file."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            if waiting:
                self._written(waiting)

    def refresh(self) -> None:
        """Read the files that were added since; write them as one where there are many."""
        for _ in range(2):  # once more where a file went away meanwhile: what was in it may be in a new one
            if self._read_new():
                break
        with self._lock:
            there = self._there()
            if len(there) > MANY_FILES and self._files >= there and self._written(list(self._rows), there):
                for name in there:
                    (self.folder / name).unlink(missing_ok=True)
                self._files -= there
                self._waiting = []

    def _read_new(self) -> bool:
        """Read files that are not known yet; return whether all of them were there."""
        complete = True
        for name in sorted(self._there() - self._files):
            try:
                shard = read_shard(self.folder / name, self._kind, self._slide)
            except FileNotFoundError:
                complete = False
                continue
            except DamagedError as error:
                self._damaged(self.folder / name, str(error))
            else:
                self._take(shard)
            self._files.add(name)
        return complete

    def _take(self, shard: Shard) -> None:
        width = next((len(row) for row in self._rows.values()), shard.features.shape[1])
        if shard.features.shape[1] != width:
            return
        self._dtype = shard.dtype
        with self._lock:
            for place, row in zip(shard.places, shard.features, strict=True):
                self._rows.setdefault(place, row)

    def _there(self) -> set[str]:
        try:
            return {path.name for path in self.folder.iterdir() if path.name.endswith(SUFFIX) and path.name[0] != "."}
        except OSError:
            return set()

    def _written(self, places: list[Place], instead_of: Iterable[str] = ()) -> bool:
        name = new_name()
        features = np.stack([self._rows[place] for place in places])
        done = self._write(self.folder / name, Shard(self._kind, self._slide, places, features, self._dtype))
        if done:
            self._files.add(name)
        return done


class Turned:
    """A `Shelf` as it is asked for tiles that are seen turned.

    Args:
        shelf: of the slide.
        turn: any number that stands for one way to turn and mirror; 0 for none.
    """

    def __init__(self, shelf: Shelf, turn: int) -> None:
        self._shelf, self._turn = shelf, turn

    def remembered(self, tiles: TileSet) -> tuple[Tensor, Tensor] | None:
        """Return what `Shelf.remembered` returns."""
        return self._shelf.recall(tiles, self._turn)

    def remember(self, tiles: TileSet, features: Tensor, valid: Tensor) -> None:
        """Keep features as `Shelf.remember` does."""
        self._shelf.keep(tiles, features, valid, self._turn)


def _places(tiles: TileSet, turn: int) -> list[Place]:
    w, h = tiles.size
    return [(x, y, w, h, turn, float(tiles.downsample)) for x, y in tiles.locations[0].tolist()]
