"""Training on features that exist already: beside slides, or on bags alone."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from torch import nn

from wsi_attention.bags.bag import Bag
from wsi_attention.bags.dialects import read_bag
from wsi_attention.bags.expected import Expected, check_features
from wsi_attention.bags.source import BagSource, StoredTiles, featured
from wsi_attention.config import Augmentation, Recipe
from wsi_attention.errors import InputError, SlideError, SlideOpenError
from wsi_attention.geometry import same_scale
from wsi_attention.inference.stored_features import FeatureFiles, mpp_of
from wsi_attention.methods.method import ENCODER, FLAT, find_method
from wsi_attention.nn.known_features import PREFIX, can_read
from wsi_attention.protocols import TileSource, contract_of
from wsi_attention.slide.slide import Slide
from wsi_attention.training.data import Example, Survey
from wsi_attention.training.labels import LabelRow

PIXELS, USUAL = 256, (0.25, 0.5, 1.0, 2.0)
"""Tiles of files that do not say their size in pixels; scales that a model is said to read where tiles are within 5 %."""
UNCHANGED = Augmentation(symmetry="none", stain=0.0, brightness=0.0)
"""Features show a slide as it is."""


@dataclass(frozen=True)
class Given:
    """The feature files of a training.

    Attributes:
        folder: as it was given.
        files: slide name -> file, of the slides that have one.
        alone: whether there are no slides beside them.
        encoders: what the files say of their encoder, each once; "" where one says nothing.
        dim: length of a feature.
        pixels: side of a tile as the encoder saw it, None where no file says.
        tile_mpp: µm per pixel of a tile, None where neither files nor slides say.
        digest: of all files' content.
    """

    folder: str
    files: Mapping[str, Path]
    alone: bool
    encoders: tuple[str, ...]
    dim: int
    pixels: int | None
    tile_mpp: float | None
    digest: str

    def told(self, recipe: Recipe) -> dict[str, object]:
        """Return the options of the method that follow from the files and that the recipe does not say.

        Without weights of an encoder to start from, or an encoder named in the recipe, the model has none: it takes
        features alone.

        Raises:
            InputError: the method encodes no tiles of one size one by one, or the files are of several encoders.
        """
        names = find_method(recipe.method).names()
        if not {ENCODER, "tile_size", "tile_mpp"} <= set(names):
            raise InputError(
                f"method {recipe.method} encodes no tiles of one size one by one, so features of files are of no use to"
                " it; methods that take them: ats, mil, trt, zoom-in"
            )
        told: dict[str, object] = {}
        if "tile_size" not in recipe.model and self.pixels is not None:
            told["tile_size"] = self.pixels
        if "tile_mpp" not in recipe.model and self.tile_mpp is not None:
            told["tile_mpp"] = self.tile_mpp
        return told | {ENCODER: self._encoder(recipe)}

    def _encoder(self, recipe: Recipe) -> dict[str, object]:
        given = recipe.model.get(ENCODER)
        table = dict(given) if isinstance(given, Mapping) else {} if given is None else {"name": given}
        flat = {FLAT[key]: value for key, value in recipe.model.items() if key in FLAT}
        if given is not None or flat or recipe.encoder_start or recipe.start:
            return {**table, **flat, "frozen": True}
        if len(self.encoders) > 1:
            raise InputError(
                f"{self.folder}: features of {len(self.encoders)} encoders"
                f" ({', '.join(one or 'unnamed' for one in self.encoders[:3])}); give a folder with those of one"
            )
        return {"name": f"{PREFIX}{self.encoders[0]}", "features": self.dim, "frozen": True}


def without_changes(recipe: Recipe) -> Recipe:
    """Return the recipe without augmentation, as features show slides as they are."""
    return replace(recipe, augmentation=UNCHANGED)


def find_bags(folder: str | Path, rows: Sequence[LabelRow], labels: str | Path) -> dict[str, Path]:
    """Return the feature file of each labelled slide that has one.

    Raises:
        InputError: no such folder, or no labelled slide has a file there.
    """
    files = FeatureFiles(folder)
    found = {row.slide: path for row in rows if (path := files.of(row.slide)) is not None}
    if not found:
        raise InputError(
            f"{labels}: none of {len(rows)} slides has a feature file in {folder}; a file has the slide's name and .h5"
        )
    return found


def survey_bags(rows: Sequence[LabelRow], files: Mapping[str, Path]) -> Survey:
    """Read every bag once, for its fingerprint and to see whether it can be used, where there are no slides."""
    fingerprints, failed = {}, {}
    for row in rows:
        try:
            if row.slide not in files:
                raise InputError(f"{row.slide}: no feature file of it")
            fingerprints[row.slide] = fingerprint_of(opened_bag(files[row.slide], row.mpp))
        except InputError as error:
            failed[row.slide] = str(error)
    return Survey(fingerprints, failed, {name: {} for name in fingerprints})


def fingerprint_of(bag: Bag) -> str:
    """Return the sha256 of a bag's places and features."""
    digest = hashlib.sha256(np.ascontiguousarray(bag.locations).tobytes())
    if bag.features is not None:
        digest.update(f"{bag.features.dtype} {bag.features.shape}".encode())
        digest.update(np.ascontiguousarray(bag.features).tobytes())
    return digest.hexdigest()


