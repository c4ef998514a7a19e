"""LazySlide's stores: found in a folder, read like the other dialects, and one sentence where they cannot be used."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from wsi_attention.bags import Bag, feature_files, read_bag
from wsi_attention.bags.dialects import outline_alone
from wsi_attention.errors import InputError, MissingExtraError


def a_bag(tiles: int = 12) -> Bag:
    places = np.stack([np.arange(tiles) % 4, np.arange(tiles) // 4], axis=-1).astype(np.int64) * 64 + 7
    features = np.random.default_rng(0).normal(size=(tiles, 8)).astype(np.float32)
    return Bag("a", places, 64, 32, (400, 300), 0.5, features)


@pytest.fixture
def write() -> Any:
    pytest.importorskip("pyarrow", reason="pip install 'wsi-attention[lazyslide]'")
    from lazyslide_store import write_store

    return write_store


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_store_is_a_bag(write: Any, shuffled: bool, tmp_path: Path) -> None:
    bag = a_bag()
    found = read_bag(write(bag, tmp_path / "a.zarr", "uni2", shuffled))
    assert (found.name, found.side, found.pixels, found.extent, found.mpp) == ("a", 64, 32, (400, 300), 0.5)
    assert (found.encoder, found.dialect, found.spacing) == ("uni2", "lazyslide", 1.0)
    assert found.features is not None and bag.features is not None
    order, own = np.lexsort(found.locations.T), np.lexsort(bag.locations.T)
    np.testing.assert_array_equal(found.locations[order], bag.locations[own])
    np.testing.assert_array_equal(found.features[order], bag.features[own])
    outline, fingerprint = outline_alone(tmp_path / "a.zarr")
    assert outline.features is not None and outline.features.shape == (12, 8) and len(fingerprint) == 64


def test_stores_in_a_folder_and_one_table_of_several(write: Any, tmp_path: Path) -> None:
    write(a_bag(), tmp_path / "x" / "a.zarr", "uni")
    write(a_bag(), tmp_path / "b.zarr", "uni")
    zarr.open_group(tmp_path / "a.ome.zarr", mode="w").create_array("0", data=np.zeros((4, 4), np.uint8))
    assert feature_files(tmp_path) == {tmp_path / "b.zarr": "b", tmp_path / "x/a.zarr": "a"}
    write(a_bag(), tmp_path / "b.zarr", "conch")
    with pytest.raises(InputError, match=r"features of several kinds \(conch_tiles, uni_tiles\); name one after"):
        read_bag(tmp_path / "b.zarr")
    chosen = feature_files(f"{tmp_path}#uni_tiles")
    assert chosen == {tmp_path / "b.zarr/tables/uni_tiles": "b", tmp_path / "x/a.zarr/tables/uni_tiles": "a"}
    assert [read_bag(path).encoder for path in chosen] == ["uni", "uni"]
    with pytest.raises(InputError, match="no table none of features of tiles; there are: uni_tiles"):
        read_bag(tmp_path / "x/a.zarr/tables/none")
    with pytest.raises(InputError, match=r"no such folder of features"):
        feature_files(f"{tmp_path}/nowhere#uni_tiles")


def test_stores_that_cannot_be_used(write: Any, tmp_path: Path) -> None:
    bag = a_bag()
    assert bag.features is not None

    def refused(name: str, message: str) -> None:
        with pytest.raises(InputError, match=message) as caught:
            read_bag(tmp_path / f"{name}.zarr")
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)

    write(replace(bag, features=np.full((12, 8), np.nan, np.float32)), tmp_path / "nan.zarr")
    refused("nan", "features holds values that are not finite")
    write(bag, tmp_path / "oblong.zarr", height=64)
    refused("oblong", "tiles of 32 × 64 pixels; squares are needed")
    write(bag, tmp_path / "missing.zarr")
    (tmp_path / "missing.zarr/shapes/tiles/shapes.parquet").unlink()
    refused("missing", "not a readable store of LazySlide")
    write(bag, tmp_path / "damaged.zarr")
    (tmp_path / "damaged.zarr/shapes/tiles/shapes.parquet").write_bytes(b"PAR1 and no more")
    refused("damaged", "not a readable store of LazySlide")
    write(bag, tmp_path / "chunk.zarr")
    for chunk in (tmp_path / "chunk.zarr/tables/tiny_tiles/X/c").rglob("0"):
        if chunk.is_file():
            chunk.write_bytes(b"no zstd")
    refused("chunk", "not a readable store of LazySlide")
    store = write(bag, tmp_path / "places.zarr")
    zarr.open_group(store)["tables/tiny_tiles/obs/tile_id"][3] = 99
    refused("places", "features of tiles that have no place in the store")
    store = write(bag, tmp_path / "rows.zarr")
    zarr.open_group(store)["tables/tiny_tiles/obs"].create_array("tile_id", data=np.arange(5), overwrite=True)
    refused("rows", "12 features for 5 tiles")
    (tmp_path / "json.zarr/tables").mkdir(parents=True)
    (tmp_path / "json.zarr/zarr.json").write_text("{")
    refused("json", "not a readable store of LazySlide")
    zarr.open_group(tmp_path / "none.zarr", mode="w").create_group("tables")
    refused("none", "no features of tiles in it")


def test_without_pyarrow_the_sentence_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = zarr.open_group(tmp_path / "a.zarr", mode="w")
    root.attrs["tile_spec"] = {"tiles": {"width": 32, "height": 32}}
    table = root.create_group("tables").create_group("uni_tiles", attributes={"region": "tiles"})
    table.create_array("X", data=np.zeros((3, 2), np.float32))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"needs the package pyarrow; .*: pip install 'pyarrow>="):
        read_bag(tmp_path / "a.zarr")
