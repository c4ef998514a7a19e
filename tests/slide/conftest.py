"""Small slides in every format, all with the same pixels, written by the tests themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def tissue_like(width: int, height: int, seed: int = 0) -> Pixels:
    """Smooth colour with noise: no two places alike, so a shift by one pixel shows."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    base = np.stack([200 + 40 * np.sin(x / 17), 120 + 60 * np.cos(y / 23), 170 + 50 * np.sin((x + y) / 29)], -1)
    return np.clip(base + rng.integers(-15, 15, base.shape), 0, 255).astype(np.uint8)


def halved(pixels: Pixels) -> Pixels:
    h, w = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    return pixels[:h, :w].reshape(h // 2, 2, w // 2, 2, 3).mean((1, 3)).round().astype(np.uint8)


@pytest.fixture(scope="session")
def pyramid() -> tuple[Pixels, ...]:
    """Three levels of odd size: 601×403, 300×201, 150×100."""
    levels = [tissue_like(601, 403)]
    for _ in range(2):
        levels.append(halved(levels[-1]))
    return tuple(levels)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slides")


@pytest.fixture(scope="session")
def tiled_tiff(folder: Path, pyramid: tuple[Pixels, ...]) -> Path:
    """A generic tiled pyramid, lossless, 0.5 µm by its resolution tags."""
    path = folder / "generic.tif"
    with tifffile.TiffWriter(path) as tif:
        for index, level in enumerate(pyramid):
            step = 2.0**index
            tif.write(level, photometric="rgb", tile=(64, 64), compression="deflate",
                      resolution=(20000 / step, 20000 / step), resolutionunit="CENTIMETER",
                      subfiletype=1 if index else 0, metadata=None)  # fmt: skip
    return path


@pytest.fixture(scope="session")
def ome_tiff(folder: Path, pyramid: tuple[Pixels, ...]) -> Path:
    """An OME-TIFF with its smaller levels in SubIFDs, 250 nm by its XML."""
    path = folder / "pyramid.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        options = {"photometric": "rgb", "tile": (64, 64), "compression": "deflate"}
        sizes = {"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 250, "PhysicalSizeYUnit": "nm"}
        tif.write(pyramid[0], subifds=2, metadata={"axes": "YXS", **sizes}, **options)
        for level in pyramid[1:]:
            tif.write(level, subfiletype=1, **options)
    return path


@pytest.fixture(scope="session")
def write_ome_zarr(pyramid: tuple[Pixels, ...]) -> Callable[..., Path]:
    """Write the pyramid as OME-Zarr: format 2 (OME 0.4) or 3 (0.5), any order of axes, folder or zip."""

    def write(
        path: Path, zarr_format: int = 2, axes: str = "cyx", unit: str = "micrometer", step: float = 0.25
    ) -> Path:
        zipped = path.suffix == ".zip"
        store = zarr.storage.ZipStore(path, mode="w") if zipped else zarr.storage.LocalStore(path)
        kinds = {"y": "space", "x": "space", "z": "space", "c": "channel", "t": "time"}
        described = [{"name": a, "type": kinds[a]} | ({"unit": unit} if a in "yx" and unit else {}) for a in axes]
        datasets = []
        for index in range(len(pyramid)):
            scale = [step * 2.0**index if axis in "yx" else 1.0 for axis in axes]
            datasets.append({"path": str(index), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
        version = "0.4" if zarr_format == 2 else "0.5"
        entry = {"axes": described, "datasets": datasets, "version": version}
        multiscales = {"multiscales": [entry]}
        attributes = multiscales if zarr_format == 2 else {"ome": multiscales | {"version": version}}
        group = zarr.create_group(store, zarr_format=zarr_format, attributes=attributes)
        for index, level in enumerate(pyramid):
            shape = {"y": level.shape[0], "x": level.shape[1], "c": 3}
            data = level.transpose(["yxc".index(axis) for axis in axes if axis in "yxc"])
            data = data.reshape([shape.get(axis, 1) for axis in axes])
            chunks = tuple({"y": 64, "x": 64, "c": 3}.get(axis, 1) for axis in axes)
            array = group.create_array(str(index), shape=data.shape, dtype="uint8", chunks=chunks)
            array[...] = data
        store.close()
        return path

    return write


@pytest.fixture(scope="session")
def ome_zarr(folder: Path, write_ome_zarr: Callable[..., Path]) -> Path:
    return write_ome_zarr(folder / "pyramid.ome.zarr")
