"""What else in a file speaks of its scale, and whether it says the same as the tag that the scale is taken from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from wsi_attention.geometry import same_scale
from wsi_attention.slide.metadata import Mpp, number, other_scales

AT_ONE_POWER = 10.0
"""µm per pixel times magnification of Aperio's scanners: 0.25 at 40x, 0.5 at 20x."""
FAR = 1.5
"""Factor by which the two may be apart."""


def scale_doubts(mpp: Mpp, properties: Mapping[str, str], extent: tuple[int, int]) -> tuple[str, ...]:
    """Say what in a file contradicts its scale, a sentence each.

    Args:
        mpp: what the file's scale is taken to be.
        properties: the file's tags.
        extent: (w, h) of level 0 in pixels.
    """
    if mpp.xy is None or mpp.source == "given":
        return ()
    return tuple(
        f"mpp {mpp.xy[0]:.4g} ({mpp.source}) is in doubt: {doubt}"
        for doubt in (*_by_other_tags(mpp, properties), *_by_other_facts(mpp.xy, properties, extent))
    )


def _by_other_tags(mpp: Mpp, properties: Mapping[str, str]) -> Iterator[str]:
    for source, (x, y) in other_scales(properties, mpp).items():
        yield f"its {source} says {x:.4g} × {y:.4g} µm"


def _by_other_facts(xy: tuple[float, float], properties: Mapping[str, str], extent: tuple[int, int]) -> Iterator[str]:
    power = number(properties.get("aperio.AppMag"))
    if power is not None and not 1 / FAR < xy[0] * power / AT_ONE_POWER < FAR:
        yield f"at its magnification of {power:g}x a pixel has about {AT_ONE_POWER / power:.2g} µm"
    for axis, name, pixels, side in zip("xy", ("Width", "Height"), extent, xy, strict=True):
        length = number(properties.get(f"dicom.ImagedVolume{name}"))
        if length is not None and not same_scale(length * 1e3 / pixels, side):
            yield f"the {name.lower()} of its volume, {length:.4g} mm, makes {length * 1e3 / pixels:.4g} µm in {axis}"
            return
