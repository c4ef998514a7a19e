"""The contract of exporters as a suite that ships, and made-up predictions to try them on.

An outside package proves its exporter like this (pytest collects the inherited tests):

    class TestMyExporter(ExporterContract):
        exporter = MyExporter()
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import InputError
from wsi_attention.export.record import from_record, to_record
from wsi_attention.geometry import Grid
from wsi_attention.protocols import Exporter
from wsi_attention.structures import AttentionMap, Counters, Glimpse, Prediction, TileSet, TissueMask

EXAMPLES = {
    "usual": (21_000, 16_500),
    "wide": (60_000, 12_000),
    "tall": (9_000, 41_000),
    "tiny": (16, 16),
    "one_cell": (300, 200),
    "no_glimpses": (8_000, 8_000),
    "all_failed": (8_000, 8_000),
    "zoomed": (21_000, 16_500),
    "levels": (12_000, 9_000),
    "overview_alone": (8_000, 6_000),
    "demonstration": (9_000, 7_000),
}
"""Kinds of example predictions, and the (w, h) of their slides in level-0 pixels."""


def example_prediction(seed: int = 0, kind: str = "usual", tiles: int = 32) -> Prediction:
    """Return a prediction as a model could have made it, without slide or model; equal arguments make equal values.

    "usual" has what exporters get wrong: a bounds offset, tiles hanging over every edge, a tile that could not be read,
    a tile drawn twice, NaN where there is no tissue. "one_cell" has a map of one cell and one tile larger than the
    slide; "no_glimpses" read nothing; "all_failed" could read none of its tiles. "zoomed" read large views, then tiles
    in them, with a finer map of a part of the slide; "levels" has two glimpses, a map for each, and "attention" last;
    "overview_alone" read no tiles and has a map for each class. "demonstration" has a label that
    means nothing.

    Args:
        seed: of all random values.
        kind: one of `EXAMPLES`.
        tiles: how many tiles were drawn, where the kind draws any.

    Raises:
        InputError: there is no such kind.
    """
    if kind not in EXAMPLES:
        raise InputError(f"no example prediction {kind!r}; possible: {', '.join(EXAMPLES)}")
    rng = np.random.default_rng([seed, len(kind)])
    extent = EXAMPLES[kind]
    step = 300.0 if kind == "one_cell" else max(max(extent) / 80, 2.0)
    grid = Grid.covering(extent, (step, step * 1.01))
    tissue = _tissue(extent, max(extent) / 400)
    found = AttentionMap(_attention(rng, grid, tissue), grid)
    glimpses, maps = _looked(rng, found, extent, tiles, kind)
    drawn = any(glimpse.drawn for glimpse in glimpses)
    tiles = sum(len(glimpse.tiles) for glimpse in glimpses)
    odd = int(sum((~glimpse.valid).sum() for glimpse in glimpses))
    return Prediction(
        slide=f"slides/example {kind} {seed}.svs",
        extent=extent,
        mpp=0.25,
        bounds=(1_024, 640) if kind == "usual" else (0, 0),
        classes=("normal", "tumour"),
        probabilities=np.array([0.0625, 0.9375]),
        spread=0.0213 if drawn else None,
        unread_mass=0.625 if drawn else None,
        purpose="demonstration" if kind == "demonstration" else "",
        glimpses=glimpses,
        maps=maps,
        tissue=tissue,
        counters=Counters(tiles=tiles, pixels=tiles * 65_536, bytes=tiles * 17_000, seconds=0.25, failed=odd),
        overview_pixels=int(tissue.mask.size),
        provenance={"fingerprint": f"{seed:064x}", "weights_sha256": "ab" * 32, "seed": seed, "versions": {}},
        shortfalls=(f"{odd} of {tiles} tiles could not be read: made up",) if odd else (),
    )


def _looked(
    rng: np.random.Generator, found: AttentionMap, extent: tuple[int, int], tiles: int, kind: str
) -> tuple[tuple[Glimpse, ...], tuple[AttentionMap, ...]]:
    """Return the glimpses and maps of a kind of prediction, in a model's order."""
    if kind == "no_glimpses":
        return (), (found,)
    if kind == "overview_alone":
        return (), (*(replace(found, values=found.values * k, name=f"class-{k}") for k in range(2)), found)
    last = _glimpse(rng, found, extent, tiles, kind)
    if kind == "zoomed":
        views = TileSet(last.tiles.locations[:, ::4] - 500, (160, 160), 10.0)
        weights = last.weights[::4] / last.weights[::4].sum()
        first = Glimpse(views, weights, last.attention[::4], np.full(len(weights), True), "views", drawn=True)
        return (first, last), (found, _part(found))
    if kind == "levels":
        first, last = replace(last, name="level-1"), replace(_glimpse(rng, found, extent, 7, kind), name="level-2")
        places = [replace(found, values=found.values * factor, name=f"location-{n}") for n, factor in ((1, 3), (2, 5))]
        return (first, last), (*places, found)
    return (last,), (found,)


