"""What an open slide says of itself: dimensions, levels, scale, origin; pixels play no part."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

from wsi_attention.errors import MissingMppError
from wsi_attention.geometry import Box
from wsi_attention.once import once
from wsi_attention.slide import fingerprint, metadata
from wsi_attention.slide.facts import Facts
from wsi_attention.slide.images import StoredImage
from wsi_attention.slide.levels import best_level, snapped
from wsi_attention.slide.scale_checks import scale_doubts


class Described(ABC):
    """The part of a slide that needs its metadata alone.

    Attributes:
        path: as messages name the slide.
        strange: levels whose pixels do not belong to the slide, and what they show instead.
    """

    path: str
    strange: Mapping[int, str]
    _given: float | None
    """µm per level-0 pixel that the caller gave, in place of what the file says."""

    @property
    @abstractmethod
    def _facts(self) -> Facts: ...

    @property
    def dimensions(self) -> tuple[int, int]:
        """(w, h) of level 0."""
        return self._facts.level_dimensions[0]

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """(w, h) of each level, finest first."""
        return self._facts.level_dimensions

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """Level-0 pixels per pixel of each level, as the file says; not powers of two."""
        return self._facts.level_downsamples

    @property
    def left_out(self) -> tuple[str, ...]:
        """Which levels are not read because they do not belong to the slide, and why, a sentence for each reason."""
        levels: dict[str, list[int]] = {}
        for level, why in sorted((self._facts.misshapen() | dict(self.strange)).items()):
            levels.setdefault(why, []).append(level)
        return tuple(
            f"level{'s' if len(which) > 1 else ''} {', '.join(map(str, which))} left out: {why}"
            for why, which in levels.items()
        )

    @property
    def levels(self) -> tuple[int, ...]:
        """Indices of the levels that are read, finest first: all but those left out."""
        without = self._facts.misshapen().keys() | self.strange.keys()
        return tuple(level for level in range(len(self.level_dimensions)) if level not in without)

    def snapped(self, downsample: float) -> float:
        """The downsample of a level that is read, within 5 % of the wanted one; else the wanted one, at least 1."""
        return snapped([self.level_downsamples[level] for level in self.levels], downsample)

    def best_level(self, downsample: float) -> int:
        """The coarsest level that is read and at least as fine as wanted."""
        return self.levels[best_level([self.level_downsamples[level] for level in self.levels], downsample)]

    @property
    def tile_sizes(self) -> tuple[tuple[int, int] | None, ...]:
        """Stored tile size (w, h) of each level; None where it has none."""
        return self._facts.tile_sizes

    @property
    def properties(self) -> Mapping[str, str]:
        """The file's own tags."""
        return self._facts.properties

    @property
    def bounds(self) -> Box | None:
        """The scanned area that the file names, in level-0 pixels."""
        return self._facts.bounds

    @property
    def associated(self) -> tuple[str, ...]:
        """Names of label, macro and thumbnail images."""
        return self._facts.associated

    @property
    def images(self) -> tuple[StoredImage, ...]:
        """All images of the file, as far as its reader lists them."""
        return self._facts.images

    @property
    def image(self) -> int:
        """The index of the one that is the slide."""
        return self._facts.image

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
        return fingerprint.series_id(self.properties)

    @once
    def _mpp(self) -> metadata.Mpp:
        if self._given is not None:
            return metadata.Mpp((self._given, self._given), "given")
        return metadata.file_mpp(self.properties)

    @property
    def mpp(self) -> float:
        """µm per level-0 pixel: the geometric mean of x and y.

        Raises:
            MissingMppError: neither the file nor the caller says.
        """
        if self._mpp.xy is None:
            raise MissingMppError(
                f"{self.path}: {self._no_scale}; give µm per pixel with --mpp, a mpp column in the slides CSV,"
                " or open_slide(path, mpp=…)"
            )
        x, y = self._mpp.xy
        return x if x == y else math.sqrt(x * y)

    @property
    def mpp_xy(self) -> tuple[float, float] | None:
        """µm per level-0 pixel in x and y; None where unknown."""
        return self._mpp.xy

    @property
    def mpp_source(self) -> str:
        """Which tag mpp comes from; "given" by the caller, or "none"."""
        return self._mpp.source

    @property
    def _no_scale(self) -> str:
        silent = "the file does not say how large a pixel is"
        return f"{silent}: {self._mpp.disbelieved}" if self._mpp.disbelieved else silent

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results should know of how the slide was opened, and of levels left out, a sentence each."""
        scale = metadata.mpp_notes(self._mpp, metadata.file_mpp(self.properties))
        doubts = scale_doubts(self._mpp, self.properties, self.dimensions)
        return (*self._facts.notes, *self.left_out, *scale, *doubts)

    def oddities(self) -> tuple[str, ...]:
        """What is odd about the slide, its notes among it, a sentence each; empty where nothing is."""
        unknown = () if self._mpp.xy else (f"{self._no_scale} (no mpp)",)
        return (*self.notes, *self._facts.oddities(), *unknown)
