"""Coarse views whose tissue is known: our synthetic tissue under many stains, on many glasses, lights and artefacts."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from wsi_attention.testing import slide_scene

MPP = 16.0
"""µm per pixel of the views."""
SIDE = 288
"""Pixels of a view's side."""
FINE = 4
"""Tissue is painted so many times finer, then averaged."""

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Vector = tuple[float, float, float]

GLASSES: dict[str, tuple[int, int, int]] = {
    "white": (243, 243, 243),
    "clipped": (255, 255, 255),
    "yellowed": (235, 232, 205),
    "yellowed more": (238, 230, 200),
    "bluish": (205, 220, 245),
    "warm lamp": (248, 232, 190),
    "greenish": (226, 240, 222),
    "pinkish": (240, 228, 236),
    "lilac": (226, 221, 228),
    "grey": (200, 200, 200),
    "dark yellow": (200, 190, 150),
}
"""Colours of empty glass."""

STAINS: dict[str, tuple[Vector, Vector]] = {
    "H&E": ((0.62, 0.74, 0.34), (0.045, 0.50, 0.26)),
    "pale H&E": ((0.25, 0.30, 0.14), (0.018, 0.20, 0.10)),
    "eosin": ((0.01, 0.25, 0.12), (0.02, 0.30, 0.15)),
    "pale eosin": ((0.005, 0.10, 0.04), (0.01, 0.15, 0.07)),
    "haematoxylin": ((0.62, 0.70, 0.40), (0.10, 0.12, 0.07)),
    "greyish haematoxylin": ((0.58, 0.64, 0.52), (0.16, 0.18, 0.14)),
    "DAB, few positive": ((0.55, 0.60, 0.40), (0.14, 0.17, 0.12)),
    "DAB, strong": ((0.50, 0.55, 0.35), (0.27, 0.57, 0.78)),
    "silver": ((0.80, 0.80, 0.80), (0.22, 0.22, 0.22)),
    "silver on gold": ((0.80, 0.82, 0.85), (0.15, 0.18, 0.24)),
    "trichrome": ((0.55, 0.75, 0.45), (0.50, 0.30, 0.10)),
    "Giemsa": ((0.70, 0.60, 0.20), (0.35, 0.25, 0.08)),
    "PAS": ((0.45, 0.60, 0.25), (0.12, 0.55, 0.22)),
}
"""Optical densities (red, green, blue) of what haematoxylin and what eosin colours, at concentration 1."""

PENS: dict[str, tuple[int, int, int]] = {
    "black": (24, 24, 28),
    "blue": (40, 60, 180),
    "dark blue": (30, 40, 140),
    "green": (20, 130, 80),
    "red": (205, 30, 45),
    "dark red": (150, 25, 35),
    "purple": (110, 40, 140),
    "violet": (75, 35, 125),
    "orange": (240, 125, 35),
    "pink": (235, 60, 140),
}
"""Colours of ink on white glass."""


@dataclass(frozen=True)
class GlassScene:
    """What a view shows, in words.

    Attributes:
        stain: one of `STAINS`; "" for no tissue.
        glass: one of `GLASSES`.
        light: one of `LIGHTS`.
        artefact: one of `ARTEFACTS`, or "pen " and one of `PENS`.
        quality: of the JPEG.
    """

    stain: str = "H&E"
    glass: str = "white"
    light: str = "even"
    artefact: str = ""
    quality: int = 80

    def __str__(self) -> str:
        quality = f"JPEG {self.quality}" if self.quality != GlassScene.quality else ""
        words = (self.stain or "blank", self.glass, self.light if self.light != "even" else "", self.artefact, quality)
        return ", ".join(word for word in words if word)


@dataclass(frozen=True, eq=False)
class GlassView:
    """A view and what is known about it.

    Attributes:
        rgb: (h, w, 3).
        tissue: (h, w), where the tissue is.
        excluded: (h, w), where tissue can neither be asked for nor be wrong: under ink.
    """

    rgb: Rgb
    tissue: Mask
    excluded: Mask

    def overlap(self, mask: Mask) -> float:
        """Intersection over union of a mask with the tissue, 1 where both are empty."""
        seen = ~self.excluded
        union = int(((mask | self.tissue) & seen).sum())
        return int((mask & self.tissue & seen).sum()) / union if union else 1.0


@dataclass
class _Canvas:
    """A view in the making: transmitted light per channel in [0, 1], and the masks."""

    light: NDArray[np.float64]
    glass: NDArray[np.float64]
    tissue: Mask
    ink: Mask = field(init=False)

    def __post_init__(self) -> None:
        self.ink = np.zeros_like(self.tissue)


