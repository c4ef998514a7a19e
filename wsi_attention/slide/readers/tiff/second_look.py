"""A TIFF in OpenSlide's hands, judged by its index: what OpenSlide opens all too readily, and what stops it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_attention.errors import SlideOpenError, UnsupportedSlideError
from wsi_attention.slide.readers.tiff.checks import (
    SOME_LOST,
    check_chain,
    check_kind,
    check_levels,
    check_segments,
    check_single_plane,
    series_levels,
)
from wsi_attention.slide.readers.tiff.index import remembers

if TYPE_CHECKING:
    from tifffile import TiffFile


def check_openslide_tiff(path: str, vendor: str | None) -> None:
    """Refuses a TIFF that OpenSlide opens although most of a level is missing or it is no RGB image.

    OpenSlide shows greyscale, palette and 16-bit images as RGB, and reads tile offsets without looking where they
    point. Other vendors keep labels and masks among their pages, so their kind of pixels is left to OpenSlide.

    Raises:
        SlideOpenError: more than a tenth of a level lies past the end of the file.
        UnsupportedSlideError: no 8-bit RGB.
    """
    if vendor in {"aperio", "generic-tiff"} and not remembers(path):
        stamp = Path(path).stat()
        _check_once(path, stamp.st_size, stamp.st_mtime_ns)


@lru_cache(maxsize=1024)
def _check_once(path: str, size: int, changed: int) -> None:
    """The checks for OpenSlide; a file that passed and has not changed is not parsed again when it is reopened."""
    del size, changed
    import tifffile

    try:
        tif = tifffile.TiffFile(path)
    except Exception:  # OpenSlide could read it, so what stops tifffile does not count
        return
    with tif:
        _soft(_check_tiled_pages, tif, path)


def _check_tiled_pages(tif: TiffFile, path: str) -> None:
    if tif.is_ome:
        _soft(lambda: check_single_plane(tif.series[0].axes, tif.series[0].shape, path))
    for page in [page for page in tif.pages if getattr(page, "is_tiled", False)]:
        _soft(check_kind, page, path)
        _soft(check_segments, page, path, SOME_LOST)


def explain_tiff(path: str) -> None:
    """Looks for what is wrong with a TIFF that OpenSlide could not open; returns where nothing is found.

    Raises:
        SlideOpenError: a loop, absurd dimensions, missing tiles.
        UnsupportedSlideError: no 8-bit RGB, or in an unknown compression.
    """
    import tifffile

    try:
        tif = tifffile.TiffFile(path)
    except Exception:  # no TIFF: OpenSlide's own words stand
        return
    with tif:
        _soft(check_chain, tif, path)
        _soft(lambda: check_levels(series_levels(tif), path))


def _soft(check: Any, *arguments: Any) -> None:
    """Runs a check; only its own verdicts count, not what else tifffile stumbles over."""
    try:
        check(*arguments)
    except (SlideOpenError, UnsupportedSlideError):
        raise
    except Exception:
        return
