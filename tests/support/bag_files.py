"""Feature files as users have them: all tiles that a model reads of a slide, with its encoder's features."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsi_attention import Classifier, Prediction, predict, tile_features
from wsi_attention.bags import Bag, write_bag
from wsi_attention.inference import encoder_name


def bag_of(path: Path, classifier: Classifier, name: str, scale: float = 1.0) -> Bag:
    """The tiles that the model reads of a slide, with features of its encoder, each `scale` long."""
    found = predict(path, classifier, device="cpu", precision="32")
    return bag_from(path, found, classifier, name, scale)


def bag_from(path: Path, found: Prediction, classifier: Classifier, name: str, scale: float = 1.0) -> Bag:
    """The tiles of a prediction, with features of the model's encoder."""
    tiles = found.glimpses[-1].tiles
    features, valid = tile_features(path, classifier, tiles, device="cpu", precision="32")
    assert valid.all()
    places, first = np.unique(tiles.locations[0], axis=0, return_index=True)
    return Bag(
        name,
        places,
        tiles.footprint[0],
        tiles.size[0],
        found.extent,
        found.mpp,
        features[first] * np.float32(scale),
        encoder=encoder_name(classifier),
    )


def write_features(bag: Bag, folder: Path, dialect: str) -> Path:
    """The file that holds the features."""
    written = write_bag(bag, folder, dialect)
    return next(path for path in reversed(written) if path.suffix == ".h5")