@cache
def concentrations() -> tuple[NDArray[np.float64], NDArray[np.float64], Mask]:
    """Haematoxylin and eosin of one synthetic section, and where it is: (SIDE, SIDE) each."""
    rng, mpp, side = np.random.default_rng([7, 3]), MPP / FINE, SIDE * FINE
    plan = slide_scene.plan_slide(rng, (side, side), mpp, 0.3, (), ())
    canvas = slide_scene.paint(plan, mpp, rng)
    h, e = (layer.reshape(SIDE, FINE, SIDE, FINE).mean((1, 3)) / 204 for layer in canvas.inner(0, 0, side, side))
    tissue = np.asarray(Image.fromarray(plan.tissue).resize((SIDE, SIDE), Image.Resampling.NEAREST))
    return h, e, tissue


def view_of(scene: GlassScene, seed: int = 0) -> GlassView:
    """The view that a scene describes; the same arguments give the same pixels."""
    rng = np.random.default_rng([seed, 5])
    h, e, tissue = concentrations()
    canvas = _Canvas(np.ones((SIDE, SIDE, 3)), np.array(GLASSES[scene.glass], np.float64), np.zeros_like(tissue))
    if scene.stain:
        first, second = (np.array(vector) for vector in STAINS[scene.stain])
        canvas.light, canvas.tissue = 10.0 ** -(h[..., None] * first + e[..., None] * second), tissue.copy()
    kind, _, colour = scene.artefact.partition(" ")
    if kind == "pen":
        _pen(canvas, np.array(PENS[colour]) / 243)
    rgb = canvas.light * canvas.glass * LIGHTS[scene.light]()
    rgb = rgb + rng.normal(0, 1.5, rgb.shape)
    if scene.artefact and kind != "pen":
        rgb = ARTEFACTS[scene.artefact](rgb, canvas)
    buffer = io.BytesIO()
    Image.fromarray(rgb.clip(0, 255).round().astype(np.uint8)).save(buffer, "JPEG", quality=scene.quality)
    return GlassView(np.array(Image.open(buffer)), canvas.tissue, canvas.ink)


def _even() -> NDArray[np.float64]:
    return np.ones((SIDE, SIDE, 1))


def _gradient() -> NDArray[np.float64]:
    return np.linspace(0.86, 1.0, SIDE)[None, :, None] * np.ones((SIDE, 1, 1))


def _vignetted() -> NDArray[np.float64]:
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    return np.asarray((1 - 0.35 * (x**2 + y**2))[..., None])


def _shaded_fields() -> NDArray[np.float64]:
    """Every field of the camera darker towards its corners, as a scanner without correction joins them."""
    y, x = (np.mgrid[:SIDE, :SIDE] % 48) / 48 - 0.5
    return np.asarray((1 - 0.10 * (x**2 + y**2))[..., None])


def _tinted_gradient() -> NDArray[np.float64]:
    """Warmer on one side: red and blue change by 4 % against each other."""
    across = np.linspace(-0.5, 0.5, SIDE)[None, :, None]
    return np.asarray(0.98 + across * np.array([0.04, 0.0, -0.04]) + np.zeros((SIDE, 1, 1)))


LIGHTS: dict[str, Callable[[], NDArray[np.float64]]] = {
    "even": _even,
    "gradient": _gradient,
    "vignetted": _vignetted,
    "shaded fields": _shaded_fields,
    "tinted gradient": _tinted_gradient,
}
"""What the lamp and the optics make of an even field, (SIDE, SIDE, 1 or 3)."""


