"""The PatchCamelyon tiles of the needle benchmark, dealt out once: encoder, training slides, test slides.

No tile is in two of the three parts. "held" and "fresh" are the test part in two, for a threshold that is chosen on
tiles that neither the models nor the last figures have. Tiles are (96, 96, 3) uint8 at 0.97 µm/px; label 1 means that
the central 32 × 32 pixels hold metastasis.
"""

from __future__ import annotations

import csv
import io
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ARCHIVE = Path(__file__).resolve().parents[3] / "shared" / "data" / "labelled" / "pcam-shared.zip"
SIDE = 96
MPP = 0.97
SEED = 20_261_121
PARTS = {
    "encoder": (0.0, 1 / 3),
    "train": (1 / 3, 0.70),
    "test": (0.70, 1.0),
    "held": (0.70, 0.80),
    "fresh": (0.80, 1.0),
}
"""Shares of each class's shuffled tiles."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """One part of the tiles.

    Attributes:
        pixels: (n, 96, 96, 3) uint8.
        labels: (n,) int64, 1 for tumour.
        names: the data set's ids.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    def of(self, label: int) -> NDArray[np.int64]:
        """Indices of the tiles of a class."""
        return np.flatnonzero(self.labels == label)


@cache
def load(part: str, archive: Path = ARCHIVE) -> Tiles:
    """The tiles of a part, normal ones first, in a fixed order."""
    low, high = PARTS[part]
    with zipfile.ZipFile(archive) as file:
        rows = list(csv.DictReader(io.TextIOWrapper(file.open("labels.csv"), "utf-8")))
        chosen: list[dict[str, str]] = []
        for label in "01":
            ours = sorted((row for row in rows if row["label"] == label), key=lambda row: row["id"])
            order = np.random.default_rng(SEED).permutation(len(ours))
            chosen += [ours[i] for i in order[round(low * len(ours)) : round(high * len(ours))]]
        pixels = np.stack([np.asarray(Image.open(file.open(row["file"])).convert("RGB")) for row in chosen])
    return Tiles(pixels, np.array([int(row["label"]) for row in chosen]), tuple(row["id"] for row in chosen))
