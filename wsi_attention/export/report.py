"""A slide's own page of the report: its pictures and the text beside them, one file that opens anywhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_attention.export.heatmap import overview_downsample
from wsi_attention.export.layers import Layer, attention_layer, boxes, jpeg_bytes, unseen_layer
from wsi_attention.export.legend import length_text, round_length, ticks
from wsi_attention.export.measures import area_read
from wsi_attention.export.report_part import FORMAT, TOP, Bar, LayerPart, Part, TilePart
from wsi_attention.export.report_section import slide_page
from wsi_attention.structures import Prediction

LARGE = 900
"""Longer side in pixels of the overview."""
TILE_SIDE = 384
"""Longer side in pixels of a tile's picture, half as much again at most; a larger tile is shown coarser, and the page
says how coarse."""


def shown_boxes(prediction: Prediction) -> NDArray[np.int64]:
    """Return (n, 4) x, y, w, h in level-0 pixels of the tiles that weigh most, heaviest first, at most `TOP`."""
    top = [one for one in boxes(prediction) if one["rank"] is not None][:TOP]
    return np.array([[one["x"], one["y"], one["w"], one["h"]] for one in top], np.int64).reshape(-1, 4)


def shown_downsample(box: NDArray[np.int64]) -> float:
    """Return level-0 pixels per pixel of a tile's picture: a whole number, which makes it about `TILE_SIDE` large."""
    return float(max(1, round(int(max(box[2:])) / TILE_SIDE)))


class ReportExporter:
    """Writes a slide's own page; `inference.results.page` makes one page of a few, and the list of many."""

    suffix: ClassVar[str] = "report/{slide}.html"

    def __call__(
        self,
        prediction: Prediction,
        path: str | Path,
        overview: NDArray[np.uint8] | None = None,
        tiles: Sequence[NDArray[np.uint8] | None] = (),
        slide_name: str = "",
    ) -> None:
        """Write the file; the same prediction and pixels give the same bytes.

        Args:
            prediction: what to show.
            path: where to write.
            overview: (h, w, 3) uint8, the whole slide; without it the tissue mask stands in.
            tiles: pixels (h, w, 3) of each of `shown_boxes`, None where they could not be read.
            slide_name: the slide's name in the results folder; if empty, that of its file.
        """
        part = _part(prediction, overview, tiles)
        if prediction.target != "label":
            part |= {"called": bool(prediction.called), "values": list(prediction.values)}
        name = slide_name or prediction.slide.replace("\\", "/").rpartition("/")[2]
        with Path(path).open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.writelines(slide_page(name, part))


def _part(
    prediction: Prediction, overview: NDArray[np.uint8] | None, tiles: Sequence[NDArray[np.uint8] | None]
) -> Part:
    read = [glimpse.valid for glimpse in prediction.glimpses]
    whole, attention = _whole(prediction, overview), attention_layer(prediction)
    marks = ticks(attention.top) if attention else []
    return {
        "format": FORMAT,
        "width": prediction.extent[0],
        "height": prediction.extent[1],
        "mpp": prediction.mpp,
        "label": prediction.label,
        "classes": list(prediction.classes),
        "probabilities": [float(share) for share in prediction.probabilities],
        "spread": prediction.spread,
        "unread_mass": prediction.unread_mass,
        "among": None if prediction.among is None else list(prediction.among),
        "unlike": prediction.unlike,
        "purpose": prediction.purpose,
        "tiles_read": sum(int(valid.sum()) for valid in read),
        "tiles_asked": sum(len(valid) for valid in read),
        "area_read": area_read(prediction),
        "bar": _scale_bar(prediction.extent[0], prediction.mpp),
        "notes": list(prediction.remarks),
        "provenance": dict(prediction.provenance),
        "overview": _encoded(jpeg_bytes(_within(whole, LARGE), 82)),
        "from_slide": overview is not None,
        "attention": _layer(attention),
        "ticks": [(mark, float(np.log(mark) / np.log(attention.top))) for mark in marks] if attention else [],
        "unseen": _layer(unseen_layer(prediction)),
        "boxes": boxes(prediction),
        "tiles": _tiles(prediction, tiles),
    }


def _scale_bar(width: int, mpp: float) -> Bar:
    """Return a round length of at most a fifth of the slide's width, as text and in level-0 pixels."""
    length = round_length(max(width * mpp / 5, 1e-3))
    return {"text": length_text(length), "pixels": length / mpp}


def _whole(prediction: Prediction, overview: NDArray[np.uint8] | None) -> Image.Image:
    """Return the overview, cut to the slide where its last row and column reach beyond; without one, tissue in pink."""
    if overview is None:
        tissue = np.array([[250, 250, 250], [232, 205, 218]], np.uint8)[prediction.tissue.mask.astype(np.uint8)]
        picture, downsample = Image.fromarray(tissue), prediction.tissue.downsample
    else:
        picture = Image.fromarray(np.ascontiguousarray(overview[..., :3]))
        downsample = overview_downsample(picture.size, prediction)
    shown = [min(e / downsample, float(p)) for e, p in zip(prediction.extent, picture.size, strict=True)]
    scale = min(1.0, LARGE / max(shown))
    size = max(1, round(shown[0] * scale)), max(1, round(shown[1] * scale))
    if scale == 1.0:
        return picture.crop((0, 0, *size))
    return picture.resize(size, Image.Resampling.BICUBIC, box=(0, 0, shown[0], shown[1]), reducing_gap=2.0)


def _within(picture: Image.Image, longest: int) -> NDArray[np.uint8]:
    scale = min(1.0, longest / max(picture.size))
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return np.asarray(picture if scale == 1.0 else picture.resize(size, Image.Resampling.BOX))


def _tiles(prediction: Prediction, tiles: Sequence[NDArray[np.uint8] | None]) -> list[TilePart]:
    """Return rank, mpp and picture of each of `shown_boxes`; their coordinates are in the list of boxes."""
    found: list[TilePart] = []
    for number, box in enumerate(shown_boxes(prediction)):
        pixels = tiles[number] if number < len(tiles) else None
        picture = None if pixels is None else _encoded(jpeg_bytes(pixels, 88))
        found.append({"rank": number + 1, "mpp": shown_downsample(box) * prediction.mpp, "jpeg": picture})
    return found


def _layer(layer: Layer | None) -> LayerPart | None:
    if layer is None:
        return None
    x, y, w, h = map(float, layer.place)
    return {"png": _encoded(layer.png), "name": layer.name, "top": layer.top, "x": x, "y": y, "w": w, "h": h}


def _encoded(picture: bytes) -> str:
    return base64.b64encode(picture).decode("ascii")
