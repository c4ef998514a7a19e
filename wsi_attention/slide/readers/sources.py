"""The bytes of a slide, wherever it lies."""

from __future__ import annotations

from wsi_attention.slide.readers.bytes import ByteRanges, LocalBytes
from wsi_attention.slide.urls import is_url


def bytes_of(path: str) -> ByteRanges:
    """Return the bytes of a file or URL.

    Raises:
        OSError: it is not there, or may not be read.
        SlideOpenError: so for a URL; or its server does not answer, or gives whole files only.
        MissingExtraError: the package for the URL's scheme is not installed.
    """
    if is_url(path):
        from wsi_attention.slide.readers.remote.byte_ranges import RemoteBytes

        return RemoteBytes(path)
    return LocalBytes(path)
