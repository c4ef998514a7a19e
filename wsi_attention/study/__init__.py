"""Labelled slides to a study: folds, predictions of slides that no model has seen, an ensemble, a record of it all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_attention.lazy import on_first_use

if TYPE_CHECKING:
    from wsi_attention.study.crossvalidate import crossvalidate
    from wsi_attention.study.record import write_record

__all__ = [
    "crossvalidate",
    "write_record",
]
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "crossvalidate": "crossvalidate",
        "write_record": "record",
    },
)
