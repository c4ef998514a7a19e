"""OME-TIFF keeps its smaller levels in SubIFDs, where OpenSlide does not look."""

from __future__ import annotations

import numpy as np

from wsi_attention.protocols import SlideReader
from wsi_attention.slide.images import Series
from wsi_attention.slide.readers.openslide import OpenSlideReader, vendor_of
from wsi_attention.slide.resample import on_white


def levels_hidden_from_openslide(path: str, series: Series = None) -> bool:
    """Tell whether tiffslide sees more levels of a generic TIFF than OpenSlide, with the same pixels at level 0."""
    if vendor_of(path) != "generic-tiff" or not _has_subifds(path):
        return False
    from wsi_attention.slide.readers.tiffslide import TiffSlideReader

    try:
        few, many = OpenSlideReader(path, series), TiffSlideReader(path, series)
    except Exception:  # whatever is wrong, opening it with OpenSlide says so
        return False
    try:
        return len(many.level_dimensions) > len(few.level_dimensions) and _same_centre(few, many)
    finally:
        few.close()
        many.close()


def _has_subifds(path: str) -> bool:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            return bool(tif.pages.first.subifds)
    except Exception:  # a file tifffile cannot parse is no OME-TIFF
        return False


def _same_centre(one: SlideReader, other: SlideReader) -> bool:
    if one.level_dimensions[0] != other.level_dimensions[0]:
        return False
    w, h = one.level_dimensions[0]
    place = (max(w // 2 - 32, 0), max(h // 2 - 32, 0))
    try:
        first, second = (on_white(reader.read(place, 0, (64, 64))) for reader in (one, other))
    except Exception:  # an unreadable tile decides nothing
        return False
    return bool(np.array_equal(first, second))
