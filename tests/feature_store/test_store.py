"""A folder of features: what goes in comes out, from any number of processes, after a kill, and within its limit."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import warm_python

from wsi_attention.errors import InputError
from wsi_attention.feature_store import shards
from wsi_attention.feature_store import store as stores
from wsi_attention.feature_store.kind import Kind
from wsi_attention.feature_store.shards import Shard, new_name, packed, read_shard
from wsi_attention.feature_store.shelf import MANY_FILES
from wsi_attention.feature_store.store import MARK, FeatureStore, open_store
from wsi_attention.structures import TileSet

KIND = Kind("k" * 64, {"encoder": "any"})
OTHER = Kind("o" * 64)


class Told(list[str]):
    """Takes down what a store says."""

    def __call__(self, text: str) -> None:
        self.append(text)


def opened(folder: Path, told: Told | None = None, gigabytes: float = 1.0) -> FeatureStore:
    store = open_store(folder, gigabytes, told if told is not None else Told())
    assert store is not None
    return store


def tiles(first: int, count: int = 4) -> TileSet:
    return TileSet(np.array([[first + i, 7 * i] for i in range(count)]), (32, 16), 1.5)


def values(first: int, count: int = 4, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Features that follow from the places alone, so that any process knows what must come out."""
    x = torch.arange(first, first + count, dtype=torch.float64)[:, None] + torch.arange(8) / 10
    return torch.sin(x).to(dtype)[None]


def put(store: FeatureStore, first: int, slide: str = "s", kind: Kind = KIND, count: int = 4) -> None:
    with store.shelf(kind, slide) as shelf:
        shelf.remember(tiles(first, count), values(first, count), torch.ones(1, count, dtype=torch.bool))


def found(store: FeatureStore, first: int, slide: str = "s", kind: Kind = KIND, count: int = 4) -> torch.Tensor | None:
    """The features of tiles, None unless all are known."""
    with store.shelf(kind, slide) as shelf:
        said = shelf.remembered(tiles(first, count))
    return None if said is None or not bool(said[1].all()) else said[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_what_goes_in_comes_out_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    with opened(tmp_path / "f").shelf(KIND, "s") as shelf:
        shelf.remember(tiles(0), values(0, dtype=dtype), torch.tensor([[True, True, False, True]]))
    with opened(tmp_path / "f").shelf(KIND, "s") as shelf:
        said = shelf.remembered(tiles(0))
        assert said is not None
        features, known = said
        assert known.tolist() == [[True, True, False, True]]
        assert features.dtype == dtype and torch.equal(features[known], values(0, dtype=dtype)[known])


def test_another_slide_encoder_size_scale_or_turn_is_not_known(tmp_path: Path) -> None:
    put(opened(tmp_path), 0)
    store = opened(tmp_path)
    assert found(store, 0) is not None
    assert found(store, 0, slide="corrected") is None and found(store, 0, kind=OTHER) is None
    with store.shelf(KIND, "s") as shelf:
        same = tiles(0)
        for other in (
            TileSet(same.locations, (16, 32), same.downsample),
            TileSet(same.locations, same.size, 1.25),
            TileSet(same.locations + 1, same.size, same.downsample),
        ):
            assert shelf.remembered(other) is None
        assert shelf.turned(3).remembered(same) is None
        shelf.turned(3).remember(same, -values(0), torch.ones(1, 4, dtype=torch.bool))
    with opened(tmp_path).shelf(KIND, "s") as shelf:
        turned, plain = shelf.turned(3).remembered(same), shelf.remembered(same)
        assert turned is not None and plain is not None and torch.equal(turned[0], -plain[0])


def test_features_that_are_no_numbers_are_not_kept(tmp_path: Path) -> None:
    wrong = values(0)
    wrong[0, 1, 3] = torch.nan
    with opened(tmp_path).shelf(KIND, "s") as shelf:
        shelf.remember(tiles(0), wrong, torch.ones(1, 4, dtype=torch.bool))
    with opened(tmp_path).shelf(KIND, "s") as shelf:
        said = shelf.remembered(tiles(0))
        assert said is not None and said[1].tolist() == [[True, False, True, True]]


def damages(content: bytes) -> dict[str, bytes]:
    middle = len(content) // 2
    other_format = Shard("k" * 64, "s", [], np.zeros((0, 8), np.float32))
    return {
        "cut short": content[: len(content) - 40],
        "half": content[:middle],
        "empty": b"",
        "a flipped byte": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
        "of another slide": packed(Shard("k" * 64, "t", [(0, 0, 32, 16, 0, 1.5)], np.ones((1, 8), np.float32))),
        "of another encoder": packed(Shard("o" * 64, "s", [(0, 0, 32, 16, 0, 1.5)], np.ones((1, 8), np.float32))),
        "of another version": packed(other_format).replace(b'"format": 1', b'"format": 9'),
        "not finite": packed(Shard("k" * 64, "s", [(0, 0, 32, 16, 0, 1.5)], np.full((1, 8), np.inf, np.float32))),
    }


@pytest.mark.parametrize("damage", damages(b"0" * 100).keys())
def test_a_damaged_file_is_passed_over_with_one_note(tmp_path: Path, damage: str) -> None:
    put(opened(tmp_path), 0)
    (good,) = tmp_path.rglob("*.zarr.zip")
    for _ in range(2):
        (good.parent / new_name()).write_bytes(damages(good.read_bytes())[damage])
    (good.parent / ".tmp-half.zarr.zip").write_bytes(b"PK")
    told = Told()
    store = opened(tmp_path, told)
    assert torch.equal(found(store, 0), values(0))
    assert found(store, 0) is not None and len(told) == 1 and "read again" in told[0]


def test_a_store_of_another_version_is_left_alone_with_one_note(tmp_path: Path) -> None:
    put(opened(tmp_path), 0)
    for content in ('{"format": 7}', "{", '["format"]', "\udcff"):
        (tmp_path / MARK).write_text(content, encoding="utf-8", errors="surrogateescape")
        told = Told()
        assert open_store(tmp_path, 1, told) is None
        assert len(told) == 1 and MARK in told[0] and "--feature-store" in told[0]


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds other files \(a\.svs\)"):
        open_store(tmp_path, 1, Told())
    with pytest.raises(InputError, match="is no folder"):
        open_store(tmp_path / "a.svs", 1, Told())
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="number of GB"):
            open_store(tmp_path / "new", wrong, Told())
    assert open_store(tmp_path / "new", 0, Told()) is None and not (tmp_path / "new").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_full_disk_ends_keeping_with_one_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    told = Told()
    store = opened(tmp_path, told)
    put(store, 0)

    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[:10])
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(shards, "write_bytes", full)
    put(store, 100)
    put(store, 200)
    assert len(told) == 1 and "no longer kept" in told[0]
    assert found(store, 100) is not None  # in memory for the rest of the run
    assert not list(tmp_path.rglob(".tmp-*"))
    monkeypatch.undo()
    assert found(opened(tmp_path), 0) is not None and found(opened(tmp_path), 100) is None


