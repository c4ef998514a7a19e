"""Our results as bags: the tiles a prediction rests on, with the features its model's encoder gives them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from wsi_attention import Classifier, Prediction, Slide, TileSet, open_slide, tile_features
from wsi_attention.bags import Bag
from wsi_attention.errors import InputError
from wsi_attention.inference import encoder_name, has_encoder, stored_predictions, suffix_of


def bag_of(prediction: Prediction, name: str = "") -> Bag:
    """The tiles that were read, the finest where there are several sizes; each place once, its weights summed.

    Args:
        prediction: of one slide.
        name: the slide's name; the file's own without suffix where empty.

    Raises:
        InputError: the model read no tiles (OAA looks at the overview alone), or none could be read.
    """
    read = [glimpse for glimpse in prediction.glimpses if glimpse.valid.any()]
    if not read:
        raise InputError(f"{prediction.slide}: no tiles were read, so there is nothing to write")
    finest = min((glimpse.tiles for glimpse in read), key=lambda tiles: tiles.footprint)
    if finest.footprint[0] != finest.footprint[1]:
        raise InputError(f"{prediction.slide}: tiles of {finest.footprint} pixels; the four dialects know squares only")
    used = [glimpse for glimpse in read if glimpse.tiles.footprint == finest.footprint]
    places = np.concatenate([glimpse.tiles.locations[0][glimpse.valid] for glimpse in used])
    weights = np.concatenate([glimpse.weights[glimpse.valid] for glimpse in used])
    unique, first, inverse = np.unique(places, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    file = Path(prediction.slide).name
    return Bag(
        name=name or file.removesuffix(suffix_of(file)),
        locations=unique[order],
        side=finest.footprint[0],
        pixels=finest.size[0],
        extent=prediction.extent,
        mpp=prediction.mpp,
        weights=np.bincount(inverse.ravel(), weights, len(unique))[order].astype(np.float64),
        downsample=finest.downsample,
    )


def with_features(bag: Bag, slide: Slide, classifier: Classifier, batch: int = 32) -> Bag:
    """The bag with what the model's tile encoder gives for each tile; tiles that cannot be read leave the bag.

    Args:
        bag: tiles of this slide.
        slide: open.
        classifier: its encoder and its normalisation are used, at the size the bag's tiles were read with.
        batch: tiles read by one task.

    Raises:
        InputError: the model has no tile encoder, or the slide is another.
        TileReadError: no tile could be read.
    """
    if not has_encoder(classifier):
        raise InputError(f"model {classifier.name} has no tile encoder; give one that reads tiles, such as ats")
    if bag.extent is not None and tuple(bag.extent) != tuple(slide.dimensions):
        raise InputError(f"{slide.path}: {slide.dimensions} pixels, the tiles are of a slide of {bag.extent}")
    pixels = bag.pixels or bag.side
    tiles = TileSet(bag.locations, (pixels, pixels), bag.downsample or max(1.0, bag.side / pixels))
    found, valid = tile_features(slide, classifier, tiles, device="cpu", batch=batch, precision="32")
    weights = None if bag.weights is None else bag.weights[valid]
    return replace(
        bag, locations=bag.locations[valid], features=found[valid], weights=weights, encoder=encoder_name(classifier)
    )


def bags_of_results(
    results: str | Path, names: Iterable[str] = (), classifier: Classifier | None = None
) -> Iterator[Bag]:
    """A bag for each slide of a results folder; with a classifier the slides are opened and features computed.

    Raises:
        ResultsError: no results there.
        InputError: as `bag_of` and `with_features`, or the slide has changed since it was classified.
        SlideError: the slide cannot be opened or read.
    """
    for name, prediction in stored_predictions(results, names):
        bag = bag_of(prediction, name)
        if classifier is None:
            yield bag
            continue
        with open_slide(prediction.slide, mpp=prediction.mpp) as slide:
            if slide.fingerprint != prediction.provenance.get("fingerprint", slide.fingerprint):
                raise InputError(f"{slide.path}: not the slide that was classified; classify it again")
            yield with_features(bag, slide, classifier)
