"""The suites that ship with wsi-attention, run by this package on what it adds: `python -m pytest contracts.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from outside_wsi.exporter import BoxesExporter
from outside_wsi.method import brightest
from outside_wsi.reader import NpzReader
from torch import nn

from wsi_attention.testing import ExporterContract, ModelContract, ReaderContract


class TestReader(ReaderContract):
    reader = NpzReader

    @pytest.fixture(autouse=True)
    def slide(self, tmp_path: Path) -> None:
        self.path = str(tmp_path / "a.slide.npz")
        pixels = np.random.default_rng(0).integers(0, 255, (301, 407, 3), np.uint8)
        np.savez(self.path, **{"0": pixels, "1": pixels[::2, ::2], "2": pixels[::4, ::4]}, mpp=0.5)


class TestMethod(ModelContract):
    def build(self) -> nn.Module:
        return brightest(self.classes, tile_size=16, tile_mpp=1.0, overview_mpp=2.0)


class TestExporter(ExporterContract):
    exporter = BoxesExporter()
