"""Plain images by name: arrays of a zarr store, files of a folder, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from PIL import Image

from wsi_attention.errors import InputError, SlideOpenError, UnsupportedSlideError
from wsi_attention.tiles.image_sources import channels_of, source_of
from wsi_attention.tiles.images import Images, fingerprint_of


def pixels(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)


@pytest.mark.parametrize("shape", [(3, 5, 4), (3, 5, 4, 2)])
def test_an_array_has_images_by_number(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = pixels(*shape)
    zarr.create_array(tmp_path / "a.zarr", data=values)
    images = pickle.loads(pickle.dumps(Images(tmp_path / "a.zarr")))
    assert images.names == ("0", "1", "2")
    assert images.find("3") is None
    assert np.array_equal(images.read("2"), values[2].reshape(5, 4, -1))
    assert fingerprint_of(images.read("0")) != fingerprint_of(images.read("1"))


def test_a_folder_has_images_by_file_name(tmp_path: Path) -> None:
    Image.fromarray(pixels(6, 4, 3)).save(tmp_path / "b.png")
    Image.fromarray(pixels(6, 4)).save(tmp_path / "c.PNG")
    Image.fromarray(pixels(16, 16, 3)).save(tmp_path / "d.jpg")
    np.save(tmp_path / "a.npy", pixels(6, 4))
    (tmp_path / "notes.txt").write_text("no image")
    images = Images(tmp_path)
    assert images.names == ("a", "b", "c", "d")
    assert images.find("b.png") == "b"
    assert [images.read(name).shape for name in images.names] == [(6, 4, 1), (6, 4, 3), (6, 4, 1), (16, 16, 3)]
    assert np.array_equal(images.read("b"), pixels(6, 4, 3))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"an": "object"}], dtype=object), allow_pickle=True)
    with pytest.raises(SlideOpenError, match="image a: cannot be read"):
        Images(tmp_path).read("a")


def test_what_is_no_image_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; images are a zarr array"):
        Images(tmp_path / "missing")
    with pytest.raises(InputError, match="no image in it"):
        Images(tmp_path)
    zarr.create_array(tmp_path / "f.zarr", data=np.zeros((2, 4, 4), np.float32))
    with pytest.raises(InputError, match=r"f.zarr: a zarr array of float32 \(2, 4, 4\)"):
        Images(tmp_path / "f.zarr")
    (tmp_path / "x.png").write_bytes(b"nothing")
    np.save(tmp_path / "y.npy", np.zeros((4, 4), np.float64))
    images = Images(tmp_path)
    with pytest.raises(SlideOpenError, match="image x: cannot be read"):
        images.read("x")
    with pytest.raises(SlideOpenError, match=r"image y: float64 \(4, 4"):
        images.read("y")
    np.save(tmp_path / "x.npy", pixels(4, 4))
    with pytest.raises(InputError, match="two images are called x"):
        Images(tmp_path)


def test_channels_must_be_the_models() -> None:
    assert (channels_of({"channels": 1}), channels_of({"mean": [0.1, 0.2, 0.3]}), channels_of({})) == (1, 3, None)
    source = source_of(pixels(6, 4, 3), 3, 0.5, "a")
    assert (source.extent, source.batch, source.mpp) == ((4, 6), 1, 0.5)
    with pytest.raises(UnsupportedSlideError, match="a: 3 channels, the model takes 1"):
        source_of(pixels(6, 4, 3), 1, 1.0, "a")
