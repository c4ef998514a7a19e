"""What a slide contains, as a short hash: the same wherever the file lies and whatever it is called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from wsi_attention.errors import TileReadError
from wsi_attention.slide.readers.bytes import is_tiff
from wsi_attention.slide.readers.sources import bytes_of
from wsi_attention.slide.urls import is_store_url, is_url

if TYPE_CHECKING:
    from wsi_attention.slide.slide import Slide

SAMPLES = 16
SAMPLE_BYTES = 2**13
WHOLE = 2**20
"""Bytes of a file that is hashed whole."""
SAMPLE_SIDE = 256


def of_slide(path: str | None, slide: Slide) -> str:
    """Return the sha256 (hex) over samples of a TIFF's bytes, OpenSlide's hash of its other formats, or sampled pixels.

    A DICOM or MIRAX slide is several files; OpenSlide's hash is the same from any of them. An OME-Zarr store has one
    fingerprint as a folder and as a zip file.

    Args:
        path: the slide's path; None where there is no file.
        slide: asked for pixels where the other two do not apply; what cannot be read counts as unreadable.
    """
    if path is not None and (is_tiff(path) or (is_url(path) and not is_store_url(path))):
        return _of_file(path)
    quickhash = slide.properties.get("openslide.quickhash-1")
    if quickhash:
        return hashlib.sha256(f"quickhash {quickhash} {slide.level_dimensions}".encode()).hexdigest()
    return _of_pixels(slide)


def seen_in(slide: Slide) -> dict[str, str]:
    """Return what a reader sees of a slide besides pixels: scale, levels, bounds and a hash of the tags, as text."""
    tags = json.dumps(dict(slide.properties), sort_keys=True)
    return {
        "mpp": " × ".join(f"{value:.6g}" for value in dict.fromkeys(slide.mpp_xy or ())) or "none",
        "levels": ", ".join(f"{w}×{h}" for w, h in slide.level_dimensions),
        "downsamples": ", ".join(f"{downsample:.9g}" for downsample in slide.level_downsamples),
        "bounds": ", ".join(map(str, slide.facts.bounds or ())) or "none",
        "tags": hashlib.sha256(tags.encode()).hexdigest()[:32],
    }


def seen_otherwise(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """Return in a few words what of `seen_in` is another than before, the scale first; None where nothing is."""
    for name in sorted(before.keys() | now.keys(), key=lambda name: (name != "mpp", name == "tags", name)):
        had, has = before.get(name, "none"), now.get(name, "none")
        if had != has:
            return "the file has other tags" if name == "tags" else f"the file has {name} {has}, had {had}"
    return None


def of_chosen(fingerprint: str, options: Mapping[str, str | int], image: int) -> str:
    """Return the sha256 (hex) of what options choose in a file.

    Args:
        fingerprint: of the whole file.
        options: what the slide was opened with.
        image: the number of the image that `series`, one of the options, stands for.
    """
    for name, value in sorted(options.items()):
        chosen = f"image {image}" if name == "series" else f"{name} {value}"
        fingerprint = hashlib.sha256(f"{chosen} of {fingerprint}".encode()).hexdigest()
    return fingerprint


def _of_file(path: str) -> str:
    """Hash the size, and all bytes of a small file, or blocks spread evenly from the first byte to the last."""
    source = bytes_of(path)
    last = source.size - SAMPLE_BYTES
    spread = [(last * index // (SAMPLES - 1), SAMPLE_BYTES) for index in range(SAMPLES)]
    try:
        blocks = source.read(spread if source.size > WHOLE else [(0, source.size)])
    finally:
        source.close()
    digest = hashlib.sha256(f"file {source.size}".encode())
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _of_pixels(slide: Slide) -> str:
    """Hash the level dimensions, and squares spread over the coarsest and the finest level."""
    digest = hashlib.sha256(f"pixels {slide.level_dimensions}".encode())
    for level in {len(slide.level_dimensions) - 1, 0}:
        w, h = slide.level_dimensions[level]
        downsample = slide.level_downsamples[level]
        side = (min(w, SAMPLE_SIDE), min(h, SAMPLE_SIDE))
        for index in range(SAMPLES):
            row, col = divmod(index, 4)
            x, y = (w - side[0]) * col // 3, (h - side[1]) * row // 3
            try:
                digest.update(slide.read((round(x * downsample), round(y * downsample)), level, side).tobytes())
            except TileReadError:
                digest.update(b"unreadable")
    return digest.hexdigest()
