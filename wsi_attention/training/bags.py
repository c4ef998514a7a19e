"""Training on features that exist already: beside slides, or on bags alone."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

from torch import nn

from wsi_attention.bags.bag import Bag
from wsi_attention.bags.dialects import outline_alone, read_alone, read_bag
from wsi_attention.bags.expected import Expected, check_features, own_name, same_encoder
from wsi_attention.bags.source import BagSource, StoredTiles, featured
from wsi_attention.checkpoint import load_model
from wsi_attention.config import Augmentation, Recipe
from wsi_attention.errors import InputError, SlideOpenError
from wsi_attention.geometry import same_scale
from wsi_attention.inference.alone import POOLING
from wsi_attention.inference.stored_features import NEEDED, FeatureFiles, expected_of, written
from wsi_attention.methods.encoder_facts import ENCODER
from wsi_attention.methods.method import FLAT, find_method
from wsi_attention.nn.known_features import PREFIX, can_read
from wsi_attention.protocols import TileSource, contract_of
from wsi_attention.targets.target import Target
from wsi_attention.training.data import Example, RememberingSource, Survey
from wsi_attention.training.labels import LabelRow
from wsi_attention.training.start import PRETRAINED, start_file

T = TypeVar("T")
PIXELS, USUAL = 256, (0.25, 0.5, 1.0, 2.0)
"""Side of tiles where no file says it; scales that a model is said to read where tiles are within 5 % of them."""
ONE_LOOK, TWO_LOOKS = ("ats", "grow"), "zoom-in"
"""Methods whose attention looks at grids of features where there are no slides."""
REGION = 4
"""Tiles along a side of a region into which the second look goes."""
GRID_WIDTH = 64
"""Channels of the one stage of the attention network on such a grid."""
UNCHANGED = Augmentation(symmetry="none", stain=0.0, brightness=0.0)
"""Features show a slide as it is."""


@dataclass(frozen=True)
class Given:
    """The feature files of a training.

    Attributes:
        folder: as it was given.
        files: slide name -> file, of the slides that have one.
        facts: slide name -> what its file says, where it can be used.
        alone: whether there are no slides beside them.
        encoders: what the files say of their encoder, each once; "" where one says nothing.
        dim: length of a feature.
        pixels: side of a tile as the encoder saw it, None where no file says.
        tile_mpp: µm per pixel of a tile, None where neither files nor slides say.
        digest: of all files: their fingerprints, which are of samples of the features, and when they were written.
    """

    folder: str
    files: Mapping[str, Path]
    facts: Mapping[str, Facts]
    alone: bool
    encoders: tuple[str, ...]
    dim: int
    pixels: int | None
    tile_mpp: float | None
    digest: str

    def reads(self, recipe: Recipe) -> bool:
        """Return whether the model of a recipe has an encoder of its own, for tiles that have no feature."""
        said = recipe.model.get(ENCODER) is not None or any(key in FLAT for key in recipe.model)
        return bool(said or recipe.encoder_start or recipe.start) and not self._on_a_grid(recipe)

    def told(self, recipe: Recipe) -> dict[str, object]:
        """Return the options of the method that follow from the files and that the recipe does not say.

        Without weights of an encoder to start from, or an encoder named in the recipe, the model has none: it takes
        features alone.

        Raises:
            InputError: the method encodes no tiles of one size one by one, or the files are of several encoders.
        """
        if not set(NEEDED) <= set(find_method(recipe.method).names()):
            raise InputError(
                f"method {recipe.method} encodes no tiles of one size one by one, so features of files are of no use to"
                " it; methods that take them: ats, grow, mil, trt, zoom-in"
            )
        start = start_options(recipe.encoder_start or recipe.start) if self.reads(recipe) else {}
        told = {name: start[name] for name in ("mean", "std") if name in start and name not in recipe.model}
        follows: dict[str, object] = {"tile_size": self.pixels, "tile_mpp": self.tile_mpp}
        follows |= self._grid(recipe) if self._on_a_grid(recipe) else {}
        told |= {name: value for name, value in follows.items() if name not in recipe.model and value is not None}
        return told | {ENCODER: self._encoder(recipe, start.get(ENCODER))}

    def notes(self, recipe: Recipe, slides: int) -> tuple[str, ...]:
        """Return what a user should know of the files, one sentence each."""
        found = []
        if len(self.files) < slides:
            found.append(f"{slides - len(self.files)} of {slides} slides have no file of features")
        if "" in self.encoders:
            found.append("files do not say which encoder their features are of; they are taken for the model's own")
        if self._on_a_grid(recipe):
            found.append("attention looks at a grid of features, not at slides: the model needs --features to classify")
        elif not self.reads(recipe):
            found.append(
                "the model has no encoder of its own: it needs --features to classify (--encoder-start gives it one)"
            )
        return (*found, "features are scaled to length 1, as this package's encoders give them; no augmentation")

    def _encoder(self, recipe: Recipe, start: object) -> dict[str, object]:
        if not self.reads(recipe):
            return {"name": f"{PREFIX}{self._one_encoder()}", "features": self.dim, "frozen": True}
        given = recipe.model.get(ENCODER)
        table = dict(given) if isinstance(given, Mapping) else {} if given is None else {"name": given}
        flat = {FLAT[key]: value for key, value in recipe.model.items() if key in FLAT}
        own = dict(start) if isinstance(start, Mapping) and not table and not flat else {}
        return {**own, **table, **flat, "frozen": True}

    def _grid(self, recipe: Recipe) -> dict[str, object]:
        """Return the options of attention on a grid of features: a channel for each number of a feature, a cell a tile.

        Raises:
            InputError: the method looks at slides closer than features show them.
        """
        if recipe.method not in (*ONE_LOOK, TWO_LOOKS):
            raise InputError(
                f"method {recipe.method} looks at the slides themselves (-i); on features alone train {POOLING},"
                f" {', '.join(ONE_LOOK)} or {TWO_LOOKS}"
            )
        if recipe.encoder_start or recipe.start:
            raise InputError(
                f"method {recipe.method} on features alone looks at a grid of features and has no encoder: give the"
                " slides too (-i), or leave encoder_start and start out"
            )
        size = recipe.model.get("tile_size", self.pixels or PIXELS)
        mpp = recipe.model.get("tile_mpp", self.tile_mpp)
        scales = _scales(recipe.method, size * mpp) if isinstance(size, int) and isinstance(mpp, int | float) else {}
        return {"mean": [0.0] * self.dim, "std": [1.0] * self.dim, "attention_widths": [GRID_WIDTH], **scales}

    def _one_encoder(self) -> str:
        if len(self.encoders) > 1:
            raise InputError(
                f"{self.folder}: features of {len(self.encoders)} encoders"
                f" ({', '.join(one or 'unnamed' for one in self.encoders[:3])}); give a folder with those of one"
            )
        return self.encoders[0]

    def _on_a_grid(self, recipe: Recipe) -> bool:
        """Return whether attention looks at a grid of features, as there is no slide to look at."""
        return self.alone and recipe.method != POOLING


def _scales(method: str, tile_um: float) -> dict[str, object]:
    """Return options of attention on a grid of features, so that its last cells are tiles of that side in µm.

    The one stage of the attention network halves what it looks at: a cell is two pixels wide.
    """
    if method in ONE_LOOK:
        return {"overview_mpp": tile_um / 2}
    region = REGION * tile_um
    return {"overview_mpp": region / 2, "view_mpps": [tile_um / 2], "cells_um": [region, tile_um]}


def without_changes(recipe: Recipe) -> Recipe:
    """Return the recipe without augmentation, as features show slides as they are."""
    return replace(recipe, augmentation=UNCHANGED)


def start_options(start: str) -> Mapping[str, object]:
    """Return the options of the model that a training starts from; none where it starts from a file, or fresh."""
    if start in ("", PRETRAINED) or start_file(start):
        return {}
    return load_model(start).config["options"]


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


@dataclass(frozen=True)
class Facts:
    """What one file says.

    Attributes:
        bag: without the values of its features, which are zeros that take no memory.
        fingerprint: sha256 of places and of some rows of features.
    """

    bag: Bag
    fingerprint: str

    @property
    def dim(self) -> int:
        """Length of a feature."""
        assert self.bag.features is not None
        return int(self.bag.features.shape[1])


def facts_of(files: Mapping[str, Path], scales: Mapping[str, float | None]) -> dict[str, Facts | str]:
    """Look at every file once; return what it says, or why it cannot be used. Features are not read yet.

    Args:
        files: slide name -> file.
        scales: slide name -> µm per level-0 pixel where it is known.
    """
    return {name: _facts(path, scales.get(name)) for name, path in files.items()}


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
    known = {name: one for name, one in facts.items() if isinstance(one, Facts)}
    bags = [one.bag for one in known.values()]
    if not known:
        raise InputError(f"{folder}: no feature file can be used; the first: {next(iter(facts.values()))}")
    pixels = _commonest([one.pixels for one in bags if one.pixels is not None])
    scales = [one.tile_um / (pixels or PIXELS) for one in bags if one.tile_um is not None]
    nominal = _commonest([one.spacing for one in bags if one.spacing is not None])
    told = (f"{one.fingerprint} {written(files[name])[0]}" for name, one in known.items())
    digest = hashlib.sha256("\n".join(sorted(told)).encode()).hexdigest()
    return Given(
        str(folder),
        files,
        known,
        alone,
        tuple(sorted({one.encoder for one in bags})),
        statistics.mode(one.dim for one in known.values()),
        pixels,
        _round_scale(statistics.median(scales)) if scales else nominal,
        digest,
    )


@dataclass(frozen=True)
class Stored:
    """Feature files and the model that takes them.

    Attributes:
        given: the files.
        expected: what the model's encoder gives.
        readable: whether it can encode tiles that have no feature.
    """

    given: Given
    expected: Expected
    readable: bool

    def tiles(self, bag: Bag, path: Path) -> StoredTiles:
        """Return a bag's tiles, checked; errors as in `check_features`."""
        check_features(bag, self.expected, path)
        return StoredTiles(bag, self.expected.pixels)


