"""TIFFs that a careless program could have written: sound in every byte, and misleading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tifffile
from base_slides import MPP, Pixels, write_base
from mutant import Change, Lost, Work
from pictures import macro, thumbnail, wrong_levels
from tiff_file import DESCRIPTION, PHOTOMETRIC, TiffBytes

PIXELS_A_CM = 1e4 / MPP
JPEG: dict[str, Any] = {"photometric": "ycbcr", "subsampling": (2, 2), "compression": "jpeg"}
LZW: dict[str, Any] = {"photometric": "rgb", "compression": "lzw", "subsampling": None}

Mutation = Callable[[Work], Change]


def _page(level: Pixels, widest: int, **more: Any) -> dict[str, Any]:
    scale = PIXELS_A_CM * level.shape[1] / widest
    page = {"tile": (256, 256), "resolution": (scale, scale), "resolutionunit": "CENTIMETER", "metadata": None}
    return {"data": level, "software": False, **JPEG, **page, **more}


def _picture(pixels: Pixels, **more: Any) -> dict[str, Any]:
    page = {"photometric": "rgb", "compression": "zlib", "rowsperstrip": 64, "metadata": None, "software": False}
    return {"data": pixels, **page, **more}


def _write(work: Work, pages: list[dict[str, Any]]) -> None:
    with tifffile.TiffWriter(work.path) as file:
        for page in pages:
            options = dict(page)
            file.write(options.pop("data"), **options)


def _pyramid(levels: list[Pixels] | tuple[Pixels, ...], **more: Any) -> list[dict[str, Any]]:
    widest = max(level.shape[1] for level in levels)
    return [_page(level, widest, subfiletype=int(index > 0), **more) for index, level in enumerate(levels)]


def picture_first(work: Work) -> Change:
    """A macro or a thumbnail before the pyramid: the largest pyramid is still the slide."""
    first = work.chance.choice((macro, thumbnail))
    tiled = {"tile": (128, 128)} if work.chance.random() < 0.5 else {}
    picture = _picture(first(work.scene.levels), resolution=(72, 72), resolutionunit="INCH")
    picture = {k: v for k, v in picture.items() if not tiled or k != "rowsperstrip"} | tiled
    _write(work, [picture, *_pyramid(work.scene.levels)])
    return Change(f"a {first.__name__} first, {'tiled' if tiled else 'in strips'}")


def levels_in_another_order(work: Work) -> Change:
    """The levels from coarse to fine, or in any order."""
    pages = _pyramid(work.scene.levels)
    pages = pages[::-1] if work.chance.random() < 0.5 else work.chance.sample(pages, len(pages))
    _write(work, pages)
    order = [page["data"].shape[1] for page in pages]
    return Change(f"levels in the order {order}")


def levels_that_lie(work: Work) -> Change:
    """A coarser level that does not belong to the others, in the slide's own format."""
    levels, what = wrong_levels(work.scene, work.chance)
    base = work.path.name.partition("-")[0]
    if base in ("svs", "tiff") and work.chance.random() < 0.5:
        for path in work.path.parent.glob(work.path.name):
            path.unlink()
        write_base(base, work.path.with_suffix(""), tuple(levels))
    else:
        _write(work, _pyramid(levels))
    return Change(what, "pixels")


def inverted(work: Work) -> Change:
    """Every pixel's complement: dark glass."""
    _write(work, _pyramid([255 - level for level in work.scene.levels], **LZW))
    return Change("inverted pixels", "channels")


def other_samples(work: Work) -> Change:
    """Grey, with alpha, 16 bits, five channels, planes apart: what is not 8-bit RGB, or RGB written otherwise."""
    how = work.chance.choice(list(_SAMPLES))
    make, options, lost = _SAMPLES[how]
    pages = _pyramid([make(level) for level in work.scene.levels], **{**LZW, **options})
    _write(work, pages)
    return Change(how, lost)


def _alpha(level: Pixels, value: int) -> Pixels:
    return np.dstack([level, np.full(level.shape[:2], value, np.uint8)])


_SAMPLES: dict[str, tuple[Callable[[Pixels], Any], dict[str, Any], Lost]] = {
    "grey": (lambda level: level[..., 1], {"photometric": "minisblack"}, "channels"),
    "grey, white is zero": (lambda level: 255 - level[..., 1], {"photometric": "miniswhite"}, "channels"),
    "opaque alpha": (lambda level: _alpha(level, 255), {"extrasamples": ["unassalpha"]}, ""),
    "16 bits": (lambda level: level.astype(np.uint16) * 257, {}, "channels"),
    "12 of 16 bits": (lambda level: level.astype(np.uint16) * 16, {}, "channels"),
    "floats": (lambda level: (level / 255).astype(np.float32), {}, "channels"),
    "five channels": (
        lambda level: np.dstack([level, level[..., :2]]),
        {"photometric": "minisblack", "planarconfig": "contig"},
        "channels",
    ),
    "planes": (lambda level: np.ascontiguousarray(level.transpose(2, 0, 1)), {"planarconfig": "separate"}, ""),
}


