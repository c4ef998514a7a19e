"""Our slide as a reader of wsidata, so that LazySlide reads through it: `open_wsi(path, reader="wsi-attention")`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from wsidata.reader import READERS, ReaderBase, SlideProperties
from wsidata.reader.base import AssociatedImages

from wsi_attention import Slide, View, open_slide

NAME = "wsi-attention"


class WsiAttentionReader(ReaderBase):  # type: ignore[misc]
    """Reads whatever `wsi_attention.open_slide` reads, JPEG tiles through its `tiff` reader.

    wsidata uses it only where its name is given: installing this package changes no reading.

    Args:
        file: the slide.
        slide_reader: a reader of wsi-attention, or "auto".
        mpp: µm per level-0 pixel, in place of what the file says.
        **kwargs: options meant for other readers of wsidata; ignored, as wsidata asks.

    Raises:
        SlideError: the file cannot be opened, or is no RGB brightfield slide.
    """

    name = NAME
    pkg_namespaces = "wsi_attention"
    pkgs = "wsi-attention"
    extensions = None

    def __init__(
        self, file: str | Path, slide_reader: str = "auto", mpp: float | None = None, **kwargs: object
    ) -> None:
        del kwargs
        self.file = str(file)
        self._options = slide_reader, mpp
        self.create_reader()
        self.set_properties(_properties(self.slide))

    @property
    def slide(self) -> Slide:
        """The slide itself, opened again where it has been closed."""
        slide: Slide = self.reader
        return slide

    def create_reader(self) -> None:
        """Open the slide."""
        slide_reader, mpp = self._options
        self.set_reader(open_slide(self.file, reader=slide_reader, mpp=mpp))

    def detach_reader(self) -> None:
        """Closes the slide."""
        if self._reader is not None:
            self._reader.close()
            self.set_reader(None)

    def get_region(
        self, x: float, y: float, width: int, height: int, level: int = 0, **kwargs: object
    ) -> NDArray[np.uint8]:
        """(height, width, 3) of a level: x and y in level-0 pixels, white outside the slide and where it has none."""
        del kwargs
        place, size = (int(x), int(y)), (int(width), int(height))
        return self.slide.read(place, int(self.translate_level(level)), size)

    def get_thumbnail(self, size: int, **kwargs: object) -> NDArray[np.uint8]:
        """The whole slide, its longer side `size` pixels.

        Raises:
            ValueError: the slide is smaller than that.
        """
        del kwargs
        width, height = self.slide.dimensions
        if size > min(width, height):
            raise ValueError(f"{self.file}: a thumbnail of {size} pixels was asked, the slide has {width}×{height}")
        longer = max(width, height)
        view = View(self.slide, longer / size).read_whole()
        return view[: max(1, size * height // longer), : max(1, size * width // longer)]

    @property
    def associated_images(self) -> AssociatedImages:
        """Label, macro and the like by name."""
        if self._associated_images is None:
            images = {name: Image.fromarray(self.slide.read_associated(name)) for name in self.slide.facts.associated}
            self._associated_images = AssociatedImages(images)
        return self._associated_images


def _properties(slide: Slide) -> SlideProperties:
    width, height = slide.dimensions
    return SlideProperties(
        shape=[height, width],
        n_level=len(slide.level_dimensions),
        level_shape=[[h, w] for w, h in slide.level_dimensions],
        level_downsample=list(slide.level_downsamples),
        mpp=None if slide.mpp_xy is None else slide.mpp,
        magnification=slide.facts.objective_power,
        bounds=[int(value) for value in slide.facts.bounds or (0, 0, width, height)],
        raw=json.dumps(dict(slide.properties)),
    )


if NAME not in READERS:
    READERS[NAME] = WsiAttentionReader
