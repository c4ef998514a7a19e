"""What is read of a feature file when training looks at it: places, attributes, shapes, and hardly any features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wsi_attention.bags import Bag, write_bag
from wsi_attention.bags.dialects import outline_alone, read_alone
from wsi_attention.errors import InputError

h5py = pytest.importorskip("h5py")


def a_bag(tiles: int = 50) -> Bag:
    places = np.stack([np.arange(tiles), np.zeros(tiles)], axis=-1).astype(np.int64) * 64
    features = np.random.default_rng(0).normal(size=(tiles, 16)).astype(np.float32)
    return Bag("a", places, 64, 32, (64 * tiles, 64), 0.5, features, encoder="uni")


@pytest.mark.parametrize("dialect", ["trident", "clam", "stamp"])
def test_an_outline_says_what_the_whole_bag_says(dialect: str, tmp_path: Path) -> None:
    file = next(one for one in reversed(write_bag(a_bag(), tmp_path, dialect)) if one.suffix == ".h5")
    whole, (outline, _) = read_alone(file), outline_alone(file)
    assert whole.features is not None and outline.features is not None
    assert outline.features.shape == whole.features.shape and outline.features.strides == (0, 0)
    for name in ("locations", "side", "pixels", "extent", "mpp", "encoder", "dialect"):
        np.testing.assert_array_equal(getattr(outline, name), getattr(whole, name))


def test_features_in_between_are_not_read(tmp_path: Path) -> None:
    (file,) = write_bag(a_bag(), tmp_path, "trident")
    with h5py.File(file, "a") as opened:
        attributes, values = dict(opened["features"].attrs), opened["features"][()]
        del opened["features"]
        opened.create_dataset("features", data=values, chunks=(1, 16), fletcher32=True).attrs.update(attributes)
        where = opened["features"].id.get_chunk_info(20).byte_offset
    with file.open("r+b") as raw:
        raw.seek(where)
        raw.write(b"damaged!")
    assert len(outline_alone(file)[0]) == 50
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        read_alone(file)


def test_a_fingerprint_tells_other_features_and_other_places(tmp_path: Path) -> None:
    bag = a_bag()
    assert bag.features is not None
    others = [bag, replace(bag, features=bag.features + 1), replace(bag, locations=bag.locations + 1)]
    others += [replace(bag, features=bag.features[:, :8])]
    found = [outline_alone(write_bag(one, tmp_path / str(k), "trident")[0])[1] for k, one in enumerate(others)]
    assert len({*found}) == 4 and found[0] == outline_alone(write_bag(bag, tmp_path / "again", "trident")[0])[1]
