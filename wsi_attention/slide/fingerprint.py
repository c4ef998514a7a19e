"""What a slide contains, as a short hash: the same wherever the file lies and whatever it is called."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from wsi_attention.protocols import SlideReader
from wsi_attention.slide.readers.limits import is_tiff

SAMPLES = 16
SAMPLE_BYTES = 2**16
SAMPLE_SIDE = 256


def of_slide(path: str | None, reader: SlideReader) -> str:
    """sha256 (hex) over samples of a TIFF's bytes, OpenSlide's hash of its other formats, or sampled pixels.

    A DICOM or MIRAX slide is several files; OpenSlide's hash is the same from any of them. An OME-Zarr store has one
    fingerprint as a folder and as a zip file.

    Args:
        path: the slide's path; None where there is no file.
        reader: an open reader, asked for pixels where the other two do not apply.
    """
    if path is not None and ("://" in path or is_tiff(path)):
        return _of_file(path)
    quickhash = reader.properties.get("openslide.quickhash-1")
    if quickhash:
        return hashlib.sha256(f"quickhash {quickhash} {reader.level_dimensions}".encode()).hexdigest()
    return _of_pixels(reader)


def series_id(properties: Mapping[str, str]) -> str | None:
    """What the instances of one DICOM series share; None for slides of one file."""
    return properties.get("dicom.SeriesInstanceUID")


def _of_file(path: str) -> str:
    """Size, and blocks spread evenly from the first byte to the last."""
    import fsspec

    open_any: Callable[..., Any] = fsspec.open
    with open_any(path, "rb") as stream:
        size = stream.seek(0, 2)
        digest = hashlib.sha256(f"file {size}".encode())
        last = max(size - SAMPLE_BYTES, 0)
        for place in sorted({last * index // (SAMPLES - 1) for index in range(SAMPLES)}):
            stream.seek(place)
            digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _of_pixels(reader: SlideReader) -> str:
    """Level dimensions, and squares spread over the coarsest and the finest level."""
    digest = hashlib.sha256(f"pixels {reader.level_dimensions}".encode())
    for level in {len(reader.level_dimensions) - 1, 0}:
        w, h = reader.level_dimensions[level]
        downsample = reader.level_downsamples[level]
        side = (min(w, SAMPLE_SIDE), min(h, SAMPLE_SIDE))
        for index in range(SAMPLES):
            row, col = divmod(index, 4)
            x, y = (w - side[0]) * col // 3, (h - side[1]) * row // 3
            digest.update(reader.read((round(x * downsample), round(y * downsample)), level, side).tobytes())
    return digest.hexdigest()
