"""Labelled slides as training examples; their overviews and tissue masks are kept in memory between epochs."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import cast

from torch import Tensor

from wsi_attention.errors import NoTissueError, SlideError, WsiAttentionError
from wsi_attention.geometry import Grid
from wsi_attention.protocols import Remembering, RememberingTurned, TileSource
from wsi_attention.slide.fingerprint import seen_in
from wsi_attention.slide.seen import Seen
from wsi_attention.slide.slide import Slide
from wsi_attention.structures import Counters, TileBatch, TileSet, TissueMask
from wsi_attention.targets.target import Target, Truth
from wsi_attention.tiles.source import SlideSource
from wsi_attention.training.labels import LabelRow
from wsi_attention.training.open_slides import OpenSlides

MEMORY_BYTES = 2 << 30
"""Overviews and masks kept between epochs; a slide has 1 to 4 Mpx of them."""


@dataclass(frozen=True)
class Survey:
    """What was found when every slide was opened once.

    Attributes:
        fingerprints: slide name -> content fingerprint, of the slides that can be used.
        failed: slide name -> why it cannot be used.
        seen: slide name -> what its reader sees besides pixels, of the slides that can be used.
    """

    fingerprints: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def scale(self, slide: str) -> float | None:
        """Return µm per level-0 pixel of a slide that can be used, None where nothing says it."""
        said = self.seen.get(slide, {}).get("mpp", "none").partition(" ")[0]
        return None if said == "none" else float(said)

    def without(self, failed: Mapping[str, str]) -> Survey:
        """Return the same, with further slides that cannot be used."""
        left = {name: reason for name, reason in failed.items() if name not in self.failed}
        fingerprints = {name: text for name, text in self.fingerprints.items() if name not in left}
        return Survey(fingerprints, {**self.failed, **left}, self.seen)


@dataclass(frozen=True, eq=False)
class Remembered:
    """What is kept of a slide: its tissue, overviews (b, c, h, w) by downsample, levels left out, what was seen."""

    tissue: TissueMask
    overviews: Mapping[float, Tensor]
    strange: Mapping[int, str] = field(default_factory=dict)
    seen: Seen | None = None

    @property
    def bytes(self) -> int:
        """Memory this takes."""
        return self.tissue.mask.nbytes + sum(view.nbytes for view in self.overviews.values())


class OverviewMemory:
    """The overviews and masks used last; the least recently used leave beyond `limit` bytes. Thread-safe."""

    def __init__(self, limit: int = MEMORY_BYTES) -> None:
        self.limit = limit
        self._kept: OrderedDict[str, Remembered] = OrderedDict()
        self._lock = Lock()

    @property
    def bytes(self) -> int:
        """Memory in use."""
        return sum(kept.bytes for kept in self._kept.values())

    def get(self, key: str) -> Remembered | None:
        """Return what is kept of a slide, None where nothing is."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: str, remembered: Remembered) -> None:
        """Keep an entry in place of the one under that key; drop the least recently used beyond the limit."""
        with self._lock:
            self._kept[key] = remembered
            self._kept.move_to_end(key)
            while self._kept and self.bytes > self.limit:
                self._kept.popitem(last=False)


class RememberingSource:
    """A slide's `TileSource` whose overview is read once and kept in an `OverviewMemory`."""

    def __init__(self, source: SlideSource, key: str, memory: OverviewMemory) -> None:
        self._source, self._key, self._memory = source, key, memory
        self._overviews: dict[float, Tensor] = dict(kept.overviews) if (kept := memory.get(key)) else {}
        self.extent: tuple[int, int] = source.extent
        self.batch = source.batch

    @property
    def counters(self) -> Counters:
        """What reading has cost so far; an overview from memory costs nothing."""
        return self._source.counters

    @property
    def slide(self) -> Slide:
        """The open slide."""
        return self._source.slide

    @property
    def tissue_mask(self) -> TissueMask:
        """Where there is tissue."""
        return self._source.tissue_mask

    def downsample(self, mpp: float) -> float:
        """Return what the slide's source returns."""
        return self._source.downsample(mpp)

    def overview_downsample(self, mpp: float) -> float:
        """Return what the slide's source returns."""
        return self._source.overview_downsample(mpp)

    def overview(self, downsample: float) -> Tensor:
        """Return the overview, (1, 3, h, w) uint8."""
        if downsample not in self._overviews:
            self._overviews[downsample] = self._source.overview(downsample)
            slide = self._source.slide
            kept = Remembered(self.tissue_mask, dict(self._overviews), slide.strange, slide.seen)
            self._memory.put(self._key, kept)
        return self._overviews[downsample]

    def tissue(self, grid: Grid) -> Tensor:
        """Return what the slide's source returns."""
        return self._source.tissue(grid)

    def aligned(self, tiles: TileSet) -> TileSet:
        """Return what the slide's source returns."""
        return self._source.aligned(tiles)

    def read(self, tiles: TileSet) -> TileBatch:
        """Return what the slide's source returns."""
        return self._source.read(tiles)

    def remembered(self, tiles: TileSet) -> tuple[Tensor, Tensor] | None:
        """Return what the slide's source returns."""
        return self._source.remembered(tiles)

    def remember(self, tiles: TileSet, features: Tensor, valid: Tensor) -> None:
        """Hand features of tiles to the slide's source."""
        self._source.remember(tiles, features, valid)

    def turned(self, turn: int) -> Remembering | None:
        """Return what the slide's source returns."""
        return self._source.turned(turn)


Known = Callable[[Slide, str], AbstractContextManager[RememberingTurned | None]]
"""(open slide, what names it in this run) -> a context with its known features, None for none."""


