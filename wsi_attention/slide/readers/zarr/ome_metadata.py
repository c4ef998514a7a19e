"""OME-Zarr's metadata, checked: which arrays are the levels, which axis is which, how large a pixel is.

OME-Zarr 0.4 (https://ngff.openmicroscopy.org/0.4/) keeps `multiscales` in the group's attributes, 0.5 under `ome`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TypedDict

from wsi_attention.errors import SlideOpenError, UnsupportedSlideError
from wsi_attention.geometry import MPP_TOLERANCE, same_scale
from wsi_attention.slide.metadata import number, scaled
from wsi_attention.slide.readers.limits import downsamples


class _Transformation(TypedDict, total=False):
    type: str
    scale: list[object]


class _Scaled(TypedDict, total=False):
    coordinateTransformations: list[_Transformation]


class _Dataset(_Scaled):
    path: str


class _Pyramid(_Scaled, total=False):
    """An entry of `multiscales`, as far as it keeps to the format."""

    name: str
    axes: list[Mapping[str, str] | str]
    datasets: list[_Dataset]


@dataclass(frozen=True)
class Multiscale:
    """One pyramid.

    Attributes:
        paths: the array of each level below the group, finest first.
        axes: one letter a dimension, e.g. "cyx".
        units: the unit of each axis, "" where none is named.
        scales: a level's factors an axis; empty where the file names none.
        name: what the file calls it; empty where it does not.
    """

    paths: tuple[str, ...]
    axes: str
    units: tuple[str, ...]
    scales: tuple[tuple[float, ...], ...]
    name: str = ""

    def in_order(self, order: Sequence[int]) -> Multiscale:
        """Return the pyramid with its levels in another order."""
        scales = tuple(self.scales[level] for level in order) if self.scales else ()
        return replace(self, paths=tuple(self.paths[level] for level in order), scales=scales)

    def mpp(self) -> tuple[float, float] | None:
        """Return (x, y) µm per pixel of the finest level; None without a usable scale and unit."""
        if not self.scales:
            return None
        x, y = (scaled(self.scales[0][self.axes.index(axis)], self.units[self.axes.index(axis)]) for axis in "xy")
        return None if x is None or y is None else (x, y)

    def downsamples(self, levels: tuple[tuple[int, int], ...]) -> tuple[float, ...]:
        """Return the downsamples of the scales, where they fit the shapes within 5 %; else those of the shapes."""
        by_shape, by_scale = downsamples(levels), self._scaled_down()
        return by_scale if by_scale and all(map(same_scale, by_scale, by_shape)) else by_shape

    def doubts(self, levels: tuple[tuple[int, int], ...]) -> tuple[str, ...]:
        """Say at which level the scales and the shapes tell different downsamples, by more than 5 % and two pixels."""
        for level, (scaled_down, shaped) in enumerate(zip(self._scaled_down(), downsamples(levels), strict=False)):
            within = 1 + MPP_TOLERANCE + 2 / min(levels[level])
            if max(scaled_down / shaped, shaped / scaled_down) > within:
                told = f"{scaled_down:.3g}× coarser than level 0, its size says {shaped:.3g}×"
                return (f"the µm per pixel are in doubt: the scale of level {level} says {told}",)
        return ()

    def _scaled_down(self) -> tuple[float, ...]:
        """Return each level's downsample as its scale says; empty where the file names no scales."""
        if not self.scales:
            return ()
        x, y = self.axes.index("x"), self.axes.index("y")
        first = self.scales[0]
        return tuple((scale[x] / first[x] + scale[y] / first[y]) / 2 for scale in self.scales)


def multiscales(attributes: Mapping[str, object], path: str) -> list[Multiscale]:
    """Return the pyramids that a group's attributes describe.

    Raises:
        SlideOpenError: a description is broken, or names an array outside the store.
        UnsupportedSlideError: the only one has no x, y and colour axes.
    """
    described = attributes.get("ome", attributes)
    entries = described.get("multiscales") if isinstance(described, Mapping) else None
    found: list[Multiscale] = []
    refused: list[UnsupportedSlideError] = []
    for entry in entries or ():
        try:
            found.append(_multiscale(entry, path))
        except UnsupportedSlideError as error:  # another image of the group may be the slide
            refused.append(error)
    if refused and not found:
        raise refused[0]
    return found


def _multiscale(entry: _Pyramid, path: str) -> Multiscale:
    axes, units = _axes(entry.get("axes"), path)
    datasets = entry.get("datasets") or []
    if not datasets:
        raise SlideOpenError(f"{path}: its OME-Zarr metadata names no levels; the store is damaged")
    paths = tuple(_inside(dataset["path"], path) for dataset in datasets)
    outer = _scale(entry, len(axes)) or (1.0,) * len(axes)
    scales = [_scale(dataset, len(axes)) for dataset in datasets]
    combined = tuple(tuple(a * b for a, b in zip(scale, outer, strict=True)) for scale in scales if scale)
    name = str(entry.get("name") or "")
    return Multiscale(paths, axes, units, combined if len(combined) == len(paths) else (), name)


def channels(attributes: Mapping[str, object]) -> tuple[list[str], list[str]]:
    """Return the channels' names and colours (RRGGBB) in a group's `omero` attributes; empty where there are none."""
    described = attributes.get("ome", attributes)
    rendering = described.get("omero") if isinstance(described, Mapping) else None
    found = rendering.get("channels") if isinstance(rendering, Mapping) else None
    kept = [channel for channel in found or () if isinstance(channel, Mapping)]
    return [str(one.get("label", "")) for one in kept], [str(one.get("color", "")) for one in kept]


def _axes(described: list[Mapping[str, str] | str] | None, path: str) -> tuple[str, tuple[str, ...]]:
    if not described:
        return "tczyx", ("",) * 5
    entries = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in described]
    axes = tuple(str(axis.get("name", "")).lower() for axis in entries)
    if not {"c", "y", "x"} <= set(axes) <= set("tczyx") or len(set(axes)) != len(axes):
        raise UnsupportedSlideError(f"{path}: axes {axes}; an RGB slide has c, y and x (and t and z of length one)")
    return "".join(axes), tuple(str(axis.get("unit", "")) for axis in entries)


def _inside(name: object, path: str) -> str:
    """Return a dataset's path; refuse one that would lead out of the store."""
    parts = PurePosixPath(str(name)).parts
    if not parts or str(name).startswith("/") or ".." in parts or "\\" in str(name) or ":" in str(name):
        raise SlideOpenError(f"{path}: its metadata names a level at {str(name)!r}, outside the store; do not trust it")
    return "/".join(parts)


def _scale(entry: _Scaled, length: int) -> tuple[float, ...] | None:
    for transform in entry.get("coordinateTransformations") or ():
        if transform.get("type") == "scale":
            factors = tuple(number(factor) for factor in transform.get("scale") or ())
            if len(factors) == length and None not in factors:
                return tuple(factor for factor in factors if factor is not None)
    return None