def stored_for(files: Given, model: nn.Module, method: str, arguments: Mapping[str, object]) -> Stored:
    """Return feature files with the model that takes them, the encoder checked.

    Args:
        files: the feature files.
        model: with the weights that training starts from.
        method: its registered name.
        arguments: options it was built with.

    Raises:
        InputError: files are of another encoder, or none is of tiles that the model reads.
    """
    expected = expected_of(model, find_method(method).complete(arguments), f"method {method}")
    _check_one_fits(files, expected)
    other = [one for one in files.encoders if not same_encoder(one, expected)]
    if other:
        raise InputError(
            f"{files.folder}: features of encoder {other[0]!r}, the model's is {own_name(expected)!r}; give features of"
            " that one, or train with the encoder they are of (--encoder-start)"
        )
    encoder = contract_of(model).encoder
    return Stored(files, expected, encoder is not None and can_read(encoder))


def _check_one_fits(files: Given, expected: Expected) -> None:
    """Raise the first file's InputError where all have one; single files are left out when they are opened."""
    first: InputError | None = None
    for name, facts in files.facts.items():
        try:
            check_features(facts.bag, expected, files.files[name])
            return
        except InputError as error:
            first = first or error
    if first:
        raise first


def with_features(example: Example, stored: Stored) -> Example:
    """Return an example whose slide takes the features that a file knows instead of reading tiles, if it has a file."""
    path = stored.given.files.get(example.name)
    if path is None:
        return example

    @contextmanager
    def opened() -> Iterator[TileSource]:
        with example.open() as source:
            slide = cast(RememberingSource, source).slide
            with usable(path):
                tiles = stored.tiles(read_bag(path, mpp=slide.mpp, extent=slide.dimensions), path)
            yield cast(TileSource, featured(source, tiles, stored.readable))

    return replace(example, open=opened)


