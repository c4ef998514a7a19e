"""Fill the feature store of `train` with what is remembered, so that training encodes nothing.

    python tests/benchmarks/needle_store.py --work needle-work --variant matched

For EfficientNet-lite0, between the steps "remember" and "train" of `needle.py`; an hour less on two cores. A cell of a
slide shows one stored tile, so that its feature depends on nothing but the tile, how it was turned there, and how
training turns the slide (`needle_remembered.py`). Features are those that `train` would compute, but for half precision
and for JPEG, which is not quite the same of a turned tile: numbers differ by 0.06 at most.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from needle import VARIANTS, Place
from needle_remembered import Slides, in_turns, recall
from needle_slides import CELLS, turned
from needle_tiles import SIDE
from numpy.typing import NDArray
from torch import Tensor

from wsi_attention.encoders.encoder_weights import read_encoder
from wsi_attention.feature_store.kind import Kind, kind_of
from wsi_attention.feature_store.store import open_store
from wsi_attention.methods.method import build_model, encoder_options
from wsi_attention.nn.filling import fill
from wsi_attention.nn.turned import ALL, ONE
from wsi_attention.protocols import contract_of
from wsi_attention.slide.slide import open_slide
from wsi_attention.structures import TileSet
from wsi_attention.training.augment import Symmetry

GIGABYTES = 20.0
SYMMETRIES = tuple(Symmetry(bool(turn & 1), bool(turn & 2), bool(turn & 4)) for turn in range(8))


def fill_store(place: Place, name: str = "train") -> None:
    """Keep the features of all tiles of a set where `train` looks for them, once: each turn's, and their means."""
    folder = place.model("any", 0).parent / "features"
    kinds = [kind_of_lite0(place, turns) for turns in (ONE, ALL)]
    done = folder / kinds[-1].key[:24] / f"{name}.json"
    if done.is_file():
        return
    store = open_store(folder, GIGABYTES, print)
    assert store is not None
    slides = recall(place.features, name, place.encoder)
    means = replace(slides, features=in_turns(slides.features, ALL))
    for i, slide_name in enumerate(slides.names):
        with open_slide(str(place.slides(name) / f"{slide_name}.tiff")) as slide:
            identity = slide.identity
        for kind, known, symmetries in zip(kinds, (slides, means), (SYMMETRIES, SYMMETRIES[:1]), strict=True):
            with store.shelf(kind, identity) as shelf:
                for symmetry in symmetries:
                    tiles, features = turned_features(known, i, symmetry)
                    shelf.keep(tiles, features, torch.ones(features.shape[:2], dtype=torch.bool), symmetry.turn)
    done.write_text(json.dumps(list(slides.names)))


def kind_of_lite0(place: Place, turns: int) -> Kind:
    """What `train` calls features of the benchmark's EfficientNet-lite0, frozen, on a processor."""
    weights = read_encoder(place.weights)
    options = {"encoder": {"name": "efficientnet-lite0", "frozen": True, "turns": turns}}
    colours = {"mean": list(weights.mean), "std": list(weights.std)}
    model = build_model("grow", 2, tile_size=SIDE, tile_mpp=0.97, **options, **colours)
    contract = contract_of(model)
    assert contract.encoder is not None
    fill(contract.encoder, weights.tensors, str(place.weights))
    told = encoder_options("grow", options)
    return kind_of(contract.encoder, contract.preprocess, told, "32", "cpu")


def turned_features(slides: Slides, i: int, symmetry: Symmetry) -> tuple[TileSet, Tensor]:
    """The tiles of a slide (1, n), and their features (1, n, d) as they are seen when the whole slide is turned."""
    cells = slides.cells(i)
    places = np.stack([cells % CELLS, cells // CELLS], axis=-1) * SIDE
    index, turn = slides.index[i].ravel()[cells], slides.turn[i].ravel()[cells]
    features = slides.features[index, _seen_as(symmetry)[turn]].astype(np.float32)
    return TileSet(places[None], (SIDE, SIDE), 1.0), torch.from_numpy(features)[None]


@cache
def _seen_as(symmetry: Symmetry) -> NDArray[np.int64]:
    """Which turn of a stored tile shows what the symmetry makes of each of its turns, (8,)."""
    tile = np.arange(4).reshape(2, 2, 1)
    shown = [turned(tile, turn)[..., 0].tolist() for turn in range(8)]
    return np.array([shown.index(symmetry.image(torch.tensor(one)).tolist()) for one in shown])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("needle-work"))
    parser.add_argument("--variant", choices=VARIANTS, default=VARIANTS[0])
    given = parser.parse_args()
    fill_store(Place(given.work, given.variant, "lite0"))


if __name__ == "__main__":
    main()