def survey(slides: Mapping[str, str | Path], rows: Sequence[LabelRow], doors: OpenSlides | None = None) -> Survey:
    """Open every slide once, for its fingerprint and to see whether it can be used."""
    doors = doors or OpenSlides()
    with ThreadPoolExecutor(4) as pool:
        looked = list(pool.map(lambda row: _look(doors, slides[row.slide], row), rows))
    fingerprints = {row.slide: text for row, (text, _, failure) in zip(rows, looked, strict=True) if not failure}
    seen = {row.slide: found for row, (_, found, failure) in zip(rows, looked, strict=True) if not failure}
    failed = {row.slide: failure for row, (_, _, failure) in zip(rows, looked, strict=True) if failure}
    return Survey(fingerprints, failed, seen)


def slide_examples(
    rows: Sequence[LabelRow],
    slides: Mapping[str, str | Path],
    surveyed: Survey,
    target: Target,
    memory: OverviewMemory,
    overview_mpp: float,
    snap: bool = True,
    known: Known | None = None,
    doors: OpenSlides | None = None,
) -> tuple[Example, ...]:
    """Return the usable rows as examples; opening one also reads the overview at `overview_mpp`.

    Args:
        rows: of the labels.
        slides: slide name -> file or URL.
        surveyed: what was found when each was opened.
        target: what the model is asked for.
        memory: keeps overviews.
        overview_mpp: µm per pixel of the overview that the model looks at.
        snap: whether tiles move to the file's own grid.
        known: (open slide, what names it in this run) -> its known features; None for none.
        doors: opens slides.
    """
    doors = doors or OpenSlides()

    def example(row: LabelRow) -> Example:
        key, truth = surveyed.fingerprints[row.slide], target.known(row.label)
        return Example(
            row.slide,
            target.index(truth),
            key,
            lambda: opened(slides[row.slide], row, key, memory, overview_mpp, snap, known, doors),
            row.patient,
            surveyed.seen[row.slide],
            truth,
        )

    return tuple(example(row) for row in rows if row.slide in surveyed.fingerprints)


@contextmanager
def opened(
    path: str | Path,
    row: LabelRow,
    key: str,
    memory: OverviewMemory,
    overview_mpp: float,
    snap: bool = True,
    known: Known | None = None,
    doors: OpenSlides | None = None,
) -> Iterator[TileSource]:
    """Yield a slide's source with its overview in memory, and with known features where `known` has some.

    Raises:
        SlideError: it cannot be opened or read, its mpp is unknown, or it has no tissue.
    """
    kept = memory.get(key)
    with (doors or OpenSlides()).opened(path, row) as slide:
        if kept:
            slide.strange, slide.seen = kept.strange, kept.seen
        plain = SlideSource(slide, tissue=kept.tissue if kept else None, snap=snap)
        if not kept:
            plain.check_levels(overview_mpp)
        source = RememberingSource(plain, key, memory)
        if not source.tissue_mask.mask.any():
            raise NoTissueError(f"{path}: no tissue found")
        source.overview(source.overview_downsample(overview_mpp))
        with known(slide, f"{path} {row.series}") if known else nullcontext() as plain.memory:
            yield cast(TileSource, source)


def data_fingerprint(fingerprints: Mapping[str, str], labels: Mapping[str, str]) -> str:
    """Return the sha256 of the sorted pairs of slide fingerprint and label, whatever the slides' names."""
    lines = sorted(f"{fingerprints[name]} {labels[name]}" for name in fingerprints)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _look(doors: OpenSlides, path: str | Path, row: LabelRow) -> tuple[str, Mapping[str, str], str]:
    try:
        with doors.opened(path, row) as slide:
            _ = slide.mpp
            return slide.fingerprint, seen_in(slide), ""
    except (WsiAttentionError, OSError) as error:
        return "", {}, " ".join(str(error).split())


@dataclass(frozen=True)
class Example:
    """An image with its class: all that the training loop knows of a slide.

    Attributes:
        name: what reports call it.
        label: class index; 0 for a target without classes.
        key: what its chance is seeded with; the slide's fingerprint.
        patient: whose it is, for intervals; its own where empty.
        seen: what its reader sees of it besides pixels (`slide.fingerprint.seen_in`); maps of it stand for no other.
        open: gives its pixels for the time of a `with` block; a `SlideError` drops it from training.
        truth: what the target says of it; the class index where it is empty.
    """

    name: str
    label: int
    key: str
    open: Callable[[], AbstractContextManager[TileSource]]
    patient: str = ""
    seen: Mapping[str, str] = field(default_factory=dict)
    truth: Truth = ()

    @property
    def known(self) -> Truth:
        """What is known of it, as numbers."""
        return self.truth or (float(self.label),)


def usable(examples: Sequence[Example], failed: Mapping[str, str]) -> tuple[Example, ...]:
    """Return the examples that have not failed, by name."""
    return tuple(example for example in examples if example.name not in failed)


def ahead(examples: Sequence[Example]) -> Generator[tuple[Example, TileSource | SlideError]]:
    """Yield each example with its open source, or with the error of opening it; the next one opens meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool, ExitStack() as unfinished:
        coming = [pool.submit(_entered, example) for example in examples[:1]]
        unfinished.callback(_close, coming)
        for position, example in enumerate(examples):
            stack, source = coming.pop().result()
            coming += [pool.submit(_entered, following) for following in examples[position + 1 : position + 2]]
            with stack:
                yield example, source


def _close(coming: list[Future[tuple[ExitStack, TileSource | SlideError]]]) -> None:
    for future in coming:
        future.result()[0].close()


def _entered(example: Example) -> tuple[ExitStack, TileSource | SlideError]:
    stack = ExitStack()
    try:
        return stack, stack.enter_context(example.open())
    except SlideError as error:
        return stack, error
    except OSError as error:
        return stack, SlideError(f"{example.name}: {error}")
