"""Small painted slides, as they are or shifted, and a model trained on some: for the benchmarks of certainty."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MPP = 1.0
SIZE = 896, 832
CLASSES = "benign", "lesion"
MODEL: dict[str, Any] = {
    "tile_size": 48,
    "tile_mpp": MPP,
    "overview_mpp": 8.0,
    "draws": 16,
    "encoder_widths": [8, 16],
    "features": 16,
    "attention_widths": [8, 8],
}
Pixels = NDArray[np.uint8]


def plain(seed: int, scale: float, lesions: float) -> Pixels:
    """Level 0 of a slide; its label is the class of the parity of its seed."""
    from wsi_attention.testing.slides import SlideSpec, paint_slide

    spec = SlideSpec(SIZE, MPP * scale, seed, CLASSES[seed % 2], lesion_scale=lesions, coverage=0.4)
    return paint_slide(spec)[0]


def stained(seed: int, lesions: float) -> Pixels:
    """The slide in another stain: red absorbs a third more, green a fifth less."""
    density = -np.log((plain(seed, 1.0, lesions).astype(np.float64) + 1) / 256) * np.array([1.35, 0.8, 1.0])
    return np.clip(256 * np.exp(-density) - 1, 0, 255).round().astype(np.uint8)


def blurred(seed: int, lesions: float) -> Pixels:
    """The slide out of focus: a Gaussian of 1.5 µm."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(plain(seed, 1.0, lesions), (1.5 / MPP, 1.5 / MPP, 0)), np.uint8)


KINDS: dict[str, Callable[[int, float], Pixels]] = {
    "plain": lambda seed, lesions: plain(seed, 1.0, lesions),
    "stain": stained,
    "blur": blurred,
    "scale": lambda seed, lesions: plain(seed, 2.0, lesions),
}
"""How a slide is shifted; of "scale", the file says half the µm per pixel that are true."""


def write(folder: Path, kind: str, lesions: float, seed: int) -> Path:
    """Write a slide as a tiled TIFF with two levels."""
    import tifffile

    path, pixels = folder / f"s{seed}.tiff", KINDS[kind](seed, lesions)
    with tifffile.TiffWriter(path) as writer:
        for step in (1, 4):
            facts = {"resolution": (1e4 / MPP / step, 1e4 / MPP / step), "resolutionunit": "CENTIMETER"}
            coarse = pixels[: len(pixels) // step * step, : pixels.shape[1] // step * step]
            shape = coarse.shape[0] // step, step, coarse.shape[1] // step, step, 3
            level = coarse.reshape(shape).mean(axis=(1, 3)).round().astype(np.uint8)
            writer.write(level, tile=(128, 128), photometric="rgb", compression="zlib", **facts)
    return path


def write_set(folder: Path, kind: str, seeds: range, lesions: float = 1.0, processes: int = 2) -> list[Path]:
    """Write slides of a kind, and labels.csv beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(partial(write, folder, kind, lesions), seeds))


def write_labels(folder: Path, train: range, validation: range) -> Path:
    """Write labels.csv with a split."""
    parts = [(seed, part) for seeds, part in ((train, "train"), (validation, "val")) for seed in seeds]
    rows = [f"s{seed},{CLASSES[seed % 2]},p{seed},{part}" for seed, part in parts]
    (folder / "labels.csv").write_text("\n".join(["slide,label,patient,split", *rows]) + "\n")
    return folder / "labels.csv"


class Told:
    """Prints what a training says at its end."""

    def line(self, text: str) -> None:
        """Print notes and the last epochs."""
        print(" ", text, flush=True)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Say nothing."""
