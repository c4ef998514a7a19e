"""A small Philips TIFF: padded levels, their scales in XML, label and macro as JPEG in the XML."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from tiff_kinds import jpeg_encoder, tiles_of

Pixels = NDArray[np.uint8]
TILE = 64


def write_philips(path: Path, levels: Sequence[Pixels], mpp: float, picture: Pixels) -> Path:
    """Write levels, finest first, each half of the one before, and one picture as both label and macro."""
    encode = jpeg_encoder("YCBCR", "420")
    text = philips_text(len(levels), mpp, picture)
    with tifffile.TiffWriter(path) as file:
        for index, level in enumerate(levels):
            short = (-level.shape[0] % TILE, -level.shape[1] % TILE)
            padded = np.pad(level, ((0, short[0]), (0, short[1]), (0, 0)), constant_values=255)
            file.write(
                iter([encode(tile) for tile in tiles_of(padded, TILE)]),
                shape=padded.shape, dtype=np.uint8, tile=(TILE, TILE), photometric="ycbcr", subsampling=(2, 2),
                compression="jpeg", subfiletype=int(index > 0), software="Philips DP v1.0", metadata=None,
                description=text if index == 0 else f"level={index}",
            )  # fmt: skip
    return path


def philips_text(levels: int, mpp: float, picture: Pixels) -> str:
    """The XML of the first directory."""
    spacings = "".join(
        _data("PixelDataRepresentation", _spacing(mpp * 2**level) + _attribute("PIIM_PIXEL_DATA_NUMBER", str(level)))
        for level in range(levels)
    )
    sequence = _attribute("PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE", f"<Array>{spacings}</Array>")
    stream = bytes(imagecodecs.jpeg_encode(picture, colorspace="RGB", outcolorspace="YCBCR", subsampling="444"))
    shown = _attribute("PIM_DP_IMAGE_DATA", base64.b64encode(stream).decode())
    images = _image("WSI", _spacing(mpp) + sequence) + _image("MACROIMAGE", shown) + _image("LABELIMAGE", shown)
    scanned = _attribute("PIM_DP_SCANNED_IMAGES", f"<Array>{images}</Array>")
    return '<?xml version="1.0" encoding="UTF-8" ?>' + _data("DPUfsImport", scanned)


def _image(kind: str, content: str) -> str:
    return _data("DPScannedImage", _attribute("PIM_DP_IMAGE_TYPE", kind) + content)


def _spacing(mpp: float) -> str:
    return _attribute("DICOM_PIXEL_SPACING", f"&quot;{mpp / 1000:.8g}&quot; &quot;{mpp / 1000:.8g}&quot;")


def _attribute(name: str, content: str) -> str:
    return f'<Attribute Name="{name}" Group="0x301D" Element="0x1003" PMSVR="IString">{content}</Attribute>'


def _data(kind: str, content: str) -> str:
    return f'<DataObject ObjectType="{kind}">{content}</DataObject>'
