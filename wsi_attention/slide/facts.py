"""What opening a slide tells; pixels play no part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from wsi_attention.geometry import Box
from wsi_attention.protocols import SlideReader


@dataclass(frozen=True)
class Facts:
    """A reader's metadata, kept so that it needs no open handle; the fields are `SlideReader`'s."""

    level_dimensions: tuple[tuple[int, int], ...]
    level_downsamples: tuple[float, ...]
    tile_sizes: tuple[tuple[int, int] | None, ...]
    properties: Mapping[str, str]
    bounds: Box | None
    associated: tuple[str, ...]

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
        )
