"""Every error a user can meet: one family, each also the fitting built-in."""

from __future__ import annotations

__all__ = [
    "ClusterError",
    "GeoJSONError",
    "InputError",
    "MissingExtraError",
    "MissingMppError",
    "ModelError",
    "NoTissueError",
    "OutOfMemoryError",
    "ResultsError",
    "SeveralImagesError",
    "SlideError",
    "SlideOpenError",
    "TileReadError",
    "UnsupportedSlideError",
    "WsiAttentionError",
]


class WsiAttentionError(Exception):
    """Base of all errors raised on purpose; its text is one line a user can act on."""


class SlideError(WsiAttentionError, ValueError):
    """Something about one slide: it can fail alone while the rest of a batch goes on."""


class SlideOpenError(SlideError, OSError):
    """The file is missing, broken, or in no format that a reader knows."""


class UnsupportedSlideError(SlideError):
    """The file is sound, but it is no RGB brightfield slide."""


class SeveralImagesError(SlideError):
    """The file holds several images that could be the slide, and nobody said which one is."""


class MissingMppError(SlideError):
    """The file does not say how large a pixel is, and nobody else did."""


class TileReadError(SlideError, OSError):
    """Pixels at one place could not be read or decoded."""


class NoTissueError(SlideError):
    """The tissue mask is empty: there is nothing to look at."""


class ModelError(WsiAttentionError, ValueError):
    """A model folder that cannot be used: missing, foreign, of another version, weights that do not fit."""


class InputError(WsiAttentionError, ValueError):
    """What the caller gave is wrong: an option, a CSV, a recipe, a path."""


class ClusterError(WsiAttentionError, OSError):
    """A scheduler or its workers cannot be reached, or cannot do the work."""


class OutOfMemoryError(WsiAttentionError, MemoryError):
    """Not even the smallest part of the work fits into memory."""


class ResultsError(WsiAttentionError, OSError):
    """The results folder cannot be written, or holds the results of something else."""


class GeoJSONError(WsiAttentionError, ValueError):
    """Objects that QuPath would drop, reclassify or refuse."""


class MissingExtraError(WsiAttentionError, ImportError):
    """An optional package is needed; the text names the command that installs it."""
