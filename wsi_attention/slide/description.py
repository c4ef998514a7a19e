"""What a slide says of itself, and what is odd about it, as plain values."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from wsi_attention.errors import SlideError
from wsi_attention.slide.images import StoredImage
from wsi_attention.slide.seen import Overview
from wsi_attention.slide.slide import Slide
from wsi_attention.slide.strangers import leave_out_strangers
from wsi_attention.slide.tissue import check_brightfield
from wsi_attention.slide.view import View

SEEN = 256
"""Longer side in pixels of the view that is looked at."""
AFFORDABLE = 64_000_000
"""The most stored pixels that are read for it; a slide without a level that small is not looked at."""


class LevelDescription(TypedDict):
    """A stored level; sizes in its pixels."""

    width: int
    height: int
    downsample: float
    tile: tuple[int, int] | None
    left_out: bool


class ImageDescription(TypedDict):
    """An image of the file."""

    index: int
    name: str
    width: int
    height: int
    levels: int
    rgb: bool
    slide: bool


class TissueDescription(TypedDict):
    """What tissue was found: its share of the slide in [0, 1], the scale of the view, and a picture's path."""

    share: float
    mm2: float
    mpp: float
    picture: str
    words: str
    notes: list[str]


class SlideDescription(TypedDict):
    """What a slide says of itself."""

    slide: str
    reader: str
    reader_reason: str
    vendor: str | None
    size: list[int]
    mpp: list[float] | None
    mpp_source: str
    objective_power: float | None
    bounds: list[int] | None
    associated: list[str]
    images: list[ImageDescription]
    levels: list[LevelDescription]
    fingerprint: str
    odd: list[str]
    tissue: NotRequired[TissueDescription]


def describe(slide: Slide) -> SlideDescription:
    """Return a slide's size, levels, mpp and its source, bounds, images, reader and oddities, as values for JSON.

    Metadata, a few samples of the file, one coarse view, and a few places of every level are read.
    """
    looks = _looks(slide)
    levels: list[LevelDescription] = [
        {"width": w, "height": h, "downsample": round(d, 6), "tile": t, "left_out": level not in slide.levels}
        for level, ((w, h), d, t) in enumerate(
            zip(slide.level_dimensions, slide.level_downsamples, slide.facts.tile_sizes, strict=True)
        )
    ]
    images = [_image(found, found.index == slide.facts.image) for found in slide.facts.images]
    return {
        "slide": slide.path,
        "reader": slide.reader,
        "reader_reason": slide.reader_reason,
        "vendor": slide.facts.vendor,
        "size": list(slide.dimensions),
        "mpp": list(slide.mpp_xy) if slide.mpp_xy else None,
        "mpp_source": slide.mpp_source,
        "objective_power": slide.facts.objective_power,
        "bounds": list(slide.facts.bounds) if slide.facts.bounds else None,
        "associated": list(slide.facts.associated),
        "images": images,
        "levels": levels,
        "fingerprint": slide.fingerprint,
        "odd": [*slide.oddities(), *looks],
    }


def _image(found: StoredImage, is_slide: bool) -> ImageDescription:
    (width, height), levels = found.size, found.levels
    return ImageDescription(
        index=found.index, name=found.name, width=width, height=height, levels=levels, rgb=found.rgb, slide=is_slide
    )


def _looks(slide: Slide) -> tuple[str, ...]:
    """Return what is odd about the pixels of a coarse view; nothing where that would cost too much."""
    downsample = max(1.0, max(slide.dimensions) / SEEN)
    w, h = slide.level_dimensions[slide.best_level(downsample)]
    if w * h > AFFORDABLE:
        return ()
    try:
        leave_out_strangers(slide, lambda: Overview(View(slide, downsample).read_whole(), downsample))
        check_brightfield(View(slide, downsample).read_whole(), slide.path)
    except SlideError as error:
        return (str(error),)
    return ()