def _part(found: AttentionMap) -> AttentionMap:
    """Return a finer map of the middle of another, mostly not looked at."""
    grid, cells = found.grid, (found.grid.rows // 2, found.grid.cols // 2)
    origin = grid.step[0] * (cells[1] // 2), grid.step[1] * (cells[0] // 2)
    finer = Grid(2 * cells[0], 2 * cells[1], (grid.step[0] / 2, grid.step[1] / 2), origin)
    values = np.full(finer.shape, np.nan, np.float32)
    values[3:9, 5:17] = 0.01
    return AttentionMap(values, finer, "zoom")


def _tissue(extent: tuple[int, int], downsample: float) -> TissueMask:
    """Return an ellipse with a hole, cut off by the left edge."""
    downsample = max(downsample, 1.0)
    rows, cols = int(np.ceil(extent[1] / downsample)), int(np.ceil(extent[0] / downsample))
    y, x = np.mgrid[0:rows, 0:cols]
    x, y = (x + 0.5) / cols, (y + 0.5) / rows
    body = ((x - 0.4) / 0.5) ** 2 + ((y - 0.5) / 0.42) ** 2 < 1
    hole = ((x - 0.3) / 0.08) ** 2 + ((y - 0.4) / 0.1) ** 2 < 1
    return TissueMask(body & ~hole, downsample)


def _attention(rng: np.random.Generator, grid: Grid, tissue: TissueMask) -> NDArray[np.float32]:
    """Return a few sharp peaks on a low floor, summing to 1 over the tissue; NaN elsewhere."""
    y, x = np.mgrid[0 : grid.rows, 0 : grid.cols]
    logits = rng.normal(0, 0.3, grid.shape)
    for _ in range(4):
        row, col = rng.uniform(0.2, 0.8, 2) * grid.shape
        logits += rng.uniform(3, 7) * np.exp(-((y - row) ** 2 + (x - col) ** 2) / (2 * rng.uniform(1, 3) ** 2))
    inside = tissue.fraction(grid) > 0.5
    inside |= ~inside.any()
    weights = np.where(inside, np.exp(logits), 0.0)
    return np.where(inside, weights / weights.sum(), np.nan).astype(np.float32)


def _glimpse(rng: np.random.Generator, found: AttentionMap, extent: tuple[int, int], tiles: int, kind: str) -> Glimpse:
    share = np.nan_to_num(found.values.ravel().astype(np.float64))
    share /= share.sum()
    cells = rng.choice(len(share), 1 if kind == "one_cell" else tiles, p=share)
    size, downsample = ((8, 8), 1.0) if kind == "tiny" else ((256, 256), 2.0)
    locations = found.grid.locations(cells, size, downsample)
    if kind == "usual":
        corner = np.array(extent) - 200
        locations[:3] = [(-256, 3_000), (corner[0], 8_000), (6_000, corner[1])]
        locations[4] = locations[3]
        cells[4] = cells[3]
    valid = np.full(len(cells), kind != "all_failed")
    valid[5:6] = False
    weights = np.where(valid, rng.uniform(0.5, 1.5, len(cells)) * share[cells] ** 0.25, 0.0)
    weights = weights / weights.sum() if weights.any() else weights
    return Glimpse(TileSet(locations, size, downsample), weights, share[cells], valid, drawn=kind != "levels")


class ExporterContract:
    """What the results folder asks of an exporter; inherit, and set `exporter`.

    Attributes:
        exporter: the exporter on trial.
        kinds: the example predictions it must be able to write.
    """

    exporter: ClassVar[Exporter]
    kinds: ClassVar[tuple[str, ...]] = tuple(EXAMPLES)

    def test_is_an_exporter(self) -> None:
        """Check that it has a suffix and can be called."""
        assert isinstance(self.exporter, Exporter)

    def test_suffix_names_one_place_per_slide_inside_the_folder(self) -> None:
        """Check that two slides never share a place, and no place lies outside the results folder."""
        suffix = self.exporter.suffix
        assert suffix.format(slide="a/b") != suffix.format(slide="a/c")
        path = PurePosixPath(suffix.format(slide="a/b"))
        assert not path.is_absolute() and ".." not in path.parts and "\\" not in suffix

    def test_writes_every_kind_of_prediction_and_nothing_beside(self, tmp_path: Path) -> None:
        """Check that exactly the given path is written, also for odd predictions."""
        for kind in self.kinds:
            place = tmp_path / kind / f"a slide{self._ending()}"
            place.parent.mkdir()
            self.exporter(example_prediction(kind=kind), place)
            assert [path.name for path in place.parent.iterdir()] == [place.name], kind
            assert any(_contents(place).values()), f"{kind}: nothing was written"

    def test_same_prediction_gives_same_bytes(self, tmp_path: Path) -> None:
        """Check that no clock, random value or order of a set gets into the file."""
        for kind in self.kinds:
            first = self._written(example_prediction(3, kind), tmp_path / f"{kind}-1{self._ending()}")
            second = self._written(example_prediction(3, kind), tmp_path / f"{kind}-2{self._ending()}")
            assert first == second, kind

    def test_a_recorded_prediction_gives_the_same_bytes(self, tmp_path: Path) -> None:
        """Check that what `wsi-attention export` makes later equals what classify made."""
        for kind in {"usual", "zoomed", "overview_alone"} & set(self.kinds):
            prediction = example_prediction(5, kind)
            again = from_record(json.loads(json.dumps(to_record(prediction))))
            first = self._written(prediction, tmp_path / f"{kind}-1{self._ending()}")
            assert first == self._written(again, tmp_path / f"{kind}-2{self._ending()}"), kind

    def test_another_prediction_gives_other_bytes(self, tmp_path: Path) -> None:
        """Check that the file depends on the prediction."""
        first = self._written(example_prediction(1), tmp_path / f"1{self._ending()}")
        assert first != self._written(example_prediction(2), tmp_path / f"2{self._ending()}")

    def test_leaves_the_prediction_alone(self, tmp_path: Path) -> None:
        """Check that the prediction is unchanged, as exporters share it."""
        prediction = example_prediction(7)
        before = json.dumps(to_record(prediction))
        self.exporter(prediction, tmp_path / f"slide{self._ending()}")
        assert json.dumps(to_record(prediction)) == before

    def test_writes_over_what_an_interrupted_run_left(self, tmp_path: Path) -> None:
        """Check that what lies at the path before is replaced."""
        place = tmp_path / f"slide{self._ending()}"
        self._written(example_prediction(1), place)
        again = self._written(example_prediction(2), place)
        assert again == self._written(example_prediction(2), tmp_path / f"fresh{self._ending()}")

    def test_several_threads_give_the_same_bytes(self, tmp_path: Path) -> None:
        """Check that several threads can export at once."""
        alone = [self._written(example_prediction(k), tmp_path / f"a{k}{self._ending()}") for k in range(4)]
        with ThreadPoolExecutor(4) as pool:
            places = [tmp_path / f"b{k}{self._ending()}" for k in range(4)]
            together = list(pool.map(self._written, map(example_prediction, range(4)), places))
        assert alone == together

    def _ending(self) -> str:
        """Return the part of the suffix after the slide's name."""
        return self.exporter.suffix.rpartition("{slide}")[2]

    def _written(self, prediction: Prediction, place: Path) -> dict[str, str]:
        self.exporter(prediction, place)
        return _contents(place)


def _contents(place: Path) -> dict[str, str]:
    """Return {relative path: sha256} of every file at or below a place."""
    files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
    return {path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
