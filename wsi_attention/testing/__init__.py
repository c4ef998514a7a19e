"""Contract suites and synthetic slides; they ship with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_attention.lazy import on_first_use

if TYPE_CHECKING:
    from wsi_attention.testing.exporters import ExporterContract, example_prediction
    from wsi_attention.testing.models import ModelContract
    from wsi_attention.testing.readers import ReaderContract
    from wsi_attention.testing.slides import SlideSpec, write_slide

__all__ = [
    "ExporterContract",
    "ModelContract",
    "ReaderContract",
    "SlideSpec",
    "example_prediction",
    "write_slide",
]
__getattr__, __dir__ = on_first_use(
    __name__,
    {
        "ExporterContract": "exporters",
        "ModelContract": "models",
        "ReaderContract": "readers",
        "SlideSpec": "slides",
        "example_prediction": "exporters",
        "write_slide": "slides",
    },
)
