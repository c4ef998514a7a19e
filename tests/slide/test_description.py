"""What a slide says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wsi_attention.slide import description
from wsi_attention.slide.description import describe
from wsi_attention.slide.slide import Slide, open_slide


def test_the_facts_are_plain_values(tiled_tiff: Path) -> None:
    with open_slide(tiled_tiff) as slide:
        facts = json.loads(json.dumps(describe(slide)))
        assert facts["slide"] == str(tiled_tiff)
        assert tuple(facts["size"]) == slide.dimensions
        assert [(level["width"], level["height"]) for level in facts["levels"]] == list(slide.level_dimensions)
        assert (facts["mpp"], facts["mpp_source"]) == (list(slide.mpp_xy or ()), slide.mpp_source)
        assert facts["fingerprint"] == slide.fingerprint


def test_a_dark_slide_is_odd_and_so_is_one_without_mpp() -> None:
    odd = " ".join(describe(open_slide(np.zeros((300, 300, 3), np.uint8)))["odd"])
    assert "fluorescence or dark field" in odd
    assert "no mpp" in odd


def test_a_slide_without_a_small_level_is_not_read_through(monkeypatch: pytest.MonkeyPatch) -> None:
    slide = open_slide(np.zeros((300, 300, 3), np.uint8), mpp=0.5)
    _ = slide.fingerprint
    monkeypatch.setattr(description, "AFFORDABLE", 300 * 300 - 1)
    monkeypatch.setattr(Slide, "read", None)
    assert describe(slide)["odd"] == list(slide.oddities())
