"""What a slide's result depends on, found in two looks: at its files alone, and at the open slide."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from wsi_attention.bags.bag import Bag
from wsi_attention.errors import InputError
from wsi_attention.inference import stored_features
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.inference.results.state import SlideKey
from wsi_attention.slide import own_files
from wsi_attention.slide.fingerprint import seen_in
from wsi_attention.slide.slide import Slide


def first_look(slide: SlideFile) -> SlideKey:
    """Return what can be said of a slide without opening it: what was asked, and when its files were written.

    Raises:
        InputError: the mask or the file of features cannot be read.
    """
    times, changes = stored_features.written(slide.path) if slide.is_bag else own_files.written(slide.path)
    return SlideKey(
        mpp=slide.mpp,
        mask_sha256=_sha256(slide.mask),
        series=slide.series,
        written=times,
        changed=changes,
        features=_written(slide.features),
        beside_changed=_together(slide),
    )


def as_written(slide: SlideFile) -> str:
    """Return what tells a slide's bytes and mask from others: their hash where that is cheap, else sizes and times."""
    return f"{own_files.content(slide.path) or own_files.written(slide.path)[0]} {_sha256(slide.mask) or ''}"


def second_look(first: SlideKey, slide: Slide, path: str, whole: bool = False) -> SlideKey:
    """Return the key with what the open slide says, and the hash of all its bytes where that is cheap or asked for.

    Args:
        first: made before the slide was opened, so that a change while it is read is seen later.
        slide: open.
        path: as it was given; `Slide.path` may hide a part of it.
        whole: hash it whole, however large it is.
    """
    content = own_files.content(path, whole)
    return replace(first, fingerprint=slide.fingerprint, seen=seen_in(slide), content=content)


def look_at_bag(first: SlideKey, bag: Bag, fingerprint: str) -> SlideKey:
    """Return the key of a file of features without its slide, with what the file says.

    Args:
        first: made before the file was read.
        bag: what it says.
        fingerprint: of its places and features.
    """
    said = {"mpp": f"{bag.mpp:.6g}" if bag.mpp else "none", "tiles": str(len(bag)), "encoder": bag.encoder or "none"}
    return replace(first, fingerprint=fingerprint, seen=said)


def _together(slide: SlideFile) -> str:
    """Return what can be said of the other slides of the patient without opening them, and whose they are."""
    if not slide.beside:
        return ""
    found = [[own_files.written(one.path)[1], _mask_of(one), one.mpp, one.series] for one in slide.beside]
    return hashlib.sha256(json.dumps([slide.patient, sorted(map(json.dumps, found))]).encode()).hexdigest()


def _mask_of(other: SlideFile) -> str | None:
    """Return the hash of another slide's mask; one that cannot be read is the failure of that slide alone."""
    try:
        return _sha256(other.mask)
    except InputError:
        return "cannot be read"


def _written(path: str | None) -> str:
    if path is None:
        return ""
    try:
        Path(path).stat()
    except OSError as error:
        raise InputError(f"{path}: the features cannot be read ({error.strerror})") from error
    return stored_features.written(path)[0]


def _sha256(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: the mask cannot be read ({error.strerror})") from error
