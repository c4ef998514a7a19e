"""Features of tiles that an earlier run has kept: which store a run uses, and what of it one slide may use."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from wsi_attention.checkpoint import Classifier
from wsi_attention.feature_store.kind import kind_of
from wsi_attention.feature_store.store import FeatureStore, Told, open_store
from wsi_attention.inference.quantised import named_with
from wsi_attention.protocols import contract_of
from wsi_attention.tiles.source import SlideSource

LOGGER = "wsi_attention.feature_store"
"""The log that says what could not be kept; a worker process hands it on to the one that started it."""


class _Once(logging.Filter):
    """Lets each text pass once, however many workers say it."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is new."""
        text = record.getMessage()
        new = text not in self.said
        self.said.add(text)
        return new


_ONCE = _Once()
_OPENED: dict[tuple[Path, float], FeatureStore] = {}


def warn_anew() -> Told:
    """Return what writes a warning to the log, each text once from now on."""
    _ONCE.said.clear()
    return _warning()


def _warning() -> Told:
    log = logging.getLogger(LOGGER)
    log.addFilter(_ONCE)
    return log.warning


def store_at(folder: str | os.PathLike[str] | None, gigabytes: float) -> FeatureStore | None:
    """Return the store in a folder, opened once in each process; None where there is none to use.

    Raises:
        InputError: the folder holds something else, or the limit is no size.
    """
    if folder is None:
        return None
    key = Path(folder).absolute(), gigabytes
    store = _OPENED.get(key) or open_store(*key, _warning())
    return None if store is None else _OPENED.setdefault(key, store)


@contextmanager
def known_to(
    source: SlideSource, store: FeatureStore | None, classifier: Classifier, precision: str, device: torch.device
) -> Iterator[None]:
    """Let a source know what the store has of its slide, and the store keep what is encoded, for the time of a block.

    Args:
        source: of an open slide.
        store: None for none.
        classifier: whose encoder it is.
        precision: "32", "bf16", "openvino" or "int8".
        device: where it computes.
    """
    model = contract_of(classifier.model)
    identity = source.slide.identity if store and model.encoder else ""
    if store is None or model.encoder is None or not identity:
        yield
        return
    options = classifier.config.get("options") or {}
    kind = kind_of(model.encoder, model.preprocess, options.get("encoder"), named_with(classifier, precision), device)
    with store.shelf(kind, identity) as shelf:
        source.memory = shelf
        try:
            yield
        finally:
            source.memory = None
