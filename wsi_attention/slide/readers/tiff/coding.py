"""How a TIFF's tiles are stored, what their streams claim of their size, and how they become RGB (imagecodecs).

Colour is the trap: Aperio writes JPEG tiles in RGB without saying so inside them, so what the TIFF says of its colours
counts, as in OpenSlide. Aperio's JPEG 2000 in YCbCr (33003) carries no colour transform either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import TileReadError
from wsi_attention.slide.readers.tiff.tags import NotReadHereError
from wsi_attention.slide.resample import Pixels

if TYPE_CHECKING:
    from tifffile import TiffPage

Decoder = Callable[[bytes, Pixels], None]
"""Decodes one stored tile into (h, w, 3), contiguous; raises anything on damage, and `out` may then hold anything."""

NONE, LZW, JPEG, DEFLATE, OLD_DEFLATE, ZSTD, YCBCR_2000, RGB_2000 = 1, 5, 7, 8, 32946, 50000, 33003, 33005
PLAIN = frozenset({NONE, LZW, DEFLATE, OLD_DEFLATE, ZSTD})
HORIZONTAL = 2
"""The predictor that stores differences along a row."""


@dataclass(frozen=True)
class Coding:
    """How tiles are stored.

    Attributes:
        compression: TIFF's number of it.
        colours: "RGB" or "YCBCR", as stored.
        predictor: TIFF's number of it, 1 for none.
        tables: JPEG tables that the tiles share; None where each has its own.
    """

    compression: int
    colours: str
    predictor: int
    tables: bytes | None


def coding_of(page: TiffPage, path: str) -> Coding:
    """Return how the tiles of a page are stored.

    Raises:
        NotReadHereError: in a way that is left to others.
    """
    colours = getattr(page.photometric, "name", str(page.photometric))
    coding = Coding(int(page.compression), colours, int(page.predictor), page.jpegtables)
    if int(page.samplesperpixel) != 3 or int(page.planarconfig) != 1 or int(page.fillorder) != 1:
        apart, backwards = int(page.planarconfig) != 1, int(page.fillorder) != 1
        why = "channels apart from each other" if apart else "bits in backward order" if backwards else ""
        raise NotReadHereError(path, why or f"{page.samplesperpixel} channels")
    plain = coding.compression in PLAIN and colours == "RGB" and coding.predictor in (1, HORIZONTAL)
    if not plain and coding.compression not in {JPEG, YCBCR_2000, RGB_2000}:
        name = getattr(page.compression, "name", page.compression)
        raise NotReadHereError(path, f"{name} tiles in {colours}")
    return coding


def decoder(coding: Coding) -> Decoder:
    """Return the function that decodes tiles stored like this."""
    import imagecodecs

    if coding.compression == JPEG:
        decode = partial(imagecodecs.jpeg8_decode, tables=coding.tables, colorspace=coding.colours, outcolorspace="RGB")
        return partial(_jpeg, decode)
    if coding.compression in {YCBCR_2000, RGB_2000}:
        return _jpeg2000_ycbcr if coding.compression == YCBCR_2000 else _jpeg2000
    unpack: dict[int, Callable[..., bytes | bytearray]] = {
        NONE: lambda content, out: content,
        LZW: imagecodecs.lzw_decode,
        DEFLATE: imagecodecs.zlib_decode,
        OLD_DEFLATE: imagecodecs.zlib_decode,
        ZSTD: imagecodecs.zstd_decode,
    }
    return partial(_plain, unpack[coding.compression], coding.predictor == HORIZONTAL)


def _jpeg(decode: Callable[..., object], content: bytes, out: Pixels) -> None:
    check_jpeg_size(content, (out.shape[1], out.shape[0]))
    _check_end(content)
    decode(content, out=out)


def _check_end(content: bytes) -> None:
    """Refuse a JPEG whose end is zeros, as a copy that broke off leaves it: it decodes, to a part of the tile."""
    if content.endswith(bytes(ZEROS)) and not content.rstrip(b"\0").endswith(END):
        raise TileReadError("the last bytes of a tile are zeros; an incomplete copy?")


def _jpeg2000(content: bytes, out: Pixels) -> None:
    import imagecodecs

    _check_size(content, out)
    imagecodecs.jpeg2k_decode(content, out=out)


def _jpeg2000_ycbcr(content: bytes, out: Pixels) -> None:
    _jpeg2000(content, out)
    y, cb, cr = (out[..., channel].astype(np.int32) for channel in range(3))
    red, green_red, green_blue, blue = _chroma()
    for channel, value in enumerate((y + red[cr], y + ((green_blue[cb] + green_red[cr]) >> 16), y + blue[cb])):
        out[..., channel] = np.clip(value, 0, 255)


@cache
def _chroma() -> tuple[NDArray[np.int32], ...]:
    """Return what Cr and Cb add to red, green (in 1/65,536, rounding included) and blue: JFIF's, as in OpenSlide."""
    centred = np.arange(256) - 128
    red, blue = (np.sign(centred) * np.floor(factor * abs(centred) + 0.5) for factor in (1.402, 1.772))
    green_red, green_blue = (np.floor(factor * 65536 * centred + 0.5) for factor in (-0.71414, -0.34414))
    return tuple(table.astype(np.int32) for table in (red, green_red, green_blue + 32768, blue))


def _check_size(content: bytes, out: Pixels) -> None:
    """Refuse a JPEG 2000 stream of another size before anything is allocated for it (SIZ marker, T.800 A.5.1)."""
    at = content.find(b"\xff\x4f\xff\x51")
    right, bottom, left, top = (int.from_bytes(content[at + 8 + i : at + 12 + i], "big") for i in (0, 4, 8, 12))
    if at < 0 or (bottom - top, right - left) != out.shape[:2]:
        raise TileReadError(f"a tile of {right - left}×{bottom - top} pixels instead of {out.shape[1]}×{out.shape[0]}")


def _plain(unpack: Callable[..., bytes | bytearray], differences: bool, content: bytes, out: Pixels) -> None:
    found = np.frombuffer(unpack(content, out=out.size), np.uint8)
    if found.size < out.size:
        raise TileReadError(f"a tile of {found.size} bytes instead of {out.size}")
    pixels = found[: out.size].reshape(out.shape)
    if differences:
        np.cumsum(pixels, axis=1, dtype=np.uint8, out=out)
    else:
        out[...] = pixels


END, ZEROS = b"\xff\xd9", 4
"""The marker that ends a JPEG, and how many zeros without it make its end missing; some writers fill up behind it."""
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Return (w, h) of the first frame; None where there is none before the pixels."""
    at = 0
    while (at := content.find(b"\xff", at)) >= 0 and at + 9 <= len(content):
        marker = content[at + 1]
        if marker in _FRAMES:
            return int.from_bytes(content[at + 7 : at + 9], "big"), int.from_bytes(content[at + 5 : at + 7], "big")
        if marker == 0xDA:
            return None
        at += (
            1
            if marker in (0xFF, 0x00)
            else 2
            if marker in _ALONE
            else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        )
    return None


def check_jpeg_size(content: bytes, most: tuple[int, int]) -> None:
    """Refuse a stream of more pixels than its tile (w, h) has.

    Raises:
        TileReadError: it claims more.
    """
    found = jpeg_size(content)
    if found is not None and (found[0] > most[0] or found[1] > most[1]):
        raise TileReadError(f"a JPEG of {found[0]}×{found[1]} pixels in a tile of {most[0]}×{most[1]}")
