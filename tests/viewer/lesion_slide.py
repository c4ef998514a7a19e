"""A slide with a square lesion in a known place, a prediction that points at it, and where colours lie on a screen."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from wsi_attention.export.record import to_record
from wsi_attention.export.table import figures
from wsi_attention.geometry import Box, Grid
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.inference.results.slide_key import first_look, second_look
from wsi_attention.inference.results.state import RunKey, SlideKey, State, to_text
from wsi_attention.slide.slide import open_slide
from wsi_attention.structures import AttentionMap, Counters, Glimpse, Prediction, TileSet, TissueMask

EXTENT = 3001, 2203
LESION = Box(1540, 904, 256, 256)
GRID = Grid(8, 11, (256.0, 256.0), (4.0, 136.0))
"""Its cell (3, 6) is the lesion, which every level of the slide shows at whole pixels."""
BLUE = (20, 30, 200)


def write_slide(path: Path, shade: int = 0) -> Path:
    """A pyramid of three levels, lossless: pink, and a blue square where the lesion is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_slide(shade))
    return path


@cache
def _slide(shade: int) -> bytes:
    pixels = np.full((EXTENT[1], EXTENT[0], 3), (230, 150 + shade, 190), np.uint8)
    pixels[LESION.y : LESION.y + LESION.h, LESION.x : LESION.x + LESION.w] = BLUE
    written = io.BytesIO()
    with tifffile.TiffWriter(written) as file:
        for step in (1, 2, 4):
            more = {"subfiletype": 1} if step > 1 else {}
            file.write(
                pixels[::step, ::step],
                tile=(256, 256),
                photometric="rgb",
                compression="zlib",
                resolution=(20000 / step, 20000 / step),
                resolutionunit="CENTIMETER",
                metadata=None,
                **more,
            )
    return written.getvalue()


def prediction_of(slide: Path, fingerprint: str) -> Prediction:
    """A prediction whose attention and heaviest tile are the lesion."""
    attention = np.full(GRID.shape, 0.2 / (GRID.rows * GRID.cols), np.float32)
    attention[3, 6] = 0.8
    locations = np.array([[LESION.x, LESION.y], [4, 136], [2820, 1928]])
    tiles = TileSet(locations, (128, 128), 2.0)
    weights = np.array([0.9, 0.07, 0.03])
    return Prediction(
        slide=str(slide),
        extent=EXTENT,
        mpp=0.5,
        bounds=(0, 0),
        classes=("benign", "lesion"),
        probabilities=np.array([0.1, 0.9]),
        spread=0.01,
        glimpses=(Glimpse(tiles, weights, np.array([0.8, 0.002, 0.002]), np.ones(3, bool)),),
        maps=(AttentionMap(attention, GRID),),
        tissue=TissueMask(np.ones((138, 188), bool), 16.0),
        counters=Counters(3, 3 * 128 * 128),
        overview_pixels=100,
        provenance={"fingerprint": fingerprint, "reader": "tiff", "weights_sha256": "ab" * 32},
    )


def key_of(slide: Path, prediction: Prediction | None) -> SlideKey:
    """What a result of the slide as it is now depends on; of a slide that is not there, what the prediction says."""
    if prediction is None:
        return SlideKey()
    if not slide.exists():
        return SlideKey(str(prediction.provenance["fingerprint"]))
    with open_slide(slide) as opened:
        key = second_look(first_look(SlideFile(str(slide), slide.name)), opened, str(slide))
    return replace(key, fingerprint=str(prediction.provenance["fingerprint"]))


def write_state(results: Path, name: str, slide: Path, prediction: Prediction | None) -> None:
    key = key_of(slide, prediction)
    run = RunKey("demo", "ab" * 32, {"classes": ["benign", "lesion"], "precision": "32"})
    state = State(
        name,
        str(slide),
        "done" if prediction else "failed",
        "" if prediction else "cannot be opened: truncated",
        run,
        key,
        row=figures(prediction) if prediction else {},
        record=to_record(prediction) if prediction else None,
    )
    path = results / "states" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_text(state))


def pixels_of(png: bytes) -> NDArray[np.int16]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(np.int16)


def box_of(pixels: NDArray[np.int16], colour: tuple[int, int, int], reach: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom (exclusive) of all pixels near a colour."""
    near = np.abs(pixels - np.array(colour)).max(axis=-1) <= reach
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    assert rows.size, f"no pixel is near {colour}"
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def assert_close(found: tuple[float, ...], expected: tuple[float, ...], within: float = 1.0) -> None:
    assert np.abs(np.subtract(found, expected)).max() <= within, f"{found} is not {expected}"