def bag_examples(rows: Sequence[LabelRow], surveyed: Survey, target: Target, stored: Stored) -> tuple[Example, ...]:
    """Return the usable rows as examples, each a bag without its slide."""
    return tuple(_bag_example(row, surveyed, target, stored) for row in rows if row.slide in surveyed.fingerprints)


def _bag_example(row: LabelRow, surveyed: Survey, target: Target, stored: Stored) -> Example:
    path = stored.given.files[row.slide]

    @contextmanager
    def opened() -> Iterator[TileSource]:
        with usable(path):
            bag = read_alone(path, row.mpp)
            tiles = stored.tiles(bag, path)
        yield cast(TileSource, BagSource(bag, tiles, stored.expected.tile_mpp))

    truth, key = target.known(row.label), surveyed.fingerprints[row.slide]
    return Example(row.slide, target.index(truth), key, opened, row.patient, truth=truth)


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
        bag, fingerprint = outline_alone(path, mpp)
    except InputError as error:
        return str(error)
    if not len(bag) or bag.features is None:
        return f"{path}: {'coordinates without features' if len(bag) else 'no tiles in it'}"
    return Facts(bag, fingerprint)


def _commonest(values: Sequence[T]) -> T | None:
    return statistics.mode(values) if values else None


def _round_scale(mpp: float) -> float:
    return next((usual for usual in USUAL if same_scale(mpp, usual)), round(mpp, 4))
