"""Small stained slides and a small model for the inference tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from wsi_attention.checkpoint import Classifier, build_model, load_model, save_model
from wsi_attention.model_card import ModelCard

WriteSlide = Callable[..., Path]


def write_stained(path: Path, seed: int = 0, side: int = 768, mpp: float | None = 0.5, tissue: bool = True) -> Path:
    """A tiled, pyramidal TIFF: a pink disc with purple dots on white."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    disc = (y - side / 2) ** 2 + (x - side / 2) ** 2 < (0.4 * side) ** 2
    pixels = np.full((side, side, 3), 243, np.uint8)
    if tissue:
        pixels[disc] = (218, 130, 180)
        nuclei = np.kron(random.random((side // 8, side // 8)) < 0.2, np.ones((8, 8), bool))
        pixels[disc & nuclei] = (95, 55, 140)
    pixels = np.clip(pixels + random.integers(-6, 7, pixels.shape), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    scale = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"} if mpp else {}
    with tifffile.TiffWriter(path) as writer:
        for level in (pixels, pixels[::4, ::4]):
            writer.write(level, tile=(128, 128), photometric="rgb", compression="zlib", **scale)
    return path


@pytest.fixture(scope="session")
def write_slide() -> WriteSlide:
    """`write_stained`."""
    return write_stained


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """A model with random weights that reads eight tiles of 32 pixels, loaded from a folder."""
    arguments = {
        "tile_size": 32,
        "overview_mpp": 4.0,
        "draws": 8,
        "encoder_widths": [8, 8, 8],
        "features": 16,
        "attention_widths": [8, 8],
    }
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    card = ModelCard(method="ats", classes=("benign", "lesion"), arguments=arguments)
    save_model(folder, build_model("ats", 2, **arguments), card)
    return load_model(folder)
