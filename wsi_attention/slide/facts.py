"""What opening a slide tells; pixels play no part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from wsi_attention.geometry import MPP_TOLERANCE, Box
from wsi_attention.protocols import SlideReader
from wsi_attention.slide.images import StoredImage


@dataclass(frozen=True)
class Facts:
    """A reader's metadata, kept so that it needs no open handle; the fields are `SlideReader`'s."""

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
        """A reader's, copied."""
        return cls(
            tuple((int(w), int(h)) for w, h in reader.level_dimensions),
            tuple(float(downsample) for downsample in reader.level_downsamples),
            tuple(reader.tile_sizes),
            MappingProxyType(dict(reader.properties)),
            reader.bounds,
            tuple(reader.associated),
            tuple(getattr(reader, "notes", ())),
            tuple(getattr(reader, "images", ())) or (_only_image(reader),),
            int(getattr(reader, "image", 0)),
        )

    def misshapen(self) -> dict[int, str]:
        """Levels whose sides are not in the proportion of level 0's, by more than 5 % and a pixel, and how they are."""
        found = {}
        for level, (w, h) in enumerate(self.level_dimensions[1:], 1):
            across, down = (whole / side for whole, side in zip(self.level_dimensions[0], (w, h), strict=True))
            pixel = 1 / w + 1 / h
            if max(across, down) / min(across, down) > 1 + MPP_TOLERANCE + pixel:
                found[level] = f"{across:.3g}× smaller than level 0 across and {down:.3g}× down"
        return found

    def oddities(self) -> tuple[str, ...]:
        """What is odd about the levels and bounds, a sentence each; empty where nothing is."""
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


def _only_image(reader: SlideReader) -> StoredImage:
    return StoredImage(0, "", reader.level_dimensions[0], len(reader.level_dimensions))
