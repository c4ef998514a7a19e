"""What opening a slide tells; pixels play no part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from wsi_attention.geometry import MPP_TOLERANCE, Box
from wsi_attention.protocols import SlideReader
from wsi_attention.slide import metadata
from wsi_attention.slide.images import ImagesReader, StoredImage


@dataclass(frozen=True)
class Facts:
    """A reader's metadata, kept so that it needs no open handle.

    Attributes:
        level_dimensions: (w, h) of each level, finest first.
        level_downsamples: level-0 pixels per pixel of each level, as the file says; not powers of two.
        tile_sizes: stored tile size (w, h) of each level; None where it has none.
        properties: the file's own tags, under their OpenSlide names where there is one.
        bounds: the scanned area that the file names, in level-0 pixels.
        associated: names of label, macro and thumbnail images.
        notes: what a reader of results should know of how the file was read, a sentence each.
        images: all images of the file, as far as its reader lists them.
        image: the index of the one that is the slide.
    """

    level_dimensions: tuple[tuple[int, int], ...]
    level_downsamples: tuple[float, ...]
    tile_sizes: tuple[tuple[int, int] | None, ...]
    properties: Mapping[str, str]
    bounds: Box | None
    associated: tuple[str, ...]
    notes: tuple[str, ...] = ()
    images: tuple[StoredImage, ...] = ()
    image: int = 0

    @classmethod
    def of(cls, reader: SlideReader) -> Self:
        """Return a copy of a reader's metadata."""
        return cls(
            tuple((int(w), int(h)) for w, h in reader.level_dimensions),
            tuple(float(downsample) for downsample in reader.level_downsamples),
            tuple(reader.tile_sizes),
            MappingProxyType(dict(reader.properties)),
            reader.bounds,
            tuple(reader.associated),
            *_images_of(reader),
        )

    @property
    def vendor(self) -> str | None:
        """Who wrote the file; None where that is unknown."""
        return self.properties.get("openslide.vendor")

    @property
    def objective_power(self) -> float | None:
        """The objective's magnification; None where the file does not say."""
        return metadata.objective_power(self.properties)

    @property
    def series_id(self) -> str | None:
        """The DICOM series that this file is an instance of; None for slides of one file."""
        return self.properties.get("dicom.SeriesInstanceUID")

    def misshapen(self) -> dict[int, str]:
        """Return the levels whose sides are not in the proportion of level 0's, and how they are.

        A difference of 5 % and one pixel is allowed.
        """
        found = {}
        for level, (w, h) in enumerate(self.level_dimensions[1:], 1):
            across, down = (whole / side for whole, side in zip(self.level_dimensions[0], (w, h), strict=True))
            pixel = 1 / w + 1 / h
            if max(across, down) / min(across, down) > 1 + MPP_TOLERANCE + pixel:
                found[level] = f"{across:.3g}× smaller than level 0 across and {down:.3g}× down"
        return found

    def oddities(self) -> tuple[str, ...]:
        """Say what is odd about the levels and bounds, a sentence each; empty where nothing is."""
        found = []
        if len(self.level_dimensions) == 1:
            found.append("one level only: coarse views are computed from full resolution")
        steps = zip(self.level_downsamples[1:], self.level_downsamples[:-1], strict=True)
        if any(coarse / fine > 8 for coarse, fine in steps):
            found.append("levels are more than 8× apart: views between them read many pixels")
        if self.tile_sizes[0] is None:
            found.append("level 0 is not tiled: every read decodes whole strips")
        if self.bounds is not None and tuple(self.bounds) != (0, 0, *self.level_dimensions[0]):
            x, y, w, h = self.bounds
            found.append(f"only {w}×{h} pixels at ({x}, {y}) were scanned (bounds)")
        return tuple(found)


def _images_of(reader: SlideReader) -> tuple[tuple[str, ...], tuple[StoredImage, ...], int]:
    """Return the notes, the images and the index of the slide among them; most readers know of one image."""
    if isinstance(reader, ImagesReader):
        return tuple(reader.notes), tuple(reader.images), reader.image
    return (), (StoredImage(0, "", reader.level_dimensions[0], len(reader.level_dimensions)),), 0
