"""Which of a file's images is the slide: its one large RGB pyramid, never a label, a macro or a thumbnail."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from wsi_attention.errors import SeveralImagesError, SlideOpenError

Series = str | int | None
"""The number or the name of the image that is wanted; None for the slide."""

SHRUNKEN = 0.51
"""Sides of a smaller version of an image, at most, as a share of the image's."""
SMALL, TINY = 1 / 16, 1 / 64
"""Share of the slide's area that a single picture, or any image at all, may have and still not be taken for a slide."""
_ASSOCIATED = re.compile(r"(?<![a-z])(label|macro|thumb(nail)?|overview|preview|barcode)(?![a-z])", re.IGNORECASE)
_LISTED = 8
_HOW = "--series, a series column in the CSV, or open_slide(path, options={'series': …})"


@dataclass(frozen=True)
class StoredImage:
    """An image of a slide file.

    Attributes:
        index: its place in the file, from 0.
        name: what the file calls it; empty where it does not.
        size: (w, h) of its finest level.
        levels: how many it has.
        rgb: whether it is an 8-bit RGB image.
    """

    index: int
    name: str
    size: tuple[int, int]
    levels: int = 1
    rgb: bool = True

    def __str__(self) -> str:
        return f"{self.index}{f' {self.name!r}' if self.name else ''} ({self.size[0]}×{self.size[1]})"

    @property
    def area(self) -> int:
        """Pixels of its finest level."""
        return self.size[0] * self.size[1]

    @property
    def associated(self) -> bool:
        """Whether its name is that of a label, macro or thumbnail."""
        return _ASSOCIATED.search(self.name) is not None


@runtime_checkable
class ImagesReader(Protocol):
    """A reader that lists the images of its file.

    Attributes:
        images: all of them, in the file's order.
        image: the index of the one that is the slide.
        notes: what a reader of results should know of how the file was read, a sentence each.
    """

    images: tuple[StoredImage, ...]
    image: int
    notes: tuple[str, ...]


class Chosen(NamedTuple):
    """The number of the image that is the slide, and what a reader should know of the choice."""

    number: int
    notes: tuple[str, ...] = ()


def choose(images: Sequence[StoredImage], series: Series, path: str) -> Chosen:
    """Choose the image that was asked for, else the only one that can be the slide.

    Smaller versions of an image, what is named as a label, macro or thumbnail, and what is very small are no slides.

    Raises:
        SeveralImagesError: more than one could be the slide.
        SlideOpenError: the file has no image of that number or name.
    """
    if series is not None:
        return Chosen(_asked(images, series, path))
    rgb = [image for image in images if image.rgb]
    if not rgb:  # whoever reads the largest one says what it is
        return Chosen(max(images, key=lambda image: image.area).index)
    slide = max([image for image in rgb if not image.associated] or rgb, key=lambda image: image.area)
    rivals = [image for image in images if image is not slide and _rivals(image, slide)]
    if rivals:
        raise several(images, [slide, *rivals], path)
    return Chosen(slide.index, _notes(images, slide))


def several(images: Sequence[StoredImage], able: Sequence[StoredImage], path: str) -> SeveralImagesError:
    """Return the error that names the images that could be the slide, and the others."""
    able = sorted(able, key=lambda image: image.index)
    others = [image for image in images if image not in able]
    more = f" (others: {_list(others)})" if others else ""
    return SeveralImagesError(f"{path}: several images could be the slide: {_list(able)}{more}; choose one with {_HOW}")


def versions(images: Sequence[StoredImage], slide: StoredImage) -> list[StoredImage]:
    """Return the unnamed images that were taken for smaller versions of the slide, by their proportions alone."""
    return [
        image
        for image in images
        if image is not slide and image.rgb and not image.associated and _is_version(image, slide)
    ]


def _asked(images: Sequence[StoredImage], series: str | int, path: str) -> int:
    wanted = str(series).strip()
    named = [image.index for image in images if image.name.strip().casefold() == wanted.casefold()]
    if wanted.isdecimal() and int(wanted) < len(images):
        return int(wanted)
    if len(named) == 1:
        return named[0]
    found = "no image" if not named else "several images"
    raise SlideOpenError(f"{path}: {found} {series!r}; there are: {_list(images)}; give the number of one")


def _rivals(image: StoredImage, slide: StoredImage) -> bool:
    """Tell whether an image could be the slide instead of the largest one."""
    if not image.rgb:
        return not image.associated and image.area > slide.area
    if image.associated:
        return image.levels > slide.levels
    return not _is_version(image, slide) and not _is_small(image, slide)


def _is_version(image: StoredImage, slide: StoredImage) -> bool:
    """Tell whether an image is as a smaller version of the slide would be."""
    share = image.size[0] / slide.size[0]
    height = share * slide.size[1]
    return image.levels == 1 and share <= SHRUNKEN and abs(image.size[1] - height) <= max(1.5, 0.05 * height)


def _is_small(image: StoredImage, slide: StoredImage) -> bool:
    return image.area <= slide.area * (SMALL if image.levels == 1 else TINY)


def _notes(images: Sequence[StoredImage], slide: StoredImage) -> tuple[str, ...]:
    if slide.associated:
        return (f"the image that was taken as the slide is called {slide.name!r}",)
    left = [
        image
        for image in images
        if image is not slide and image.rgb and not image.associated and not _is_version(image, slide)
    ]
    larger = [image for image in images if image.associated and image.area > slide.area]
    if not left and not larger:
        return ()
    return (f"image {slide} was taken as the slide, not {_list([*left, *larger])}; --series chooses another",)


def _list(images: Sequence[StoredImage]) -> str:
    more = f" and {len(images) - _LISTED} more" if len(images) > _LISTED else ""
    return ", ".join(map(str, images[:_LISTED])) + more
