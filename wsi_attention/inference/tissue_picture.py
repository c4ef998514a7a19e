"""The tissue that `classify` looks for on a slide, as a picture for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsi_attention.errors import ResultsError
from wsi_attention.export.tissue_picture import draw_tissue, tissue_words
from wsi_attention.inference.picture import downsample_beside
from wsi_attention.slide.slide import Slide
from wsi_attention.tiles.source import SlideSource


def write_tissue(slide: Slide, path: str | Path) -> dict[str, Any]:
    """Find tissue as `classify` does, and write a picture of the mask over the overview as PNG.

    Returns:
        JSON-able: "share" of the slide in [0, 1], "mm2", "mpp" that it was found at, "words", "notes", "picture".

    Raises:
        MissingMppError: nobody says how large a pixel is.
        UnsupportedSlideError: not brightfield.
        TileReadError: the overview could not be read.
        ResultsError: the picture cannot be written.
    """
    source = SlideSource(slide)
    tissue, extent, mpp = source.tissue_mask, slide.dimensions, slide.mpp
    downsample = downsample_beside(slide, tissue)
    image = draw_tissue(tissue, source.overview_rgb(downsample), downsample, extent, mpp, slide.path)
    try:
        image.save(path, "PNG")
    except OSError as error:
        raise ResultsError(f"{path}: the picture cannot be written ({error.strerror or error})") from error
    return {
        "share": tissue.area / (extent[0] * extent[1]),
        "mm2": tissue.area * mpp**2 / 1e6,
        "mpp": tissue.downsample * mpp,
        "words": tissue_words(tissue, extent, mpp),
        "notes": list(tissue.notes),
        "picture": str(path),
    }
