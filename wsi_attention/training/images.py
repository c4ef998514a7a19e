"""Training on plain images instead of slides: each is a `TensorSource`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

from torch import Tensor

from wsi_attention.config import Recipe
from wsi_attention.errors import InputError, SlideError
from wsi_attention.methods.method import find_method
from wsi_attention.protocols import TileSource
from wsi_attention.targets.target import Target
from wsi_attention.tiles.image_sources import MPP, channels_of, source_of
from wsi_attention.tiles.images import Images, fingerprint_of
from wsi_attention.tiles.tensors import TensorSource
from wsi_attention.training.data import Example, Survey
from wsi_attention.training.labels import LabelRow
from wsi_attention.training.patients import PATIENT


def open_images(path: str | Path | None, recipe: Recipe, beside: bool) -> Images | None:
    """Return the images of a training; None where there are none.

    Args:
        path: as it was given.
        recipe: of the training.
        beside: whether slides or features were given too.

    Raises:
        InputError: they cannot be used, or not together with something else.
    """
    if path is None:
        return None
    if beside:
        raise InputError("--images are all that is learnt from; leave out -i and --features")
    if recipe.bag == PATIENT:
        raise InputError('bag = "patient" is for slides, and --images were given; take bag = "slide"')
    return Images(path)


def without_traits(recipe: Recipe) -> Recipe:
    """Return the recipe without a look at what slides are like: images have neither stain nor tissue."""
    return replace(recipe, familiar=False)


def find_images(names: Sequence[str], images: Images, asked_by: str | Path) -> dict[str, str]:
    """Return the image of each name in the labels.

    Raises:
        InputError: some are not there.
    """
    found = {name: images.find(name) for name in names}
    missing = [name for name, image in found.items() if image is None]
    if missing:
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise InputError(
            f"{asked_by}: {len(missing)} of {len(names)} images not in {images.path}: {shown}; it has"
            f" {images.names[0]} to {images.names[-1]}"
        )
    return {name: image for name, image in found.items() if image is not None}


def survey_images(rows: Sequence[LabelRow], found: dict[str, str], images: Images) -> Survey:
    """Read every image once, for its fingerprint and to see whether it can be used."""
    fingerprints: dict[str, str] = {}
    failed: dict[str, str] = {}
    for row in rows:
        try:
            fingerprints[row.slide] = fingerprint_of(images.read(found[row.slide]))
        except SlideError as error:
            failed[row.slide] = str(error)
    return Survey(fingerprints, failed, {name: {} for name in fingerprints})


class Views:
    """Overviews that stay in memory between epochs; those that come first, up to a limit.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._kept: dict[tuple[str, float], Tensor] = {}

    def get(self, source: TensorSource, key: str, downsample: float) -> Tensor:
        """Return the overview of an image, (1, c, h, w), computed where it is not known.

        Args:
            source: the image.
            key: its fingerprint.
            downsample: of the overview.
        """
        known = self._kept.get((key, downsample))
        if known is None:
            known = source.overview(downsample)
            if known.nbytes <= self._left:
                self._left -= known.nbytes
                self._kept[key, downsample] = known
        return known


class RememberedImage(TensorSource):
    """An image whose overview is computed once a training.

    Args:
        source: the image.
        key: its fingerprint.
        views: where overviews are kept.
    """

    def __init__(self, source: TensorSource, key: str, views: Views) -> None:
        super().__init__(source.images, mpp=source.mpp)
        self._plain, self._key, self._views = source, key, views

    def overview(self, downsample: float) -> Tensor:
        """Return what the image's source returns; one from memory costs nothing."""
        return self._views.get(self._plain, self._key, downsample)


def image_examples(
    rows: Sequence[LabelRow], surveyed: Survey, target: Target, images: Images, recipe: Recipe, views: Views
) -> tuple[Example, ...]:
    """Return the usable rows as examples; one whose channels are not the model's is left out when it is opened."""
    channels = channels_of(find_method(recipe.method).complete(recipe.model))

    def example(row: LabelRow) -> Example:
        key, truth = surveyed.fingerprints[row.slide], target.known(row.label)

        @contextmanager
        def opened() -> Iterator[TileSource]:
            pixels = images.read(images.find(row.slide) or row.slide)
            plain = source_of(pixels, channels, row.mpp or MPP, f"{images.path}, image {row.slide}")
            yield cast(TileSource, RememberedImage(plain, key, views))

        return Example(row.slide, target.index(truth), key, opened, row.patient, truth=truth)

    return tuple(example(row) for row in rows if row.slide in surveyed.fingerprints)
