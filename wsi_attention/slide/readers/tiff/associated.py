"""Label, macro and thumbnail of a TIFF, through tifffile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import TileReadError
from wsi_attention.slide.readers.byte_ranges import ByteRanges
from wsi_attention.slide.readers.limits import MAX_SEGMENT_PIXELS
from wsi_attention.slide.readers.tiff.philips import PhilipsText
from wsi_attention.slide.readers.tiff.tags import IN_TEXT, pages_of


def read_associated(source: ByteRanges, name: str, directory: int) -> NDArray[np.uint8]:
    """An image in a directory of its own, or in the first one's XML, (h, w, 3).

    Raises:
        TileReadError: too large, no RGB, or damaged.
    """
    import tifffile

    try:
        with source.file() as stream, tifffile.TiffFile(stream, name=source.path) as tif:
            if directory == IN_TEXT:
                return PhilipsText(tif.pages.first.description, source.path).picture(name)
            page = pages_of(tif, source.path)[directory]
            if page.imagewidth * page.imagelength > MAX_SEGMENT_PIXELS:
                raise TileReadError(f"{page.imagewidth}×{page.imagelength} pixels, too large for a label or macro")
            pixels = page.asarray()
    except TileReadError:
        raise
    except Exception as error:  # tifffile and the codecs raise whatever a damaged image leads them to
        raise TileReadError(str(error) or type(error).__name__) from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise TileReadError(f"an image of {pixels.dtype} {pixels.shape}, no RGB")
    return np.ascontiguousarray(pixels)
