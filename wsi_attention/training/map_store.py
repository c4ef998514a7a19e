"""Maps that training accumulated, stored beside the model; maps from elsewhere are checked before use.

    maps = open_maps("models/mine")             # a model folder, or the file itself
    maps.classes                                # names, in the order of the model's outputs
    maps.slides                                 # fingerprint -> the slide's name in the labels
    values, visits, grid = maps.get("slide-7", "tumour")

Layout: a group per slide, named by its fingerprint, with attributes `name`, `step` and `origin` (level-0 pixels) and
`seen` (scale, levels and tags of the slide), and the arrays `values` and `updates`, axes class, row, column; `updates`
has one cell a class where whole maps were accumulated. While a training runs, a slide whose label has no accepted map
yet also has the array `pending`.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_attention.attention.accumulation import from_bytes
from wsi_attention.errors import InputError
from wsi_attention.files import publish, results_errors, temporary
from wsi_attention.geometry import Grid
from wsi_attention.once import once

if TYPE_CHECKING:
    from zarr import Group
    from zarr.core.buffer import Buffer
    from zarr.core.common import JSON

STORE = "attention_maps.zarr.zip"
"""Name in the model folder."""
FORMAT = 2
"""Format 1 did not say what the slides were like."""
ARRAYS = ("values", "updates", "pending")
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The date of every entry: a file's bytes must not depend on when it was written."""


@dataclass(frozen=True, eq=False)
class SlideMaps:
    """What is accumulated of one slide, in its own frame.

    Attributes:
        name: the slide's name in the labels.
        grid: of the cells, level-0 pixels.
        values: (classes, rows, cols), uint8 as of `to_bytes`, or float32 in [0, 1].
        updates: int64, (classes, 1, 1) for whole maps, (classes, rows, cols) for the visits of single cells.
        waiting: classes of the slide without an accepted map.
        pending: as `values`: their latest map, accepted at last if none better comes; None where no class waits.
        seen: what the slide's reader saw besides pixels: with another scale or levels it is another slide.
    """

    name: str
    grid: Grid
    values: Tensor
    updates: Tensor
    waiting: tuple[int, ...] = ()
    pending: Tensor | None = None
    seen: Mapping[str, str] = field(default_factory=dict)

    @property
    def decoded(self) -> Tensor:
        """The values as float32 in [0, 1]."""
        return from_bytes(self.values) if self.values.dtype == torch.uint8 else self.values


class AccumulatedMap(NamedTuple):
    """One slide's map of one class.

    Attributes:
        values: (rows, cols) float32 in [0, 1].
        visits: (rows, cols) int64, how many maps or visits stand behind each cell; 0 is "never seen", which is not the
            same as a value of 0 that was seen.
        grid: where the cells lie, level-0 pixels.
    """

    values: NDArray[np.float32]
    visits: NDArray[np.int64]
    grid: Grid


@dataclass(frozen=True, eq=False)
class MapStore:
    """All accumulated maps of a training.

    Attributes:
        kind: "maps" (whole class maps) or "glimpses" (the evidence of tiles that were drawn).
        rule: "maximum" or "mean".
        classes: class names.
        found: fingerprint -> maps of a slide.
    """

    kind: str
    rule: str
    classes: tuple[str, ...]
    found: Mapping[str, SlideMaps]

    @once
    def slides(self) -> dict[str, str]:
        """fingerprint -> name, of every slide with a map."""
        return {key: one.name for key, one in self.found.items() if bool((one.updates > 0).any())}

    def get(self, slide: str, label: str) -> AccumulatedMap:
        """Return the map of a slide, by fingerprint or name, and a class.

        Raises:
            InputError: no such slide or class; the text names some there are.
        """
        names = {name: key for key, name in self.slides.items()}
        key = slide if slide in self.slides else names.get(slide)
        if key is None:
            some = ", ".join(sorted(names)[:3]) or "none"
            raise InputError(f"no accumulated map of slide {slide!r}; {len(names)} slides have one, such as {some}")
        if label not in self.classes:
            raise InputError(f"no class {label!r}; there is: {', '.join(self.classes)}")
        one, position = self.found[key], self.classes.index(label)
        visits = one.updates[position].expand(one.grid.shape)
        return AccumulatedMap(one.decoded[position].numpy().copy(), visits.numpy().copy(), one.grid)


def open_maps(path: str | Path) -> MapStore:
    """Read a store: a model folder's, or the file itself.

    Raises:
        InputError: there is none, or it is damaged or of another version.
    """
    import zarr
    from zarr.storage import ZipStore

    file = _file(path)
    if not zipfile.is_zipfile(file):
        raise InputError(f"{file} cannot be read as a store of maps (cut short, or no zip file); train again")
    try:
        with ZipStore(file, mode="r") as zipped:
            root = zarr.open_group(zipped, mode="r")
            facts: dict[str, Any] = dict(root.attrs)
            if facts["format"] != FORMAT:
                raise InputError(f"{file} has format {facts['format']}, this version reads {FORMAT}; train again")
            classes = tuple(str(name) for name in facts["classes"])
            found = {key: _slide(root[key], len(classes)) for key in facts["slides"]}
        return MapStore(facts["kind"], facts["rule"], classes, found)
    except InputError:
        raise
    except Exception as error:  # zarr, zipfile and the codecs raise whatever a damaged file leads them to
        raise InputError(f"{file} cannot be read as a store of maps ({error}); train again") from error


