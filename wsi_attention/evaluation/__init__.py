"""How good predictions are, measured against labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_attention.lazy import on_first_use

if TYPE_CHECKING:
    from wsi_attention.evaluation.evaluation import Evaluation, evaluate

__all__ = [
    "Evaluation",
    "evaluate",
]
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "Evaluation": "evaluation",
        "evaluate": "evaluation",
    },
)
