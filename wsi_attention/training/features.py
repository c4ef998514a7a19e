"""Features of a frozen encoder in training: kept in a feature store, which methods, folds and runs share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn

from wsi_attention.config import Recipe
from wsi_attention.errors import InputError
from wsi_attention.feature_store.kind import Kind, kind_of
from wsi_attention.feature_store.shelf import Shelf
from wsi_attention.feature_store.store import FeatureStore, open_store
from wsi_attention.methods.method import encoder_options
from wsi_attention.nn.encoders import Frozen
from wsi_attention.protocols import contract_of
from wsi_attention.slide.slide import Slide
from wsi_attention.training.listener import Listener

BESIDE = "features"
"""Name of the store's folder beside the model folder, where none is named."""
COLOURS = (
    "augmentation changes the colours of training slides, so that features are kept of validation alone;"
    " stain = 0 and brightness = 0 under [augmentation] keep them all, and overview_stain changes overviews alone"
)
LEARNS = "the encoder learns, so that its features are not kept; frozen = true under [model.encoder] leaves it as it is"


@dataclass(frozen=True)
class Place:
    """Where a training keeps features.

    Attributes:
        folder: as the caller named it; None for the default, beside the model folder.
        gigabytes: limit of its size; 0 keeps none.
        beside: the model folder.
    """

    folder: str | Path | None
    gigabytes: float
    beside: Path

    def opened(self, listener: Listener) -> FeatureStore | None:
        """Return the store; None where there is none to use, which is told.

        Raises:
            InputError: the folder that the caller named holds something else, or the limit is no size.
        """

        def tell(text: str) -> None:
            listener.line(f"note: {text}")

        if self.folder is not None:
            return open_store(self.folder, self.gigabytes, tell)
        folder = self.beside.absolute().parent / BESIDE
        try:
            return open_store(folder, self.gigabytes, tell)
        except InputError as error:
            if not folder.exists():
                raise
            tell(f"features are not kept: {error}; name another with --feature-store")
            return None


@dataclass(frozen=True, eq=False)
class Kept:
    """Known features of slides, by one encoder; what `data.opened` asks for.

    Attributes:
        store: keeps them.
        kind: returns the kind of features that the encoder gives now: in training it sees tiles in one turn.
    """

    store: FeatureStore
    kind: Callable[[], Kind]
    _identities: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def __call__(self, slide: Slide, name: str) -> Iterator[Shelf | None]:
        """Yield the features of an open slide; its identity is found once for each name, as that reads the file."""
        if name not in self._identities:
            self._identities[name] = slide.identity
        identity = self._identities[name]
        if not identity:
            yield None
            return
        with self.store.shelf(self.kind(), identity) as shelf:
            yield shelf


def kept_features(
    place: Place,
    recipe: Recipe,
    model: nn.Module,
    arguments: dict[str, object],
    precision: str,
    device: torch.device,
    listener: Listener,
) -> Kept | None:
    """Return what keeps the features of a model's frozen encoder; None where it has none.

    Args:
        place: where to.
        recipe: of the training.
        model: with the weights that training starts from.
        arguments: the method's options.
        precision: "32" or "bf16".
        device: where the model computes.
        listener: told why nothing is kept, or not all.

    Raises:
        InputError: the folder that the caller named holds something else, or the limit is no size.
    """
    encoder = contract_of(model).encoder
    if not isinstance(encoder, Frozen):
        if encoder is not None and place.folder is not None:
            listener.line(f"note: {LEARNS}")
        return None
    store = place.opened(listener)
    if store is None:
        return None
    if recipe.augmentation.stain or recipe.augmentation.brightness:
        listener.line(f"note: {COLOURS}")
    options = encoder_options(recipe.method, arguments)
    return Kept(store, partial(kind_of, encoder, contract_of(model).preprocess, options, precision, device))