def opened_bag(path: Path, mpp: float | None) -> Bag:
    """Read a bag whose slide is not at hand; µm become pixels of the tiles' own scale where nobody says the slide's.

    Raises:
        InputError: the file cannot be used.
    """
    return read_bag(path, mpp=mpp, alone=True)


def look_at(
    folder: str | Path,
    files: Mapping[str, Path],
    rows: Sequence[LabelRow],
    scales: Mapping[str, float] | None,
    failed: Mapping[str, str],
) -> Given:
    """Return what the files have in common, as far as they say it.

    Args:
        folder: as it was given.
        files: slide name -> file.
        rows: labelled slides.
        scales: slide name -> µm per level-0 pixel, of slides that are at hand; None where there are none.
        failed: slides that are left out already.

    Raises:
        InputError: not one file can be used.
    """
    usable = [row for row in rows if row.slide in files and row.slide not in failed]
    facts = [_facts(files[row.slide], row.mpp if scales is None else scales.get(row.slide)) for row in usable]
    known = [one for one in facts if isinstance(one, _Facts)]
    if not known:
        reason = next((one for one in facts if isinstance(one, str)), next(iter(failed.values()), "no file"))
        raise InputError(f"{folder}: no feature file can be used; the first: {reason}")
    encoders = tuple(sorted({one.encoder for one in known}))
    pixels = _commonest([one.pixels for one in known if one.pixels is not None])
    sides = [one.mpp * one.side / (pixels or PIXELS) for one in known if one.mpp is not None]
    tile_mpp = _round_scale(statistics.median(sides)) if sides else _commonest([s.spacing for s in known if s.spacing])
    digest = hashlib.sha256("\n".join(sorted(one.content for one in known)).encode()).hexdigest()
    dim = _commonest([one.dim for one in known])
    assert dim is not None
    return Given(str(folder), files, scales is None, encoders, dim, pixels, tile_mpp, digest)


@dataclass(frozen=True)
class _Facts:
    encoder: str
    dim: int
    pixels: int | None
    side: int
    mpp: float | None
    spacing: float | None
    content: str


def _facts(path: Path, mpp: float | None) -> _Facts | str:
    try:
        bag = opened_bag(path, mpp)
    except InputError as error:
        return str(error)
    if bag.features is None or not len(bag):
        return f"{path}: no features in it"
    return _Facts(
        bag.encoder, bag.features.shape[1], bag.pixels, bag.side, bag.mpp, bag.spacing, fingerprint_of(bag)
    )


def _commonest[T](values: Sequence[T]) -> T | None:
    return statistics.mode(values) if values else None


def _round_scale(mpp: float) -> float:
    return next((usual for usual in USUAL if same_scale(mpp, usual)), round(mpp, 4))
