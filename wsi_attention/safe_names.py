"""File names that every file system takes, made of any text: a name never leads out of its folder."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

from wsi_attention.plain_text import HARMFUL

LONGEST = 180
"""Bytes of one path component; leaves room for suffixes and the prefix of temporary files within 255."""

_UNSAFE = frozenset('<>:"|?*\\')

_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"
}
"""Names that Windows takes for a device, whatever follows the first dot."""

_EXPORTED = (".json", ".geojson", ".gz", ".csv", ".png", ".jpg", ".zarr", ".html", ".dcm")
"""Endings of files in a results folder: a folder of slides must not have the name of another slide's file."""


def safe_name(relative: str) -> str:
    """Return a relative path as a name that stays inside its folder and can be written on any file system."""
    *folders, name = [part for part in PurePosixPath(relative).parts if part not in ("/", ".", "..")] or ["slide"]
    return "/".join([*map(_safe_folder, folders), _safe_part(name)])


def digest_of(text: str, length: int = 8) -> str:
    """Return the first characters of the sha256 of a text, to tell shortened names apart."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def _safe_folder(part: str) -> str:
    clean = _safe_part(part)
    stem, dot, ending = clean.rpartition(".")
    return f"{stem}_{ending}" if f"{dot}{ending}".lower() in _EXPORTED else clean


def _safe_part(part: str) -> str:
    clean = "".join("_" if _is_unsafe(character) else character for character in part)
    clean = clean.rstrip(" .") or "_"
    clean = f"_{clean[1:]}" if clean[0] == "." else clean
    clean = f"_{clean}" if clean.partition(".")[0].rstrip(" ").upper() in _DEVICES else clean
    if len(clean.encode()) <= LONGEST:
        return clean
    short = clean.encode()[: LONGEST - 9].decode("utf-8", "ignore")
    return f"{short}-{digest_of(part)}"


def _is_unsafe(character: str) -> bool:
    return character in _UNSAFE or HARMFUL.match(character) is not None
