"""The file of accumulated maps: what goes in comes out, always the same bytes, and slips are named."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsi_attention.attention.accumulation import to_bytes
from wsi_attention.errors import InputError
from wsi_attention.geometry import Grid
from wsi_attention.training.map_store import STORE, MapStore, SlideMaps, maps_fingerprint, open_maps, write_maps

GRID = Grid(3, 5, (8.25, 8.25), (0.0, 0.0))


def one(name: str, seed: int, visits: bool = False) -> SlideMaps:
    generator = torch.Generator().manual_seed(seed)
    values = to_bytes(torch.rand(2, 3, 5, generator=generator))
    shape = (2, 3, 5) if visits else (2, 1, 1)
    return SlideMaps(name, GRID, values, torch.randint(1, 9, shape, generator=generator), seen={"mpp": "0.5"})


def store(**changes: object) -> MapStore:
    whole = MapStore("maps", "maximum", ("benign", "lesion"), {"f2": one("two", 2), "f1": one("one", 1)})
    return replace(whole, **changes)  # type: ignore[arg-type]


def same(a: SlideMaps, b: SlideMaps) -> bool:
    tensors = [(a.values, b.values), (a.updates, b.updates)]
    tensors += [(a.pending, b.pending)] if a.pending is not None and b.pending is not None else []
    facts = a.name == b.name and a.seen == b.seen and a.grid == b.grid and a.waiting == b.waiting
    whole = all(torch.equal(x, y) and x.dtype == y.dtype for x, y in tensors)
    return facts and whole and (a.pending is None) == (b.pending is None)


def test_there_and_back(tmp_path: Path) -> None:
    late = replace(one("late", 3), waiting=(1,), pending=one("", 4).values, updates=torch.zeros(2, 1, 1).long())
    averaged = replace(one("mean", 5, visits=True), values=torch.rand(2, 3, 5))
    written = store(found={"f1": one("one", 1), "f2": one("seen", 2, visits=True), "f3": late, "f4": averaged})
    write_maps(tmp_path / STORE, written)
    for found in (open_maps(tmp_path), open_maps(tmp_path / STORE)):
        assert (found.kind, found.rule, found.classes) == ("maps", "maximum", ("benign", "lesion"))
        assert all(same(found.found[key], written.found[key]) for key in written.found)
        assert found.slides == {"f1": "one", "f2": "seen", "f4": "mean"}


def test_a_map_by_name_or_fingerprint(tmp_path: Path) -> None:
    write_maps(tmp_path / STORE, store())
    found = open_maps(tmp_path)
    by_name, by_key = found.get("two", "lesion"), found.get("f2", "lesion")
    expected = one("two", 2)
    np.testing.assert_array_equal(by_name.values, expected.values[1].numpy() / np.float32(255))
    np.testing.assert_array_equal(by_key.values, by_name.values)
    assert by_name.values.dtype == np.float32 and by_name.grid == GRID
    assert by_name.visits.shape == (3, 5) and (by_name.visits == int(expected.updates[1])).all()


def test_the_same_maps_are_the_same_bytes_and_reloading_does_not_drift(tmp_path: Path) -> None:
    write_maps(tmp_path / "a.zip", store())
    first = (tmp_path / "a.zip").read_bytes()
    write_maps(tmp_path / "a.zip", replace(store(), found=dict(reversed(store().found.items()))))
    assert (tmp_path / "a.zip").read_bytes() == first
    write_maps(tmp_path / "b.zip", open_maps(tmp_path / "a.zip"))
    assert (tmp_path / "b.zip").read_bytes() == first
    assert maps_fingerprint(str(tmp_path / "a.zip")) == maps_fingerprint(str(tmp_path / "b.zip"))
    assert maps_fingerprint("") == ""


def test_it_is_an_ordinary_zarr_store(tmp_path: Path) -> None:
    import zarr
    from zarr.storage import ZipStore

    write_maps(tmp_path / STORE, store())
    with ZipStore(tmp_path / STORE, mode="r") as zipped:
        group = zarr.open_group(zipped, mode="r")
        assert sorted(group.group_keys()) == ["f1", "f2"]
        assert group["f1"].attrs["name"] == "one"
        np.testing.assert_array_equal(group["f1/values"][:], one("one", 1).values.numpy())


def test_slips_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"attention_maps.zarr.zip does not exist: no maps were accumulated there"):
        open_maps(tmp_path)
    write_maps(tmp_path / STORE, store())
    found = open_maps(tmp_path)
    with pytest.raises(InputError, match="no accumulated map of slide 'three'; 2 slides have one, such as one, two"):
        found.get("three", "lesion")
    with pytest.raises(InputError, match="no class 'tumour'; there is: benign, lesion"):
        found.get("one", "tumour")
    content = (tmp_path / STORE).read_bytes()
    (tmp_path / STORE).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be read as a store of maps"):
        open_maps(tmp_path)
    with zipfile.ZipFile(tmp_path / STORE, "w") as file:
        file.writestr("other.txt", "nothing")
    with pytest.raises(InputError, match="cannot be read as a store of maps"):
        open_maps(tmp_path)


def rewritten(file: Path, entry: str, change: Callable[[dict[str, Any]], None]) -> None:
    """The store with one of its JSON files changed."""
    with zipfile.ZipFile(file) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    content = json.loads(entries[entry])
    change(content)
    entries[entry] = json.dumps(content).encode()
    with zipfile.ZipFile(file, "w") as new:
        for name, data in entries.items():
            new.writestr(name, data)


@pytest.mark.parametrize(
    ("array", "shape", "text"),
    [
        ("values", [2, 10**6, 10**6], "too large for maps"),
        ("values", [1, 3, 5], "maps of 2 classes have other shapes"),
        ("updates", [1, 1, 1], "updates fit no maps"),
    ],
)
def test_arrays_that_are_no_maps_are_refused(tmp_path: Path, array: str, shape: list[int], text: str) -> None:
    write_maps(tmp_path / STORE, store())
    rewritten(tmp_path / STORE, f"f1/{array}/zarr.json", lambda content: content.update(shape=shape))
    with pytest.raises(InputError, match=f"cannot be read as a store of maps .*{text}"):
        open_maps(tmp_path)


@pytest.mark.parametrize(
    ("fact", "value", "text"),
    [
        ("step", [0, 0], "cells cannot have the size 0 × 0"),
        ("origin", [float("inf"), 0], "inf"),
        ("waiting", [7], "waiting classes are among 0 to 1"),
    ],
)
def test_facts_that_fit_no_map_are_refused(tmp_path: Path, fact: str, value: list[float], text: str) -> None:
    write_maps(tmp_path / STORE, store())
    rewritten(tmp_path / STORE, "f1/zarr.json", lambda content: content["attributes"].update({fact: value}))
    with pytest.raises(InputError, match=f"cannot be read as a store of maps .*{text}"):
        open_maps(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), -0.5, 1.5])
def test_numbers_that_are_no_share_are_refused(tmp_path: Path, value: float) -> None:
    write_maps(tmp_path / STORE, store(found={"f1": replace(one("one", 1), values=torch.full((2, 3, 5), value))}))
    with pytest.raises(InputError, match="float32 numbers from 0 to 1"):
        open_maps(tmp_path)


def test_damage_anywhere_is_named_or_harmless(tmp_path: Path) -> None:
    write_maps(tmp_path / STORE, store())
    content, chance, named = (tmp_path / STORE).read_bytes(), random.Random(0), 0
    for _ in range(60):
        damaged = bytearray(content)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        (tmp_path / STORE).write_bytes(damaged)
        try:
            open_maps(tmp_path)
        except InputError:
            named += 1
    assert named > 20