def _pen(canvas: _Canvas, colour: NDArray[np.float64]) -> None:
    """A ring round some tissue and a stroke beside it, slightly uneven, soft at its edge."""
    stroke = Image.new("L", (SIDE, SIDE))
    draw = ImageDraw.Draw(stroke)
    draw.ellipse((150, 20, 268, 120), outline=255, width=9)
    draw.line([(14, 262), (60, 200), (90, 270), (140, 262)], 255, 9, joint="curve")
    cover = np.asarray(stroke.filter(ImageFilter.GaussianBlur(0.8)), np.float64)[..., None] / 255
    uneven = np.random.default_rng(9).normal(0, 1, (SIDE // 12, SIDE // 12))
    streaks = np.asarray(Image.fromarray(uneven.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    canvas.light = canvas.light * colour ** (cover * (1 + 0.06 * streaks[..., None]))
    canvas.ink = cover[..., 0] > 0.02


def _unscanned(rgb: NDArray[np.float64], canvas: _Canvas, value: int) -> NDArray[np.float64]:
    """A stepped border that was never scanned."""
    outside = np.ones((SIDE, SIDE), np.bool_)
    outside[40:250, 30:210] = outside[70:200, 30:260] = outside[20:180, 60:200] = False
    canvas.tissue &= ~outside
    return np.where(outside[..., None], value, rgb)


def _mostly_unscanned(rgb: NDArray[np.float64], canvas: _Canvas, value: int) -> NDArray[np.float64]:
    """One small field was scanned, all else is empty."""
    outside = np.ones((SIDE, SIDE), np.bool_)
    outside[100:170, 100:185] = False
    canvas.tissue &= ~outside
    return np.where(outside[..., None], value, rgb)


def _shadow(rgb: NDArray[np.float64], canvas: _Canvas) -> NDArray[np.float64]:
    """The shadow of a coverslip's edge, and a fibre."""
    shade = np.ones((SIDE, SIDE))
    shade[:, 268:276] = 0.55
    shade[8:12, :] = 0.7
    return rgb * shade[..., None]


def _bubbles(rgb: NDArray[np.float64], canvas: _Canvas) -> NDArray[np.float64]:
    """Air under the coverslip: dark rims round clear middles."""
    y, x = np.mgrid[:SIDE, :SIDE]
    shade = np.ones((SIDE, SIDE))
    for left, top, radius in ((30, 40, 20), (262, 250, 14), (20, 200, 11)):
        shade -= 0.45 * np.exp(-(((np.hypot(x - left, y - top) - radius) / 1.2) ** 2))
    canvas.tissue &= shade > 0.9
    return rgb * shade[..., None]


def _medium(rgb: NDArray[np.float64], canvas: _Canvas) -> NDArray[np.float64]:
    """Yellowed mounting medium under the coverslip, bare glass beside it."""
    tint = np.ones((SIDE, SIDE, 3))
    tint[14:274, 14:274] = np.array([235, 231, 208]) / 243
    return rgb * tint


def _dust(rgb: NDArray[np.float64], canvas: _Canvas) -> NDArray[np.float64]:
    """Grey specks all over."""
    rng = np.random.default_rng(4)
    shade = np.ones((SIDE, SIDE))
    for x, y in rng.integers(2, SIDE - 2, (60, 2)):
        shade[y : y + 2, x : x + 1] = rng.uniform(0.3, 0.8)
    return rgb * shade[..., None]


ARTEFACTS: dict[str, Callable[[NDArray[np.float64], _Canvas], NDArray[np.float64]]] = {
    "black border": lambda rgb, canvas: _unscanned(rgb, canvas, 0),
    "white border": lambda rgb, canvas: _unscanned(rgb, canvas, 255),
    "grey border": lambda rgb, canvas: _unscanned(rgb, canvas, 240),
    "mostly black": lambda rgb, canvas: _mostly_unscanned(rgb, canvas, 0),
    "mostly white": lambda rgb, canvas: _mostly_unscanned(rgb, canvas, 255),
    "shadow": _shadow,
    "bubbles": _bubbles,
    "yellow medium": _medium,
    "dust": _dust,
}
"""What else lies on the glass or surrounds it."""


def scenes() -> tuple[GlassScene, ...]:
    """Every stain on some glasses, every glass under some stains; every light, artefact and pen; and blank glass."""
    some = ("white", "yellowed", "bluish", "pinkish")
    found = [GlassScene(stain, glass) for stain in STAINS for glass in some]
    found += [GlassScene(stain, glass) for stain in ("H&E", "pale H&E", "greyish haematoxylin") for glass in GLASSES]
    found += [GlassScene("pale H&E", glass, light) for glass in some[:3] for light in LIGHTS]
    for stain, glass in (("pale H&E", "white"), ("H&E", "bluish"), ("silver", "pinkish"), ("DAB, strong", "yellowed")):
        found += [GlassScene(stain, glass, artefact=artefact) for artefact in ARTEFACTS]
        found += [GlassScene(stain, glass, artefact=f"pen {pen}") for pen in PENS]
    found += [GlassScene("H&E", glass, quality=40) for glass in some]
    found += [GlassScene("", glass, light) for glass in GLASSES for light in ("even", "shaded fields")]
    found += [GlassScene("", glass, light) for glass in some for light in LIGHTS]
    found += [GlassScene("", glass, artefact=artefact) for glass in ("yellowed", "bluish") for artefact in ARTEFACTS]
    return tuple(dict.fromkeys(found))
