"""The images of an OME-Zarr store, and which of them is the slide.

A store holds one image at its root, several pyramids in one group, or, as bioformats2raw lays it out, an image a group,
listed in the attribute `series` of the group `OME` or simply numbered from 0. `OME/METADATA.ome.xml` has their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import unescape
from typing import TYPE_CHECKING

from wsi_attention.errors import SlideOpenError, UnsupportedSlideError
from wsi_attention.slide.images import Series, StoredImage, choose
from wsi_attention.slide.readers.zarr.ome_metadata import Multiscale, multiscales

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import Store

    from wsi_attention.slide.readers.zarr.chunks import ZarrArray

MAX_IMAGES = 1000
"""Images that are looked for."""
MAX_XML = 2**24
"""Bytes of an OME-XML that is read for the names of images."""
_NAME = re.compile(r"<(?:\w+:)?Image\b[^>]*?\bName\s*=\s*[\"']([^\"']*)[\"']")


@dataclass(frozen=True, eq=False)
class ZarrImage:
    """One image.

    Attributes:
        about: its number, name and size.
        group: that holds it.
        pyramid: its levels, finest first.
        arrays: of each level.
    """

    about: StoredImage
    group: zarr.Group
    pyramid: Multiscale
    arrays: list[ZarrArray]


@dataclass(frozen=True, eq=False)
class Picked:
    """The image that is the slide, all images of the store, and what a reader should know of the choice."""

    image: ZarrImage
    images: tuple[StoredImage, ...]
    notes: tuple[str, ...]


def pick(store: Store, base: str, path: str, series: Series) -> Picked:
    """Find the images of a store and the one that is the slide.

    Raises:
        SeveralImagesError: more than one could be.
        SlideOpenError: none is there, a plate, or not the one that was asked for.
    """
    found = list(_images(store, base, path))
    if not found:
        raise SlideOpenError(
            f"{path}: a zarr store without OME-Zarr image metadata (multiscales); write it as OME-Zarr"
        )
    found = [replace(image, about=replace(image.about, index=index)) for index, image in enumerate(found)]
    images = tuple(image.about for image in found)
    index, notes = choose(images, series, path)
    return Picked(found[index], images, notes)


def _images(store: Store, base: str, path: str) -> Iterator[ZarrImage]:
    root = _group(store, base)
    attributes = _described(root)
    if "plate" in attributes or "well" in attributes:
        raise UnsupportedSlideError(f"{path}: a plate of wells, not a slide; give the folder of one of its images")
    if root is not None:
        yield from _of_group(root, "", path)
    if attributes.get("multiscales"):
        return
    places = _series(store, base)
    names = _names(store, base) if len(places) != 1 else []
    for number, place in enumerate(places or map(str, range(MAX_IMAGES))):
        group = _group(store, _below(base, place))
        if group is None:
            if places:
                continue
            return
        yield from _of_group(group, names[number] if number < len(names) else "", path)


def _below(base: str, name: str) -> str:
    return f"{base}/{name}".strip("/")


def _group(store: Store, place: str) -> zarr.Group | None:
    import zarr

    try:
        return zarr.open_group(store, path=place, mode="r", use_consolidated=False)
    except (FileNotFoundError, zarr.errors.NodeNotFoundError, zarr.errors.ContainsArrayError):
        return None


def _described(group: zarr.Group | None) -> dict[str, object]:
    attributes = group.attrs.asdict() if group is not None else {}
    found = attributes.get("ome", attributes)
    return dict(found) if isinstance(found, dict) else {}


def _series(store: Store, base: str) -> list[str]:
    """Return the groups that the store lists as its images; if it lists none, those it can name that hold an image."""
    listed = _described(_group(store, _below(base, "OME"))).get("series")
    if isinstance(listed, list):
        return [str(name) for name in listed[:MAX_IMAGES] if ".." not in str(name)]
    root = _group(store, base)
    if root is None or not store.supports_listing:
        return []
    try:
        names = [name for name in root.group_keys() if name not in ("OME", "labels")]
    except Exception:  # a server that cannot list says so in its own way
        return []
    return sorted(
        names[:MAX_IMAGES], key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)
    )


def _names(store: Store, base: str) -> list[str]:
    """Return the names of the images in the store's OME-XML; nothing where it has none."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    try:
        found = sync(store.get(_below(base, "OME/METADATA.ome.xml"), default_buffer_prototype()))
        if found is None or len(found) > MAX_XML:
            return []
        return [unescape(name) for name in _NAME.findall(found.to_bytes().decode("utf-8", "replace"))]
    except Exception:  # only names
        return []


def _of_group(group: zarr.Group, name: str, path: str) -> Iterator[ZarrImage]:
    for pyramid in multiscales(group.attrs.asdict(), path):
        yield _image(group, pyramid, name, path)


def _image(group: zarr.Group, pyramid: Multiscale, name: str, path: str) -> ZarrImage:
    """Return an image, its levels from fine to coarse."""
    arrays = [_array(group, level, path) for level in pyramid.paths]
    x, y = pyramid.axes.index("x"), pyramid.axes.index("y")
    shapes = [array.shape if len(array.shape) == len(pyramid.axes) else (0,) * len(pyramid.axes) for array in arrays]
    order = sorted(range(len(arrays)), key=lambda level: -int(shapes[level][x]))
    pyramid = pyramid.in_order(order)
    finest = shapes[order[0]]
    length = dict(zip(pyramid.axes, finest, strict=True))
    flat = all(length.get(axis, 1) == 1 for axis in "tz")
    rgb = arrays[order[0]].dtype == "uint8" and length.get("c") == 3 and flat
    title = name or pyramid.name or str(group.name).strip("/").rpartition("/")[2]
    about = StoredImage(0, title, (int(finest[x]), int(finest[y])), len(arrays), rgb)
    return ZarrImage(about, group, pyramid, [arrays[level] for level in order])


def _array(group: zarr.Group, name: str, path: str) -> ZarrArray:
    """Return a level of a group.

    Raises:
        SlideOpenError: it is not there.
    """
    import zarr

    array = group.get(name)
    if not isinstance(array, zarr.Array):
        raise SlideOpenError(f"{path}: its metadata names a level {name!r} that is not there; the store is incomplete")
    return array
