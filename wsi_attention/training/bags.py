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


def fingerprint_of(bag: Bag) -> str:
    """Return the sha256 of a bag's places and features."""
    digest = hashlib.sha256(np.ascontiguousarray(bag.locations).tobytes())
    if bag.features is not None:
        digest.update(f"{bag.features.dtype} {bag.features.shape}".encode())
        digest.update(np.ascontiguousarray(bag.features).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Facts:
    """What one file says: the attributes of a `Bag` with these names, the length of a feature, its fingerprint."""

    encoder: str
    dim: int
    pixels: int | None
    side: int
    mpp: float | None
    spacing: float | None
    fingerprint: str


def facts_of(files: Mapping[str, Path], scales: Mapping[str, float | None]) -> dict[str, Facts | str]:
    """Read every file once; return what it says, or why it cannot be used.

    Args:
        files: slide name -> file.
        scales: slide name -> µm per level-0 pixel where it is known.
    """
    return {name: _facts(path, scales.get(name)) for name, path in files.items()}


def read_alone(path: Path, mpp: float | None) -> Bag:
    """Read a bag whose slide may not be at hand; STAMP's µm then become pixels of the tiles' own scale.

    Raises:
        InputError: the file cannot be used.
    """
    return read_bag(path, mpp=own_scale(path) if mpp is None else mpp)


def survey_bags(rows: Sequence[LabelRow], facts: Mapping[str, Facts | str]) -> Survey:
    """Return what stands for a look at the slides where there are none."""
    found = {row.slide: facts.get(row.slide, "no feature file of it") for row in rows}
    fingerprints = {name: one.fingerprint for name, one in found.items() if isinstance(one, Facts)}
    failed = {name: one for name, one in found.items() if isinstance(one, str)}
    return Survey(fingerprints, failed, {name: {} for name in fingerprints})


def given(folder: str | Path, files: Mapping[str, Path], facts: Mapping[str, Facts | str], alone: bool) -> Given:
    """Return what the files have in common, as far as they say it.

    Raises:
        InputError: not one file can be used.
    """
    known = [one for one in facts.values() if isinstance(one, Facts)]
    if not known:
        raise InputError(f"{folder}: no feature file can be used; the first: {next(iter(facts.values()))}")
    pixels = _commonest([one.pixels for one in known if one.pixels is not None])
    sides = [one.mpp * one.side / (pixels or PIXELS) for one in known if one.mpp is not None]
    nominal = _commonest([one.spacing for one in known if one.spacing is not None])
    digest = hashlib.sha256("\n".join(sorted(one.fingerprint for one in known)).encode()).hexdigest()
    return Given(
        str(folder),
        files,
        alone,
        tuple(sorted({one.encoder for one in known})),
        statistics.mode(one.dim for one in known),
        pixels,
        _round_scale(statistics.median(sides)) if sides else nominal,
        digest,
    )


def with_features(example: Example, path: Path, expected: Expected, readable: bool) -> Example:
    """Return an example whose slide takes the features that a file knows instead of reading tiles."""

    @contextmanager
    def opened() -> Iterator[TileSource]:
        with example.open() as source:
            slide = slide_of(source)
            with usable(path):
                bag = read_bag(path, mpp=slide.mpp, extent=slide.dimensions)
                check_features(bag, expected, path)
            yield cast(TileSource, featured(source, StoredTiles(bag, expected.pixels), readable))

    return replace(example, open=opened)


def bag_example(row: LabelRow, label: int, key: str, path: Path, expected: Expected) -> Example:
    """Return a bag without its slide as an example."""

    @contextmanager
    def opened() -> Iterator[TileSource]:
        with usable(path):
            bag = read_alone(path, row.mpp)
            check_features(bag, expected, path)
        yield cast(TileSource, BagSource(bag, StoredTiles(bag, expected.pixels), expected.tile_mpp))

    return Example(row.slide, label, key, opened, row.patient)


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Turn what is wrong with a feature file into an error that drops its slide from training.

    Raises:
        SlideOpenError: the file cannot be used.
    """
    try:
        yield
    except InputError as error:
        raise SlideOpenError(str(error)) from error


def _facts(path: Path, mpp: float | None) -> Facts | str:
    try:
        bag = read_alone(path, mpp)
    except InputError as error:
        return str(error)
    if not len(bag) or bag.features is None:
        return f"{path}: {'coordinates without features' if len(bag) else 'no tiles in it'}"
    dim, fingerprint = bag.features.shape[1], fingerprint_of(bag)
    return Facts(bag.encoder, dim, bag.pixels, bag.side, bag.mpp, bag.spacing, fingerprint)


def _commonest(values: Sequence[T]) -> T | None:
    return statistics.mode(values) if values else None


def _round_scale(mpp: float) -> float:
    return next((usual for usual in USUAL if same_scale(mpp, usual)), round(mpp, 4))
