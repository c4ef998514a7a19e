"""The images that a TIFF holds, each with the directories of its levels, and which of them is the slide.

Aperio and Philips say in their own way what a directory is. An OME-TIFF lists its images in XML, their smaller levels
are SubIFDs. In other TIFFs each directory is an image of its own, unless it is marked as a smaller version of another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import unescape
from typing import TYPE_CHECKING

from wsi_attention.errors import SlideError, UnsupportedSlideError
from wsi_attention.slide.channels import STORED, Order, reordered, rgb_order
from wsi_attention.slide.images import Series, StoredImage, choose
from wsi_attention.slide.readers.tiff.checks import check_kind, check_single_plane
from wsi_attention.slide.readers.tiff.tags import APERIO, PHILIPS, associated_of, pages_of

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

REDUCED = 1
"""The bit of NewSubfileType that marks a smaller version of another image."""
MASK = 4
"""The bit of NewSubfileType that marks a transparency mask."""
LONGEST_NAME = 60
_IMAGE = re.compile(r"<(?:\w+:)?Image\b.*?(?=<(?:\w+:)?Image\b|</(?:\w+:)?OME>|\Z)", re.DOTALL)
_CHANNEL = re.compile(r"<(?:\w+:)?Channel\b[^>]*>")
_ATTRIBUTE = re.compile(r"\b(Name|Color)\s*=\s*[\"']([^\"']*)[\"']")


@dataclass(frozen=True, eq=False)
class TiffImage:
    """One image.

    Attributes:
        about: its number, name and size.
        levels: the directory of each level, finest first; of three planes, the first one's.
        planes: whether red, green and blue lie in directories of their own.
        order: of its stored channels.
        first: whether its finest level is the file's first directory.
        xml: its part of the OME-XML, or nothing.
        axes: of an OME image.
        shape: along these axes.
    """

    about: StoredImage
    levels: list[TiffPage]
    planes: bool = False
    order: Order = STORED
    first: bool = False
    xml: str = ""
    axes: str = ""
    shape: tuple[int, ...] = ()

    def check(self, path: str) -> None:
        """Refuse stacks, multichannel images and what is no 8-bit RGB image.

        Raises:
            UnsupportedSlideError: it is one.
        """
        if not self.planes:
            check_single_plane(self.axes, self.shape, path)
            check_kind(self.levels[0], path)


@dataclass(frozen=True, eq=False)
class Picked:
    """The image that is the slide, all images of the file, and what a reader should know of the choice."""

    image: TiffImage
    images: tuple[StoredImage, ...]
    notes: tuple[str, ...]


def pick(tif: TiffFile, vendor: str, path: str, series: Series) -> Picked:
    """Find the images of a file and the one that is the slide.

    Raises:
        SeveralImagesError: more than one could be.
        SlideOpenError: there is no image of the number or name that was asked for.
        UnsupportedSlideError: it is no RGB image.
    """
    directories = pages_of(tif, path)
    told = vendor in (APERIO, PHILIPS) and any(page.is_tiled for page in directories)
    found = _of_vendor(directories, vendor, path) if told else _found(tif, directories, path)
    images = tuple(image.about for image in found)
    index, notes = (0, ()) if told and series is None else choose(images, series, path)
    image = found[index]
    image.check(path)
    if tif.is_ome:
        image = _in_order(image, path)
        notes += (reordered(image.order),) if image.order != STORED else ()
    return Picked(image, images, notes)


def _found(tif: TiffFile, directories: list[TiffPage], path: str) -> list[TiffImage]:
    return (_of_ome(tif, directories, path) if tif.is_ome else []) or _plain(directories, path)


def _of_vendor(directories: list[TiffPage], vendor: str, path: str) -> list[TiffImage]:
    """Take every tiled directory as a level of the slide; the others are its label, macro and thumbnail."""
    names = {index: name for name, index in associated_of(directories, vendor).items()}
    slide = _by_width([page for page in directories if page.is_tiled])
    others = [(index, page) for index, page in enumerate(directories) if not page.is_tiled]
    found = [_image([page], directories, names.get(index, ""), path) for index, page in others]
    return _numbered([_image(slide, directories, "", path), *found])


def _of_ome(tif: TiffFile, directories: list[TiffPage], path: str) -> list[TiffImage]:
    parts = [match[0] for match in _IMAGE.finditer(tif.ome_metadata or "")]
    keyframes = {int(series.keyframe.offset) for series in tif.series}
    others = [page for page in directories if int(page.offset) not in keyframes]
    found = []
    for number, series in enumerate(tif.series):
        xml = parts[number] if number < len(parts) else ""
        levels = _levels_of_ome(series, others if number == 0 else [], path)
        image = _image(levels, directories, str(series.name), path)
        image = replace(image, xml=xml, axes=str(series.axes), shape=tuple(series.shape))
        found.append(_as_planes(image, series, path))
    return _numbered(found)


def _levels_of_ome(series: TiffPageSeries, others: list[TiffPage], path: str) -> list[TiffPage]:
    """Return an image's SubIFDs; where there are none, the directories marked as smaller versions of the first one."""
    page = series.keyframe
    if page.pages is None:
        return _by_width([page, *(other for other in others if _is_level_of(other, page))])
    return _by_width([page, *(sub for sub in pages_of(page, path) if sub.is_tiled == page.is_tiled)])


