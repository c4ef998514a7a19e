"""What a JPEG stream says of its size, read before a decoder makes room for it (ITU T.81, B.2.2)."""

from __future__ import annotations

from wsi_attention.errors import TileReadError

_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def jpeg_size(content: bytes) -> tuple[int, int] | None:
    """(w, h) of the first frame; None where there is none before the pixels."""
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
    """Refuses a stream of more pixels than its tile (w, h) has.

    Raises:
        TileReadError: it claims more.
    """
    found = jpeg_size(content)
    if found is not None and (found[0] > most[0] or found[1] > most[1]):
        raise TileReadError(f"a JPEG of {found[0]}×{found[1]} pixels in a tile of {most[0]}×{most[1]}")