def maps_fingerprint(folder: str) -> str:
    """Return the sha256 of the store in a model folder, which tells stores of one name apart; empty for none.

    Raises:
        InputError: there is none.
    """
    if not folder:
        return ""
    return hashlib.sha256(_file(folder).read_bytes()).hexdigest()


def write_maps(file: Path, store: MapStore) -> None:
    """Write a store whole, on disk before it has its name.

    Raises:
        ResultsError: disk full, or writing is not permitted.
    """
    content = _zipped(_entries(store))
    with results_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary(file).write_bytes(content)
    publish(file)


def completed(store: MapStore) -> MapStore:
    """Return a store in which every label has a map: where none was accepted, the latest one counts (OAA-PyTorch)."""
    return replace(store, found={key: _complete(one) for key, one in store.found.items()})


def _complete(one: SlideMaps) -> SlideMaps:
    if one.pending is None:
        return one
    late = torch.zeros(len(one.values), 1, 1, dtype=torch.bool)
    late[list(one.waiting)] = True
    values = torch.where(late, one.pending, one.values)
    return replace(one, values=values, updates=one.updates + late, waiting=(), pending=None)


def _file(path: str | Path) -> Path:
    file = Path(path) / STORE if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise InputError(f'{file} does not exist: no maps were accumulated there; train with accumulate = "maximum"')
    return file


def _slide(group: Any, classes: int) -> SlideMaps:
    arrays = {name: read_array(group[name]) for name in ARRAYS if name in group}
    facts, values = dict(group.attrs), arrays["values"]
    name, waiting = str(facts["name"]), tuple(facts["waiting"])
    seen = {str(one): str(text) for one, text in facts["seen"].items()}
    check_maps(arrays, waiting, classes)
    grid = checked_grid((values.shape[1], values.shape[2]), facts["step"], facts["origin"])
    return SlideMaps(name, grid, values, arrays["updates"].long(), waiting, arrays.get("pending"), seen)


def _entries(store: MapStore) -> dict[str, Buffer]:
    """Return every file of the Zarr store, by its path."""
    import zarr
    from zarr.storage import MemoryStore

    written: dict[str, Buffer] = {}
    keys = sorted(store.found)
    facts: dict[str, JSON] = {"format": FORMAT, "kind": store.kind, "rule": store.rule}
    facts |= {"classes": list(store.classes), "slides": keys}
    root = zarr.open_group(MemoryStore(written), mode="w", zarr_format=3, attributes=facts)
    for key in keys:
        _add(root.create_group(key), store.found[key])
    return written


def _add(group: Group, one: SlideMaps) -> None:
    grid = one.grid
    placed = {"step": list(grid.step), "origin": list(grid.origin)}
    group.attrs.put({"name": one.name, "seen": dict(one.seen), "waiting": list(one.waiting), **placed})
    for name in ARRAYS:
        if getattr(one, name) is not None:
            values = getattr(one, name).numpy()
            values = values.astype(np.uint32) if name == "updates" else values
            array = group.create_array(
                name, shape=values.shape, dtype=values.dtype, chunks=(1, *values.shape[1:]), fill_value=0
            )
            array[:] = values


def _zipped(entries: Mapping[str, Buffer]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as file:
        for name in sorted(entries):
            file.writestr(zipfile.ZipInfo(name, EARLIEST), entries[name].to_bytes())
    return content.getvalue()


MOST_VALUES = 100_000_000
"""Of an array: a slide of 100 000² pixels in cells of 64 has 2.4 million a class."""


def read_array(array: Any) -> Tensor:
    """Return a stored array whole.

    Raises:
        ValueError: it says that it is larger than maps ever are.
    """
    if math.prod(array.shape) > MOST_VALUES:
        raise ValueError(f"an array of shape {tuple(array.shape)} is too large for maps")
    return torch.from_numpy(np.array(array[:]))


def check_maps(arrays: Mapping[str, Tensor], waiting: Sequence[int], classes: int) -> None:
    """Raise ValueError unless a slide's arrays fit each other and hold what maps hold.

    Args:
        arrays: "values", "updates" and perhaps "pending", see `map_store.SlideMaps`.
        waiting: classes.
        classes: number of classes.

    Raises:
        ValueError: they do not.
    """
    values, updates, pending = arrays["values"], arrays["updates"], arrays.get("pending", arrays["values"])
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    if values.ndim != 3 or len(values) != classes or pending.shape != values.shape:
        raise ValueError(f"maps of {classes} classes have other shapes than {shapes}")
    if updates.shape not in (values.shape, (classes, 1, 1)):
        raise ValueError(f"updates fit no maps: {shapes}")
    for one in (values, pending):
        share = one.dtype == torch.float32 and bool(((one >= 0) & (one <= 1)).all())
        if one.dtype != torch.uint8 and not share:
            raise ValueError(f"maps are bytes, or float32 numbers from 0 to 1; found others, of {one.dtype}")
    if not all(one in range(classes) for one in waiting):
        raise ValueError(f"waiting classes are among 0 to {classes - 1}, not {list(waiting)}")


def checked_grid(shape: tuple[int, int], step: Sequence[float], origin: Sequence[float]) -> Grid:
    """Return the grid of maps (rows, cols).

    Raises:
        ValueError: the cells have no size, or the numbers are not finite.
    """
    (dx, dy), (x, y) = (float(one) for one in step), (float(one) for one in origin)
    if not (min(dx, dy) > 0 and math.isfinite(dx + dy + x + y)):
        raise ValueError(f"cells cannot have the size {dx:g} × {dy:g} at ({x:g}, {y:g})")
    return Grid(shape[0], shape[1], (dx, dy), (x, y))