def colours_mislabelled(work: Work) -> Change:
    """The photometric tag says RGB of YCbCr pixels, or the other way, at every level."""
    tiff = TiffBytes(work.path.read_bytes())
    before = tiff.value(tiff.pyramid()[0], PHOTOMETRIC)
    value = work.chance.choice([value for value in (0, 1, 2, 6) if value != before])
    for directory in tiff.pyramid():
        if entry := directory.entry(PHOTOMETRIC):
            tiff.put_value(entry, value)
    work.path.write_bytes(tiff.data)
    return Change(f"photometric {before} = {value} at every level")


_APERIO_SCALE: tuple[tuple[bytes, str, Lost, float | None], ...] = (
    (b"MPP = 0", "MPP 0, the resolution tags are right", "", MPP),
    (b"MPP = nan", "MPP nan, the resolution tags are right", "", MPP),
    (b"MPP = 0,5", "MPP 0,5", "", MPP),
    (b"MPP = 5.0", "MPP 5.0 at AppMag 20", "scale", None),
    (b"MPP = 0.05", "MPP 0.05 at AppMag 20", "scale", None),
    (b"MPP = 1.0", "MPP 1.0 at AppMag 20", "scale", None),
    (b"MPP = 0.125", "MPP 0.125 at AppMag 20", "scale", None),
    (b"MPP = 500", "MPP 500", "scale", None),
    (b"MPP = 0.0005", "MPP 0.0005", "scale", None),
    (b"MXX = 0.5", "no MPP", "", MPP),
)


def aperio_scale(work: Work) -> Change:
    """Another µm per pixel in Aperio's text than its magnification, or none."""
    tiff = TiffBytes(work.path.read_bytes())
    new, what, lost, mpp = work.chance.choice(_APERIO_SCALE)
    for directory in tiff.directories:
        entry = directory.entry(DESCRIPTION)
        text = tiff.text(entry).rstrip(b"\0") if entry else b""
        if entry and b"MPP = " in text:
            tiff.replace_text(entry, text.partition(b"|MPP = ")[0] + b"|" + new)
    work.path.write_bytes(tiff.data)
    return Change(what, lost, mpp)


_OME_SCALE: tuple[tuple[tuple[tuple[str, str], ...], str, Lost, float | None], ...] = (
    (((f'"{MPP}"', '"352.7778"'),), "72 dpi in µm", "", MPP),
    ((("µm", "mm"),), "mm for µm", "", MPP),
    ((("µm", "nm"),), "nm for µm", "", MPP),
    ((("µm", "pixel"),), "a unit that is none", "", MPP),
    (((f'PhysicalSizeY="{MPP}"', 'PhysicalSizeY="1.5"'),), "pixels are three times as high as wide", "scale", None),
    (((f'"{MPP}"', '"0"'),), "0 µm", "", MPP),
    (((f'"{MPP}"', '"-0.5"'),), "negative µm", "", MPP),
    (((f'"{MPP}"', '"1.0"'),), "1.0 µm, the resolution tags say 0.5", "scale", None),
    (((f'"{MPP}"', f'"{MPP * 1e3:g}"'), ("µm", "nm")), "the same scale in nm", "", MPP),
)


def ome_scale(work: Work) -> Change:
    """Another physical size or unit in the OME-XML; the resolution tags are right, and taken where it is absurd."""
    tiff = TiffBytes(work.path.read_bytes())
    entry = tiff.directories[0].entry(DESCRIPTION)
    assert entry is not None
    text = tiff.text(entry).rstrip(b"\0").decode()
    pairs, what, lost, mpp = work.chance.choice(_OME_SCALE)
    for old, new in pairs:
        text = text.replace(old, new).replace(old.encode("ascii", "xmlcharrefreplace").decode(), new)
    tiff.replace_text(entry, text.encode())
    work.path.write_bytes(tiff.data)
    return Change(what, lost, mpp)


def ome_images(work: Work) -> Change:
    """Several images in one OME-TIFF: a macro, a region or another slide before the pyramid."""
    levels, chance = work.scene.levels, work.chance
    name, other, lost = chance.choice(
        (
            ("macro image", macro(levels), ""),
            ("thumbnail", thumbnail(levels), ""),
            ("region", np.ascontiguousarray(levels[0][300:600, 300:700]), ""),
            ("another slide", work.scene.other[0], "image"),
        )
    )
    with tifffile.TiffWriter(work.path, bigtiff=True, ome=True) as file:
        ours, theirs = (lambda: _ome_image(file, list(levels), "slide")), (lambda: _ome_image(file, [other], name))
        for write in (theirs, ours) if chance.random() < 0.7 else (ours, theirs):
            write()
    return Change(f"an image {name!r} beside the pyramid", lost)


def _ome_image(file: tifffile.TiffWriter, levels: list[Pixels], name: str) -> None:
    size = {f"PhysicalSize{axis}": MPP for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    for index, level in enumerate(levels):
        page = _page(level, levels[0].shape[1], subfiletype=int(index > 0))
        if index == 0:
            page |= {"metadata": {"axes": "YXS", "Name": name, **size}, "subifds": len(levels) - 1}
        file.write(page.pop("data"), **page)


TIFFS: dict[str, Mutation] = {
    one.__name__: one
    for one in (picture_first, levels_in_another_order, levels_that_lie, inverted, other_samples, colours_mislabelled)
}
"""Mutations of every TIFF."""