def test_slides_used_longest_ago_leave_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "LOOK_AGAIN", 0.0)
    put(opened(tmp_path / "size"), 0, count=500)
    (one,) = (tmp_path / "size").rglob("*.zarr.zip")
    folder = tmp_path / "f"
    store = opened(folder, gigabytes=3.5 * one.stat().st_size / 1e9)
    for number, slide in enumerate(("a", "b", "c")):
        put(store, 0, slide, count=500)
        place = store._shelf(KIND, slide).folder
        os.utime(place, (number + 1, number + 1))
    found(store, 0, "a", count=500)  # used now
    put(store, 0, "d", count=500)
    fresh = opened(folder)
    there = {slide for slide in ("a", "b", "c", "d") if found(fresh, 0, slide, count=500) is not None}
    assert there == {"a", "c", "d"}


def test_what_killed_processes_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    put(opened(tmp_path), 0)
    (one,) = tmp_path.rglob("*.zarr.zip")
    young, old = one.parent / ".tmp-young.zarr.zip", one.parent / ".tmp-old.zarr.zip"
    for path in (young, old):
        path.write_bytes(b"PK")
    os.utime(old, (1, 1))
    found(opened(tmp_path), 0)
    assert young.exists() and not old.exists()


def test_many_files_become_one(tmp_path: Path) -> None:
    for number in range(MANY_FILES + 1):
        put(opened(tmp_path), 10 * number)
    store = opened(tmp_path)
    assert all(torch.equal(found(store, 10 * number), values(10 * number)) for number in range(MANY_FILES + 1))
    assert len(list(tmp_path.rglob("*.zarr.zip"))) == 1
    fresh = opened(tmp_path)
    assert all(torch.equal(found(fresh, 10 * number), values(10 * number)) for number in range(MANY_FILES + 1))


def test_what_a_process_adds_is_seen_by_one_that_is_running(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    assert found(second, 0) is None
    put(first, 0)
    assert found(second, 0) is not None


def test_a_folder_that_another_process_removed_is_made_again(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with store.shelf(KIND, "s") as shelf:
        shelf.remember(tiles(0), values(0), torch.ones(1, 4, dtype=torch.bool))
    for path in list(tmp_path.rglob("*.zarr.zip")):
        path.unlink()
        path.parent.rmdir()
    put(store, 50)
    assert found(opened(tmp_path), 50) is not None


WRITER = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {support!r}]
from test_store import opened, put, found
store, first, count = opened(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
for number in range(first, first + count):
    put(store, 10 * number, f"s{{number % 3}}")
    assert found(opened(Path(sys.argv[1])), 10 * number, f"s{{number % 3}}") is not None
print("done", flush=True)
"""


def writer(folder: Path, first: int, count: int) -> subprocess.Popen[str]:
    tests = Path(__file__).parent
    code = WRITER.format(tests=str(tests), support=str(tests.parent / "support"))
    command = [sys.executable, "-c", code, str(folder), str(first), str(count)]
    return warm_python.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    with writer(tmp_path, 0, 9) as one, writer(tmp_path, 100, 9) as other:
        assert one.communicate(timeout=60)[0] == other.communicate(timeout=60)[0] == "ready\ndone\n"
    told = Told()
    store = opened(tmp_path, told)
    for number in (*range(9), *range(100, 109)):
        assert torch.equal(found(store, 10 * number, f"s{number % 3}"), values(10 * number))
    assert not told


def test_a_killed_process_leaves_whole_files_alone(tmp_path: Path) -> None:
    chance = random.Random(0)
    for number in range(3):
        with writer(tmp_path, 1000 * number, 500) as process:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0.02, 0.4))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    told = Told()
    assert json.loads((tmp_path / MARK).read_text())["format"] == 1
    store = opened(tmp_path, told)
    put(store, 7)
    assert found(opened(tmp_path, told), 7) is not None and not told
    for path in tmp_path.glob("*/*/*.zarr.zip"):
        if not path.name.startswith("."):
            slide = next(name for name in ("s", "s0", "s1", "s2") if stores.slide_folder(name) == path.parent.name)
            shard = read_shard(path, KIND.key, slide)
            for place, row in zip(shard.places, shard.features, strict=True):
                assert torch.equal(torch.from_numpy(row), values(place[0], 1)[0, 0])
