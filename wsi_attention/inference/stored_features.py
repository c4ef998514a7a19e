"""Features that exist already, in other programs' files: whose they are, and whether a model can use them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from wsi_attention.bags.dialects import read_bag
from wsi_attention.bags.expected import Expected, check_features, named
from wsi_attention.bags.folder import feature_files, files_of, place_of
from wsi_attention.bags.source import BagSource, FeaturedSource, StoredTiles, featured
from wsi_attention.checkpoint import ClassifierLike, as_classifier
from wsi_attention.errors import InputError, MissingMppError
from wsi_attention.feature_store.kind import weights_sha256
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.inference.batch.matching import SlideNames
from wsi_attention.nn.encoders import bare, turns_of
from wsi_attention.nn.known_features import PREFIX, can_read
from wsi_attention.protocols import contract_of
from wsi_attention.slide import own_files
from wsi_attention.slide.slide import Slide
from wsi_attention.tiles.source import SlideSource

NEEDED = ("encoder", "tile_size", "tile_mpp")
"""Options of the methods that encode square tiles of one size one by one."""
PIXEL_CHANNELS = 3


class FeatureFiles:
    """The feature files of a folder, to be found by the slide's name.

    Raises:
        InputError: no such folder, or no feature file in it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files = feature_files(folder)
        self._index = SlideNames(folder, "give the folder of one encoder's features")
        for path, stem in self._files.items():
            self._index.add(str(path), (stem, place_of(path, folder)))

    def of(self, slide: str) -> Path | None:
        """Return the file of a slide, by its name or relative path with or without suffix; None where there is none.

        Raises:
            InputError: two files could be the slide's.
        """
        found = self._index.find(slide) or self._index.find(slide.rpartition("/")[2])
        return None if found is None else Path(found)

    def __len__(self) -> int:
        return len(self._files)


def written(path: str | Path) -> tuple[str, str]:
    """Return what `slide.own_files.written` says of all files that a file of features rests on."""
    times, changes = zip(*(own_files.written(str(file)) for file in files_of(path)), strict=True)
    return " ".join(times), " ".join(changes)


def expected_of(model: nn.Module, options: Mapping[str, object], name: str) -> Expected:
    """Return what a model's encoder gives, to be compared with what files say.

    Args:
        model: with its weights.
        options: all options of its method, as plain values.
        name: what errors call the model.

    Raises:
        InputError: the method does not encode square tiles of one size one by one.
    """
    contract = contract_of(model)
    missing = [one for one in NEEDED if one not in options]
    encoder = contract.encoder
    if missing or encoder is None:
        raise InputError(
            f"{name} encodes no tiles of one size one by one, so features of files are of no use to it; methods that"
            " take them: ats, grow, mil, trt, zoom-in"
        )
    given = options["encoder"]
    called = str(given.get("name", "") if isinstance(given, Mapping) else given).removeprefix(PREFIX)
    dim = encoder.dim
    size, mpp = options["tile_size"], options["tile_mpp"]
    assert isinstance(dim, int) and isinstance(size, int) and isinstance(mpp, int | float)
    digest = digest_of(encoder, contract.preprocess)
    on_a_grid, turns = channels_of(options) != PIXEL_CHANNELS, turns_of(encoder)
    return Expected(called, digest, dim, size, float(mpp), on_a_grid, turns)


def digest_of(encoder: nn.Module, preprocess: nn.Module) -> str:
    """Return the sha256 of an encoder's weights and of the colours it normalises by; empty where it has no weights.

    The same encoder with the same colours and turns has the same digest in every model, frozen or not.
    """
    network = bare(encoder)
    if not network.state_dict():
        return ""
    parts = [weights_sha256(network), weights_sha256(preprocess)]
    parts += [str(turns)] if (turns := turns_of(encoder)) > 1 else []
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def encoder_name(classifier: ClassifierLike) -> str:
    """Return what files say of the features of a model's encoder: "wsi-attention:MODEL:" and 12 digits of its sha256.

    Raises:
        InputError: the model encodes no tiles one by one, or has no encoder of its own.
    """
    model = as_classifier(classifier)
    contract = contract_of(model.model)
    if contract.encoder is None:
        raise InputError(f"model {model.name} has no tile encoder; give one that reads tiles, such as ats")
    check_readable(model.model, f"model {model.name}")
    return named(model.name, digest_of(contract.encoder, contract.preprocess))


def channels_of(options: Mapping[str, object]) -> int:
    """Return the channels of what a model looks at: 3 of pixels, more where it looks at features."""
    mean = options.get("mean")
    return len(mean) if isinstance(mean, list | tuple) else PIXEL_CHANNELS


def check_readable(model: nn.Module, name: str) -> None:
    """Check that a model can look at pixels: that it has an encoder, where it needs one.

    Raises:
        InputError: it has learnt from features of files and has no encoder of its own.
    """
    encoder = contract_of(model).encoder
    if encoder is not None and not can_read(encoder):
        raise InputError(
            f"{name} has learnt from feature files and has no encoder of its own: give features of the slides with"
            " --features, or train one with the encoder's weights (--encoder-start)"
        )


def beside(source: SlideSource, model: nn.Module, path: str | Path, expected: Expected) -> FeaturedSource | BagSource:
    """Return a slide's source that takes what a file knows; what is not known is read where the model can encode it.

    A model whose attention has learnt on a grid of features is shown such a grid in place of the slide's overview.

    Raises:
        InputError: the file cannot be read, is of another slide, tile size or encoder, or has no sound features.
    """
    bag = read_bag(path, mpp=mpp_of(source.slide), extent=source.slide.dimensions)
    check_features(bag, expected, path)
    stored = StoredTiles(bag, expected.pixels)
    if expected.on_a_grid:
        return BagSource(bag, stored, expected.tile_mpp)
    encoder = contract_of(model).encoder
    return featured(source, stored, encoder is not None and can_read(encoder))


def with_features(slides: Iterable[SlideFile], folder: str | Path) -> tuple[SlideFile, ...]:
    """Return the slides, each with its file of features where the folder has one.

    Raises:
        InputError: no such folder or no feature file in it, none of them is of one of the slides, or two are of one.
    """
    files = FeatureFiles(folder)
    found = tuple(replace(one, features=_absolute(files.of(one.relative))) for one in slides)
    if not any(one.features for one in found):
        raise InputError(
            f"{folder}: {len(files)} feature files, none of them of one of the {len(found)} slides; a file has the"
            " slide's name and .h5"
        )
    return found


def bags_alone(folder: str | Path) -> tuple[SlideFile, ...]:
    """Return the feature files of a folder as what there is to classify, each named by its slide.

    Two files of one slide are named by their place in the folder.

    Raises:
        InputError: no such folder, or no feature file in it.
    """
    files = feature_files(folder)
    several = Counter(stem for stem in files.values())
    return tuple(
        SlideFile(str(path), stem if several[stem] == 1 else place_of(path, folder), features=str(path))
        for path, stem in files.items()
    )


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def mpp_of(slide: Slide) -> float | None:
    """Return a slide's µm per level-0 pixel, None where nobody says it."""
    try:
        return slide.mpp
    except MissingMppError:
        return None
