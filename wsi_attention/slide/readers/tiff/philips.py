"""What Philips TIFFs say in XML: how far each level is coarser, the size of a pixel, label and macro.

Their directories count the padding of the last tiles as pixels; as in OpenSlide, level 0 and the pixel sizes tell
how large a level is.
"""

from __future__ import annotations

import base64
import binascii
import io
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import SlideOpenError, TileReadError
from wsi_attention.slide.metadata import number
from wsi_attention.slide.readers.limits import MAX_SEGMENT_PIXELS

Spacing = tuple[float, float]

PICTURES = {"label": "LABELIMAGE", "macro": "MACROIMAGE"}
_IMAGES = "./Attribute[@Name='PIM_DP_SCANNED_IMAGES']/Array/DataObject[@ObjectType='DPScannedImage']"
_LEVELS = (
    "./Attribute[@Name='PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE']/Array"
    "/DataObject[@ObjectType='PixelDataRepresentation']/Attribute[@Name='DICOM_PIXEL_SPACING']"
)


class PhilipsText:
    """The XML of a file.

    Attributes:
        spacings: mm per pixel of each level, as far as they are named.
        properties: the slide's own attributes, and µm per pixel, under OpenSlide's names.
        pictures: names of the pictures in it.
    """

    def __init__(self, text: str, path: str) -> None:
        """Parse the XML.

        Raises:
            SlideOpenError: no XML, or not of a slide.
        """
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise SlideOpenError(f"{path}: its XML defines entities, which no Philips file does; do not trust it")
        try:
            root = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise SlideOpenError(f"{path}: its XML is broken ({error}); the file is damaged") from error
        self._images = {_value(image, "PIM_DP_IMAGE_TYPE"): image for image in root.iterfind(_IMAGES)}
        slide = self._images.get("WSI")
        if root.get("ObjectType") != "DPUfsImport" or slide is None:
            raise SlideOpenError(f"{path}: its XML describes no slide; the file is damaged")
        self.spacings = [_spacing(node.text) for node in slide.iterfind(_LEVELS)]
        self.properties = {f"philips.{name}": text for name, text in (*_texts(root), *_texts(slide))}
        spacing = _spacing(self.properties.get("philips.DICOM_PIXEL_SPACING"))
        for axis, length in zip("xy", spacing or (), strict=False):
            self.properties[f"openslide.mpp-{axis}"] = f"{1000 * length:.17g}"
        self.pictures = [name for name, kind in PICTURES.items() if _value(self._images.get(kind), "PIM_DP_IMAGE_DATA")]

    def picture(self, name: str) -> NDArray[np.uint8]:
        """Return label or macro, (h, w, 3).

        Raises:
            TileReadError: damaged, or too large.
        """
        from PIL import Image

        try:
            content = base64.b64decode(_value(self._images.get(PICTURES[name]), "PIM_DP_IMAGE_DATA"))
            with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
                if image.width * image.height > MAX_SEGMENT_PIXELS:
                    raise TileReadError(f"{image.width}×{image.height} pixels, too large for a label or macro")
                return np.asarray(image.convert("RGB"))
        except (OSError, ValueError, binascii.Error, Image.DecompressionBombError) as error:
            raise TileReadError(str(error) or type(error).__name__) from error

    def levels(self, sizes: list[tuple[int, int]], path: str) -> tuple[list[float], list[tuple[int, int]]]:
        """Return downsamples, and sizes without padding, of levels with the given stored sizes.

        Raises:
            SlideOpenError: it does not say how large the pixels of each level are.
        """
        if len(self.spacings) != len(sizes) or None in self.spacings:
            raise SlideOpenError(
                f"{path}: its XML names {len(self.spacings)} pixel sizes for {len(sizes)} levels; the file is damaged"
            )
        spacings = [spacing for spacing in self.spacings if spacing is not None]
        finest = spacings[0]
        found = [(x / finest[0] + y / finest[1]) / 2 for x, y in spacings]
        return found, [(int(sizes[0][0] / each), int(sizes[0][1] / each)) for each in found]


def _value(image: ElementTree.Element | None, name: str) -> str:
    node = None if image is None else image.find(f"./Attribute[@Name='{name}']")
    return (node.text or "").strip() if node is not None else ""


def _texts(node: ElementTree.Element) -> list[tuple[str, str]]:
    """Return the names and texts of its own attributes, without lists and pictures."""
    return [
        (name, (attribute.text or "").strip())
        for attribute in node.iterfind("./Attribute")
        if (name := attribute.get("Name")) and not len(attribute) and name != "PIM_DP_IMAGE_DATA"
    ]


def _spacing(text: str | None) -> Spacing | None:
    """Return the two positive numbers in quotation marks."""
    values = [number(part) for part in (text or "").replace('"', " ").split()]
    if len(values) != 2 or values[0] is None or values[1] is None:
        return None
    return values[0], values[1]
