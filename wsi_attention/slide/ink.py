"""Pen marks on glass, told from stain by what they absorb most, how strongly, and that they are strokes on glass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_attention.slide.masks import Mask, large_components, widened, without_specks

STROKE = 30_000.0
"""µm²: a pen leaves strokes, not specks; less ink-coloured area than this is pigment, a counterstain or dirt."""
GLASS, LEAST_GLASS = 0.05, 0.02
"""Pens write on glass: ink is only looked for where this share of the slide lets light through, up to that density."""
NEARLY_GLASS = 0.12
"""Density of glass beside a stroke at most, in uneven light and with its smear."""
LARGEST_OF_SLIDE, LARGEST_OF_STAIN = 0.2, 0.9
"""Where more than this of the slide, or of all coloured area, looks like ink, it is the stain's own colour."""
BESIDE_GLASS = 0.4
"""Share of a warm or vivid stroke's surroundings that is glass at least; what lies within tissue belongs to it."""
LONG = 10.0
"""Area of a vivid stroke at least, in squares of half its width; a disc has 3.1."""
REACH = 24.0
"""µm by which strokes are widened for their soft rims, two pixels at least."""
LABELLED = 4_000_000
"""Pixels in which strokes are measured; larger views are thinned out for it."""

HUE, STRONG, WARM_HUE, WARM, VIVID, CLEAR, NEARLY_CLEAR = 1, 2, 4, 8, 16, 32, 64
"""What `ink_classes` says of a pixel, a bit each: it has the hue of blue, green or black ink, or is certainly such ink;
the same of red or orange ink; as strong a colour as purple or pink ink; it is as clear as glass, or nearly."""
CERTAIN = STRONG | WARM | VIVID

Classes = NDArray[np.uint8]


def ink_classes(density: NDArray[np.float32], lightest: NDArray[np.float32], darkest: NDArray[np.float32]) -> Classes:
    """Return for each pixel, as bits, which kinds of ink it may be.

    Haematoxylin, eosin and DAB absorb green or blue at least as much as red, ink of blue and green pens absorbs red
    most; black ink absorbs everything; red and orange ink absorb blue nearly as much as green or more, and hardly any
    red; purple and pink ink have the hue of stain, but are darker than a section is from afar.

    Args:
        density: (3, h, w) optical density against the glass.
        lightest: (h, w) its smallest channel.
        darkest: (h, w) its largest.
    """
    red, green, blue = density
    found = (darkest < NEARLY_GLASS).astype(np.uint8) * NEARLY_CLEAR
    found |= (darkest < GLASS).astype(np.uint8) * CLEAR
    if darkest.max(initial=0) <= 0.08:
        return found
    for strong, hue in (_cold(red, green, blue), _black(lightest, darkest)):
        found |= strong.astype(np.uint8) * STRONG | hue.astype(np.uint8) * HUE
    warm, warm_hue, vivid = _warm(red, green, blue, lightest, darkest)
    found |= warm.astype(np.uint8) * WARM | warm_hue.astype(np.uint8) * WARM_HUE | vivid.astype(np.uint8) * VIVID
    return found


def find_ink(classes: Classes, stained: Mask, glass: float, side: float, grey: bool = False) -> Mask:
    """Mark ink. Certain ink is the seed, and what touches it with the same hue is its rim.

    Args:
        classes: (h, w) of the whole slide, from `ink_classes`.
        stained: (h, w) bool, everything with colour, ink included.
        glass: share of the slide with a density below `GLASS`.
        side: µm per pixel.
        grey: whether the stain itself is grey or black, so that grey is no sign of ink's rim.

    Returns:
        (h, w) bool; empty where the colour is so common that it is the stain, and where no glass is to be seen.
    """
    ink = np.zeros_like(stained)
    if glass < LEAST_GLASS:
        return ink
    clear, least = (classes & NEARLY_CLEAR) > 0, STROKE / side**2
    strokes = [_seeded(classes, STRONG, STRONG if grey else STRONG | HUE, least)]
    warm = _seeded(classes, WARM, WARM | WARM_HUE, least)
    strokes.append(_beside_glass(warm, clear, 0.0))
    strokes.append(_beside_glass(_seeded(classes, VIVID, VIVID, least), clear, LONG))
    for found in strokes:
        if found.any() and found.mean() <= LARGEST_OF_SLIDE and not _is_the_stain(found, stained):
            ink |= widened(found, max(2, round(REACH / side)))
    return ink


