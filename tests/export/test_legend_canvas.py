from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageFont

from wsi_attention.export import legend as canvas


def test_lightness_of_the_ramp_rises_evenly() -> None:
    colors = canvas.ramp(np.linspace(0, 1, 50)) / 255
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ np.array([0.2126, 0.7152, 0.0722])) - 16
    steps = np.diff(lightness)
    assert (steps > 0).all()
    assert steps.max() < 2.5 * steps.min()


@pytest.mark.parametrize(
    ("longest", "expected"), [(1, 1), (1.99, 1), (2, 2), (4.9, 2), (5, 5), (999, 500), (1000, 1000), (0.03, 0.02)]
)
def test_round_lengths(longest: float, expected: float) -> None:
    assert canvas.round_length(longest) == pytest.approx(expected)


def test_lengths_have_the_fitting_unit() -> None:
    assert [canvas.length_text(v) for v in (0.5, 200, 1000, 5000)] == ["0.5 µm", "200 µm", "1 mm", "5 mm"]


def test_a_fitted_text_keeps_both_ends() -> None:
    text = "TCGA-CR-7395-01A-01-TS1.b8b0f7e2-6d5d-4a6c.svs"
    short = canvas.fitted(text, 20, 200)
    assert canvas.width_of(short, 20) <= 200
    assert short.startswith("TCGA") and short.endswith(".svs")
    assert canvas.fitted(text, 20, 10_000) == text
    assert canvas.fitted(text, 20, 1) == "…"


def test_without_an_installed_typeface_text_is_still_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "FACES", ("No Such Face.ttf",))
    canvas.face.cache_clear()
    canvas.font.cache_clear()
    try:
        assert canvas.face() is None
        assert canvas.legible("50 µm × 2…") == "50 um x 2..."
        assert canvas.legible("病") == "?"
        assert isinstance(canvas.font(20), ImageFont.FreeTypeFont | ImageFont.ImageFont)
        assert canvas.width_of("50 µm", 20) > 0
    finally:
        canvas.face.cache_clear()
        canvas.font.cache_clear()
