"""Find images that have the slide's proportions but show another picture, so are no thumbnail of it."""

from __future__ import annotations

import numpy as np

from wsi_attention.errors import SlideError, TileReadError
from wsi_attention.slide.agreement import OTHER_PICTURE, Pair, difference
from wsi_attention.slide.images import StoredImage, several, versions
from wsi_attention.slide.slide import Slide
from wsi_attention.slide.strangers import Picture, places
from wsi_attention.slide.view import View

SIDE = 64
"""Pixels a side of the places that are compared."""


def check_lookalikes(slide: Slide, picture: Picture) -> None:
    """Compare each image that was taken for a smaller version of the slide with it, at a few places.

    An image that cannot be opened or read decides nothing.

    Args:
        slide: open; nothing is done where its image was asked for.
        picture: shows where there is tissue.

    Raises:
        SeveralImagesError: one shows another picture, so it could be the slide too.
    """
    images = slide.facts.images
    found = versions(images, images[slide.facts.image]) if "series" not in slide.options and len(images) > 1 else []
    unlike = [image for image in found if _is_unlike(slide, image, picture)]
    if unlike:
        raise several(images, [images[slide.facts.image], *unlike], slide.path)


def _is_unlike(slide: Slide, image: StoredImage, picture: Picture) -> bool:
    try:
        with slide.other(image.index) as other:
            pairs = _pairs(slide, other, picture)
    except SlideError:
        return False
    return bool(pairs) and difference(pairs) == OTHER_PICTURE


def _pairs(slide: Slide, other: Slide, picture: Picture) -> list[Pair]:
    """Return the same places as both show them, at the scale of the smaller one."""
    share = np.array(slide.dimensions) / other.dimensions
    ours, theirs = View(slide, float(share.max())), View(other, 1.0)
    size = tuple(min(SIDE, *sides) for sides in zip(ours.size, theirs.size, strict=True))
    pairs = []
    for x, y in (places(picture()) / share).tolist():
        corner = [int(np.clip(at - n / 2, 0, m - n)) for at, n, m in zip((x, y), size, other.dimensions, strict=True)]
        whole = round(corner[0] * share[0]), round(corner[1] * share[1])
        try:
            pairs.append(
                (theirs.read((corner[0], corner[1]), (size[0], size[1])), ours.read(whole, (size[0], size[1])))
            )
        except TileReadError:
            continue
    return pairs