def _seeded(classes: Classes, seed: int, of_hue: int, least: float) -> Mask:
    """Return the areas of a hue that hold pixels of certain ink."""
    seeds, hue = (classes & seed) > 0, (classes & of_hue) > 0
    if not seeds.any() or np.count_nonzero(hue) < least:
        return np.zeros_like(seeds)
    return without_specks(hue if seed == of_hue else large_components(hue, 1, connectivity=1, counted=seeds), least)


def _is_the_stain(ink: Mask, stained: Mask) -> bool:
    return int((ink & stained).sum()) > LARGEST_OF_STAIN * int(stained.sum())


def _cold(red: NDArray[np.float32], green: NDArray[np.float32], blue: NDArray[np.float32]) -> tuple[Mask, Mask]:
    """Return blue and green ink."""
    excess = red - np.maximum(green, 0.9 * blue)
    strong = (red > 0.35) & (excess > 0.12)
    deep_blue = (red > 0.6) & (blue < 0.42 * red) & (green < 1.1 * red)
    hue = (red > 0.08) & (excess > 0.1 * red)
    return (strong & hue) | deep_blue, hue


def _black(low: NDArray[np.float32], high: NDArray[np.float32]) -> tuple[Mask, Mask]:
    """Return black ink, and its grey rim."""
    grey = (high > 0.15) & (high - low < 0.15 * high)
    return (low > 0.7) & (high - low < 0.25 * high), grey


def _warm(
    red: NDArray[np.float32],
    green: NDArray[np.float32],
    blue: NDArray[np.float32],
    low: NDArray[np.float32],
    high: NDArray[np.float32],
) -> tuple[Mask, Mask, Mask]:
    """Return red and orange ink, their hue, and what is as strongly coloured as purple and pink ink."""
    hue = (high > 0.1) & (blue > 0.65 * green) & (red < 0.3 * high)
    strong = hue & (high > 0.5) & ((red < 0.18 * high) | (high > 0.8))
    vivid = (high > 0.55) & (high - low > 0.5 * high)
    return strong, hue, vivid


def _beside_glass(found: Mask, clear: Mask, longest: float) -> Mask:
    """Return the areas that mostly lie beside glass and are long enough: area over the square of half the width."""
    from scipy.ndimage import distance_transform_edt, label, maximum
    from scipy.ndimage import sum as total

    if not found.any():
        return found
    step = int(np.ceil(np.sqrt(found.size / LABELLED)))
    small = found[::step, ::step]
    labels, count = label(small, np.ones((3, 3)))
    numbers = np.arange(1, count + 1)
    # each area's own surroundings: labels widened by three pixels, less the two next to it, which are its rim
    ring = _widened_labels(labels) * (~widened(small, 2) & widened(small, 4))
    around = np.bincount(ring.ravel(), minlength=count + 1)[1:]
    on_glass = np.bincount(ring[clear[::step, ::step]], minlength=count + 1)[1:]
    kept = on_glass >= np.maximum(BESIDE_GLASS * around, 1)
    if longest:
        width = maximum(distance_transform_edt(small), labels, numbers)
        kept &= total(small, labels, numbers) >= longest * np.square(width)
    seeds = np.zeros_like(found)
    seeds[::step, ::step] = np.concatenate([[False], kept])[labels]
    return large_components(found, 1, connectivity=2, counted=seeds) if seeds.any() else seeds


def _widened_labels(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    from scipy.ndimage import maximum_filter

    return np.asarray(maximum_filter(labels, 9), np.int32)
