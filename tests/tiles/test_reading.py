"""Batches of tiles through dask: the same pixels however they are cut, and failures that stay failures."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Thread, current_thread

import dask
import numpy as np
import pytest
import tifffile

from wsi_attention.errors import TileReadError
from wsi_attention.slide.opening import Choice
from wsi_attention.slide.readers.array import ArrayLevels
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.slide.view import View
from wsi_attention.structures import TileSet
from wsi_attention.tiles import reading
from wsi_attention.tiles.cutting import MAX_TASKS, batch_of
from wsi_attention.tiles.reading import read_tiles, share_cores


def noisy_slide() -> Slide:
    pixels = np.random.default_rng(0).integers(0, 256, (900, 1100, 3)).astype(np.uint8)
    return open_slide([pixels, pixels[::4, ::4]])


def scattered(n: int, downsample: float = 1.0, size: tuple[int, int] = (24, 16)) -> TileSet:
    places = np.random.default_rng(1).integers(-20, 1090, (n, 2))
    return TileSet(places, size, downsample)


def one_by_one(slide: Slide, tiles: TileSet) -> np.ndarray:
    view = View(slide, tiles.downsample)
    return np.stack([view.read((int(x), int(y)), tiles.size) for x, y in tiles.locations[0]])


class FailingSlide(Slide):
    """Some places cannot be read; remembers the order of requests."""

    def __init__(self) -> None:
        super().__init__(ArrayLevels((np.zeros((1000, 1000, 3), np.uint8),)), Choice("array", "pixels in memory"))
        self.path = "broken.svs"
        self.asked: list[tuple[int, int]] = []

    def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
        self.asked.append(location)
        if location[0] % 2:
            raise TileReadError(f"broken.svs: no pixels at {location}")
        return np.full((size[1], size[0], 3), location[0] % 251, np.uint8)

    def bytes_of(self, level: int, locations: np.ndarray, sizes: np.ndarray) -> int:
        return 1000 * len(locations)


@pytest.mark.parametrize("downsample", [1.0, 2.5, 4.0])
def test_same_pixels_for_any_batch_and_any_number_of_workers(downsample: float) -> None:
    slide, tiles = noisy_slide(), scattered(41, downsample)
    expected = one_by_one(slide, tiles)
    for batch in (1, 7, 32, 1000):
        for workers in (1, 5):
            with dask.config.set(num_workers=workers):
                block = read_tiles(slide, tiles, batch)
            assert (block.pixels.shape, block.pixels.dtype) == ((41, 16, 24, 3), np.uint8)
            np.testing.assert_array_equal(block.pixels, expected)
            assert block.valid.all()


@pytest.mark.parametrize(("n", "batch", "tasks"), [(100, 32, 4), (8, 32, 1), (60_000, 32, MAX_TASKS)])
def test_one_task_a_batch_and_never_many_thousands(
    n: int, batch: int, tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = []

    def noted(graph: dict[object, object], *given: object, **options: object) -> None:
        graphs.append(len(graph))
        raise StopIteration

    monkeypatch.setattr("dask.threaded.get", noted)
    with dask.config.set(num_workers=1), pytest.raises(StopIteration):
        read_tiles(noisy_slide(), scattered(n), batch)
    assert graphs == [tasks]
    assert -(-n // batch_of(n, batch)) <= MAX_TASKS


def test_failed_tiles_are_told_apart_and_the_others_stay_in_order() -> None:
    slide = FailingSlide()
    places = np.array([[10, 0], [3, 0], [200, 7], [7, 90], [12, 5]])
    tiles = TileSet(places, (4, 4), 1.0)
    for block in (read_tiles(slide, tiles), read_tiles(slide, tiles, batch=2)):
        assert block.valid.tolist() == [True, False, True, False, True]
        assert block.pixels[:, 0, 0, 0].tolist() == [10, 0, 200, 0, 12]
        assert block.errors == ("broken.svs: no pixels at (3, 0)", "broken.svs: no pixels at (7, 90)")
        assert block.bytes == 3000


def test_neighbours_are_read_one_after_the_other() -> None:
    slide = FailingSlide()
    rows = np.array([[600, 4], [0, 300], [400, 300], [200, 0], [200, 310]])
    read_tiles(slide, TileSet(rows, (256, 256), 1.0))
    assert slide.asked == [(200, 0), (600, 4), (0, 300), (200, 310), (400, 300)]


def test_no_tiles_and_two_images() -> None:
    nothing = TileSet(np.zeros((1, 0, 2)), (8, 8), 1.0)
    assert read_tiles(noisy_slide(), nothing).pixels.shape == (0, 8, 8, 3)
    with pytest.raises(ValueError, match=r"\(1, n, 2\)"):
        read_tiles(noisy_slide(), TileSet(np.zeros((2, 3, 2)), (8, 8), 1.0))


def test_a_damaged_level_is_averaged_from_the_finer_one() -> None:
    sound = noisy_slide()

    class Damaged(FailingSlide):
        def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
            if level > 0:
                raise TileReadError("the edge tiles of this level are stored short")
            return sound.read(location, level, size)

    slide = Damaged()
    levels = {"level_dimensions": ((1100, 900), (550, 450)), "level_downsamples": (1.0, 2.0)}
    slide.facts = replace(slide.facts, tile_sizes=(None, None), **levels)
    block = read_tiles(slide, TileSet(np.array([[0, 0], [8, 4]]), (6, 4), 2.0))
    assert block.valid.all()
    assert block.bytes == 2000
    whole = sound.read((0, 0), 0, (12, 8)).reshape(4, 2, 6, 2, 3).mean((1, 3))
    assert np.abs(block.pixels[0] - whole).max() <= 0.5


def test_bytes_are_those_of_the_request_however_it_is_cut(tmp_path: Path) -> None:
    """Tiles that overlap share stored tiles, which a small batch reads more than once."""
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    tifffile.imwrite(path, pixels, tile=(64, 64), compression="deflate", photometric="rgb")
    with open_slide(path, reader="tiff", mpp=0.5) as slide:
        tiles = scattered(40)
        counted = {read_tiles(slide, tiles, batch).bytes for batch in (1, 5, 1000)}
        assert counted == {View(slide, 1.0).bytes_of(tiles.locations[0], tiles.size)}
        assert counted != {0}


def test_a_thread_that_has_read_leaves_no_pool_in_memory() -> None:
    def pools() -> int:
        gc.collect()
        return sum(issubclass(type(one), ThreadPoolExecutor) for one in gc.get_objects())

    slide, tiles = noisy_slide(), scattered(41)
    before, shapes = pools(), []
    for _ in range(5):
        thread = Thread(target=lambda: shapes.append(read_tiles(slide, tiles).pixels.shape))
        thread.start()
        thread.join()
    assert shapes == [(41, 16, 24, 3)] * 5
    assert pools() == before


def test_threads_are_as_many_as_dask_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    slide, tiles = noisy_slide(), scattered(41)
    used: set[str] = set()
    read = View.read_many

    def noted(*given: object) -> object:
        used.add(current_thread().name)
        return read(*given)

    monkeypatch.setattr(View, "read_many", noted)
    with dask.config.set(num_workers=1):
        read_tiles(slide, tiles, 4)
        assert len(used) == 1
    with dask.config.set(pool=ThreadPoolExecutor(1, thread_name_prefix="mine")):
        read_tiles(slide, tiles, 4)
    assert {name.rpartition("_")[0] for name in used} == {"tiles", "mine"}


@pytest.mark.parametrize(("cores", "processes", "threads"), [(16, 1, 8), (16, 4, 4), (16, 16, 2), (2, 2, 2), (1, 1, 1)])
def test_processes_share_the_cores(cores: int, processes: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dask.system.CPU_COUNT", cores)
    with dask.config.set(num_workers=None):
        share_cores(processes)
        assert reading._threads() == threads
    with dask.config.set(num_workers=5):
        share_cores(processes)
        assert reading._threads() == 5
