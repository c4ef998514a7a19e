"""Our slide as a `WSIReader` of TIAToolbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiatoolbox.utils.misc import mpp2common_objective_power
from tiatoolbox.wsicore.wsimeta import WSIMeta
from tiatoolbox.wsicore.wsireader import OpenSlideWSIReader, WSIReader

from wsi_attention import Slide, open_slide


class WsiAttentionReader(OpenSlideWSIReader):  # type: ignore[misc]
    """Reads whatever `wsi_attention.open_slide` reads, JPEG tiles through its `tiff` reader.

    Resolutions, padding and resampling are those of `OpenSlideWSIReader`; only the stored pixels come from elsewhere.
    `WSIReader.open` gives it back as it is, and engines take it in their list of images (see `KeepsReader`).
    Objective power is inferred from µm per pixel, as TIAToolbox does, but µm per pixel never from anything.

    Args:
        input_img: the slide.
        mpp: µm per level-0 pixel, one number or (x, y), in place of what the file says.
        power: objective power, in place of what the file says.
        post_proc: as in `WSIReader`.
        slide_reader: a reader of wsi-attention, or "auto".

    Raises:
        SlideError: the file cannot be opened, or is no RGB brightfield slide.
        FileNotFoundError: there is no such file.
    """

    def __init__(
        self,
        input_img: str | Path,
        mpp: Any = None,
        power: float | None = None,
        post_proc: Any = "auto",
        slide_reader: str = "auto",
    ) -> None:
        WSIReader.__init__(self, input_img=input_img, mpp=mpp, power=power, post_proc=post_proc)
        given = None if mpp is None else float(np.sqrt(np.prod(np.broadcast_to(mpp, 2))))
        self.slide = open_slide(str(input_img), reader=slide_reader, mpp=given)
        self.openslide_wsi = _AsOpenSlide(self.slide)

    def _info(self) -> WSIMeta:
        slide = self.slide
        mpp, power = slide.mpp_xy, slide.facts.objective_power
        if power is None and mpp is not None:
            power = float(mpp2common_objective_power(float(np.mean(mpp))))
        return WSIMeta(
            file_path=self.input_path,
            axes="YXS",
            objective_power=power,
            slide_dimensions=slide.dimensions,
            level_count=len(slide.level_dimensions),
            level_dimensions=slide.level_dimensions,
            level_downsamples=slide.level_downsamples,
            vendor=slide.facts.vendor or "unknown",
            mpp=mpp,
            raw=dict(slide.properties),
        )


class KeepsReader:
    """Lets an engine read patches through the `WSIReader` it is given: `class P(KeepsReader, PatchPredictor): ...`.

    TIAToolbox 2.1 takes dimensions and the mask from a reader in the list of images, but opens its path again, by its
    own choice of reader, for the patches.
    """

    def get_dataloader(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        """The engine's data loader, its data set with the reader that was given."""
        loader = super().get_dataloader(images, *args, **kwargs)  # type: ignore[misc]
        if isinstance(images, WSIReader):
            loader.dataset.reader = images
        return loader


class _AsOpenSlide:
    """The one method of an OpenSlide handle that `OpenSlideWSIReader` reads with; pickles, as the slide does."""

    def __init__(self, slide: Slide) -> None:
        self._slide = slide

    def read_region(self, location: Any, level: int, size: Any) -> NDArray[np.uint8]:
        """(h, w, 4), opaque everywhere: the slide is white where it has no pixels."""
        place, wanted = (int(location[0]), int(location[1])), (int(size[0]), int(size[1]))
        rgb = self._slide.read(place, int(level), wanted)
        return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
