"""What every model in the package must say of itself, and that none is large."""

from __future__ import annotations

import re

import pytest
import torch

from wsi_attention.checkpoint import SHIPPED, load_model, shipped_models
from wsi_attention.tiles.tensors import TensorSource

MOST = 12e6
"""Bytes of a folder."""


def test_there_are_two() -> None:
    assert shipped_models() == ("demo", "lymph-node-mosaic")


@pytest.mark.parametrize("name", shipped_models())
def test_it_is_small_and_says_what_it_is_for(name: str) -> None:
    known = load_model(name)
    card = (SHIPPED / name / "README.md").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in (SHIPPED / name).iterdir()) <= MOST
    assert known.purpose in ("demonstration", "research example")
    assert known.purpose in card and "Not a medical device" in card


@pytest.mark.parametrize("name", shipped_models())
def test_it_carries_no_path_of_the_machine_that_made_it(name: str) -> None:
    for file in ("config.json", "README.md"):
        text = (SHIPPED / name / file).read_text(encoding="utf-8")
        assert not re.findall(r'"(?:/|~|[A-Za-z]:\\\\)[^"]*"', text), file


@pytest.mark.parametrize("name", shipped_models())
def test_it_classifies(name: str) -> None:
    known = load_model(name)
    pixels = torch.randint(90, 200, (1, 3, 1536, 1536), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = known.model.eval()(TensorSource(pixels, mpp=known.model.tile_mpp))
    assert found.logits.shape == (1, len(known.classes)) and bool(found.logits.isfinite().all())