def _as_planes(image: TiffImage, series: TiffPageSeries, path: str) -> TiffImage:
    """Return the image as three planes of one colour each, where its XML says so; else with its stack noted."""
    longer = {axis: n for axis, n in zip(image.axes, image.shape, strict=True) if axis not in "YX" and n > 1}
    page = image.levels[0]
    grey = int(page.samplesperpixel) == 1 and page.dtype == "uint8" and page.photometric == 1
    rgb = image.about.rgb and not (set(longer) - {"S"})
    if longer == {"C": 3} and grey:
        try:
            order = rgb_order(*_channels(image.xml), path)
        except UnsupportedSlideError:
            order = None
        rgb = order is not None
        image = replace(image, planes=rgb, order=order or STORED, levels=[level.keyframe for level in series.levels])
    return replace(image, about=replace(image.about, rgb=rgb, levels=len(image.levels)))


def _in_order(image: TiffImage, path: str) -> TiffImage:
    """Return the image with the order of its channels, as its XML has it."""
    return replace(image, order=rgb_order(*_channels(image.xml), path) or STORED)


def _channels(xml: str) -> tuple[list[str], list[str]]:
    """Return the channels' names and colours (RRGGBB) in an image's XML; OME stores a colour as one signed number."""
    found = [dict(_ATTRIBUTE.findall(channel)) for channel in _CHANNEL.findall(xml)]
    colours = [channel.get("Color", "-1") for channel in found]
    numbers = [int(colour) if re.fullmatch(r"-?\d{1,10}", colour) else -1 for colour in colours]
    return [unescape(each.get("Name", "")) for each in found], [f"{n & 0xFFFFFFFF:08X}"[:6] for n in numbers]


def _plain(directories: list[TiffPage], path: str) -> list[TiffImage]:
    """Return every directory not marked as a smaller version, and every SubIFD larger than its parent."""
    pages = [*directories, *(sub for page in directories for sub in _larger_below(page, path))]
    groups: list[list[TiffPage]] = []
    for page in sorted(pages, key=lambda page: -int(page.imagewidth) * int(page.imagelength)):
        home = _home(page, groups)
        if home is None:
            groups.append([page])
        else:
            home.append(page)
    groups.sort(key=lambda group: pages.index(group[0]))
    return _numbered([_image(_by_width(group), directories, _name(group[0]), path) for group in groups])


def _larger_below(page: TiffPage, path: str) -> list[TiffPage]:
    if page.pages is None:
        return []
    return [sub for sub in pages_of(page, path) if int(sub.imagewidth) > int(page.imagewidth)]


def _home(page: TiffPage, groups: list[list[TiffPage]]) -> list[TiffPage] | None:
    """Return the image that a reduced directory belongs to: the nearest before it that has its proportions."""
    if not int(page.subfiletype) & REDUCED:
        return None
    able = [group for group in groups if _is_level_of(page, group[0])]
    alike = [group for group in able if _proportions(page, group[0])] or able
    before = [group for group in alike if int(group[0].index) < int(page.index)]
    nearest = max(before or alike, key=lambda group: int(group[0].index), default=None)
    return nearest if before or nearest is None else min(alike, key=lambda group: int(group[0].index))


def _is_level_of(page: TiffPage, slide: TiffPage) -> bool:
    smaller = int(page.imagewidth) < int(slide.imagewidth) and int(page.imagelength) <= int(slide.imagelength)
    kinds = page.is_tiled == slide.is_tiled and page.samplesperpixel == slide.samplesperpixel
    return bool(int(page.subfiletype) & REDUCED) and smaller and kinds


def _proportions(page: TiffPage, slide: TiffPage) -> bool:
    height = int(slide.imagelength) * int(page.imagewidth) / int(slide.imagewidth)
    return abs(int(page.imagelength) - height) <= max(1.5, 0.05 * height)


def _name(page: TiffPage) -> str:
    """Return what a directory is called: its PageName, or a short first line of its description."""
    for text in (page.tags.valueof("PageName"), page.description):
        line = str(text or "").strip().partition("\n")[0].strip()
        if line and len(line) <= LONGEST_NAME and not line.startswith(("{", "<")):
            return line
    return ""


def _image(levels: Sequence[TiffPage], directories: list[TiffPage], name: str, path: str) -> TiffImage:
    finest = levels[0]
    size = (int(finest.imagewidth), int(finest.imagelength))
    rgb = _is_rgb(finest, path) and not int(finest.subfiletype) & MASK
    return TiffImage(StoredImage(0, name, size, len(levels), rgb), list(levels), first=finest is directories[0])


def _is_rgb(page: TiffPage, path: str) -> bool:
    try:
        check_kind(page, path)
    except SlideError:
        return False
    return True


def _numbered(images: Sequence[TiffImage]) -> list[TiffImage]:
    return [replace(image, about=replace(image.about, index=index)) for index, image in enumerate(images)]


def _by_width(pages: Sequence[TiffPage]) -> list[TiffPage]:
    return sorted(pages, key=lambda page: -int(page.imagewidth))


def as_series(image: TiffImage, tif: TiffFile) -> TiffPageSeries:
    """Return the image as tifffile's series, for libraries that read those."""
    if image.planes:
        return tif.series[image.about.index]
    finest, *others = (_series(page) for page in image.levels)
    finest.levels.extend(others)
    finest.name = image.about.name
    return finest


def _series(page: TiffPage) -> TiffPageSeries:
    from tifffile import TiffPageSeries

    axes = "CYX" if page.axes == "SYX" else page.axes
    return TiffPageSeries([page], page.shape, page.dtype, axes, kind="generic")
