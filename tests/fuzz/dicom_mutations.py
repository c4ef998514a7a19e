"""Mutations of a DICOM series: elements, frames, the offset table, the instances beside each other."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from random import Random

import numpy as np
from base_slides import MPP, Scene
from dicom_file import JPEG, UID, Instance, instances, long, measures, short, uid, words
from mutant import Change, Work
from pictures import macro, thumbnail, wrong_levels

Mutation = Callable[[Work], Change]
Series = list[Instance]


def in_series(change: Callable[[Series, Random, Scene], Change | str]) -> Mutation:
    """A mutation of a folder from one that changes the instances of the scene's series."""

    def mutate(work: Work) -> Change:
        series = instances(work.scene.levels, MPP)
        done = change(series, work.chance, work.scene)
        _write(work, series)
        return done if isinstance(done, Change) else Change(done)

    return mutate


def _write(work: Work, series: Series) -> None:
    shutil.rmtree(work.path)
    work.path.mkdir()
    for index, one in enumerate(series):
        (work.path / f"level_{index}.dcm").write_bytes(one.encoded())


def _element(series: Series, chance: Random, scene: Scene) -> str:
    index = chance.choice((0, 0, 1, 2))
    elements = series[index].elements
    tag = chance.choice(sorted(elements))
    element = elements[tag]
    how = chance.choice(("gone", "empty", "length", "number", "noise", "representation"))
    if how == "gone":
        del elements[tag]
    elif how == "empty":
        element.value = b""
    elif how == "length":
        element.length = chance.choice((0, 1, 2, 65534, 65535, 2**31, 2**32 - 1))
    elif how == "number" and element.vr in ("US", "UL", "IS"):
        value = chance.choice((0, 1, 2, 7, 16, 100, 255, 257, 512, 65535, 2**31, 2**32 - 1))
        element.value = {"US": short(value), "UL": long(value), "IS": words(str(value))}[element.vr]
        how = f"= {value}"
    elif how == "representation":
        element.vr = chance.choice(("UN", "SQ", "OB", "UT", "LO", "FD", "??"))
    else:
        element.value = chance.randbytes(len(element.value))
    return f"level {index}: ({tag[0]:04x},{tag[1]:04x}) {how}"


def _frames(series: Series, chance: Random, scene: Scene) -> str:
    index = chance.choice((0, 0, 1, 2))
    one = series[index]
    how = chance.choice(("empty", "cut", "noise", "fewer", "other", "no jpeg"))
    some = chance.sample(range(len(one.frames)), chance.randint(1, len(one.frames)))
    for at in some:
        frame = one.frames[at]
        one.frames[at] = {
            "empty": b"",
            "cut": frame[: len(frame) // 3],
            "noise": _noisy(frame, chance),
            "fewer": frame,
            "other": chance.choice(one.frames),
            "no jpeg": chance.randbytes(64),
        }[how]
    if how == "fewer":
        del one.frames[chance.randrange(len(one.frames)) :]
    return f"level {index}: {len(some)} frames: {how}"


def _noisy(frame: bytes, chance: Random) -> bytes:
    changed = bytearray(frame)
    for _ in range(chance.choice((1, 10, 500))):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def _offsets(series: Series, chance: Random, scene: Scene) -> str:
    index = chance.choice((0, 0, 1, 2))
    one = series[index]
    at, true = 0, []
    for frame in one.frames:
        true.append(at)
        at += 8 + len(frame) + len(frame) % 2
    how = chance.choice(("none", "zero", "beyond", "shuffled", "odd"))
    one.offsets = {
        "none": [],
        "zero": [0] * len(true),
        "beyond": [value + 2**31 for value in true],
        "shuffled": chance.sample(true, len(true)),
        "odd": [value + 1 for value in true],
    }[how] or None
    if how == "none":
        one.frames.insert(0, b"")
    return f"level {index}: offset table: {how}"


def _file(series: Series, chance: Random, scene: Scene) -> str:
    index = chance.choice((0, 0, 1, 2))
    one = series[index]
    how = chance.choice(("cut", "preamble", "syntax"))
    if how == "cut":
        one.cut = round(len(one.encoded()) * chance.random())
    elif how == "preamble":
        one.preamble = chance.choice((b"", bytes(128), bytes(132), b"DICM"))
    else:
        one.syntax = chance.choice((f"{JPEG[:-2]}90", f"{JPEG[:-2]}51", f"{JPEG[:-5]}", "1.2.840.10008.1.2.5", "", UID))
    return f"level {index}: {how}"


def _scale(series: Series, chance: Random, scene: Scene) -> Change:
    what, x, y = chance.choice(
        (("µm for mm", MPP, MPP), ("not square", MPP / 1e3, 3 * MPP / 1e3), ("zero", 0, 0), ("negative", -1, -1),
         ("72 dpi", 0.3527778, 0.3527778), ("m for mm", MPP / 1e6, MPP / 1e6), ("none", None, None))
    )  # fmt: skip
    for index, one in enumerate(series):
        spacing = "" if x is None else f"{y * 2**index:.7g}\\{x * 2**index:.7g}"
        one.put((0x5200, 0x9229), "SQ", measures(spacing))
    return Change(f"pixel spacing: {what}", "scale", None)


def _scale_of_one(series: Series, chance: Random, scene: Scene) -> Change:
    index, factor = chance.randrange(3), chance.choice((0.25, 0.5, 2.0, 4.0))
    spacing = MPP / 1e3 * 2**index * factor
    series[index].put((0x5200, 0x9229), "SQ", measures(f"{spacing:.7g}\\{spacing:.7g}"))
    return Change(f"pixel spacing of level {index} times {factor}", "" if index else "scale")


def _levels_that_lie(series: Series, chance: Random, scene: Scene) -> Change:
    levels, what = wrong_levels(scene, chance)
    series[:] = instances(levels, MPP)
    return Change(what, "pixels")


def _two_slides(series: Series, chance: Random, scene: Scene) -> Change:
    others = instances(scene.other, MPP)
    if chance.random() < 0.5:
        index = chance.randrange(3)
        series[index] = others[index]
        return Change(f"level {index} is of another slide with the same series", "pixels")
    for index, one in enumerate(others):
        one.put((0x8, 0x18), "UI", uid(f"{UID}.77.{index}"))
    series += others
    return Change("two slides in one series", "image")


def _pictures(series: Series, chance: Random, scene: Scene) -> Change:
    kind, pixels = chance.choice((("OVERVIEW", macro(scene.levels)), ("THUMBNAIL", thumbnail(scene.levels))))
    picture = instances([np.ascontiguousarray(pixels)], MPP * 8)[0]
    told = chance.random() < 0.5
    picture.put((0x8, 0x8), "CS", words(f"DERIVED\\PRIMARY\\{kind if told else 'VOLUME'}\\RESAMPLED"))
    picture.put((0x8, 0x18), "UI", uid(f"{UID}.78"))
    series.insert(0, picture)
    return Change(f"a {kind.lower()} beside the levels, told as {'such' if told else 'a level'}")


def _missing_level(series: Series, chance: Random, scene: Scene) -> Change:
    index = chance.randrange(3)
    del series[index]
    return Change(f"level {index} is not there")


def _colours(series: Series, chance: Random, scene: Scene) -> Change:
    value = chance.choice(("RGB", "YBR_FULL", "YBR_ICT", "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", ""))
    for one in series:
        one.put((0x28, 0x4), "CS", words(value))
    return Change(f"photometric interpretation {value!r}")


def _raw_bytes(series: Series, chance: Random, scene: Scene) -> str:
    one = series[0]
    for tag in chance.sample(sorted(one.elements), 3):
        element = one.elements[tag]
        changed = bytearray(element.value or b"\0\0")
        changed[chance.randrange(len(changed))] = chance.randrange(256)
        element.value = bytes(changed)
    one.put((0x28, 0x8), "IS", words(str(chance.choice((0, 1, len(one.frames), len(one.frames) + 1, 99999)))))
    one.put((0x48, 0x1), "FL", struct.pack("<f", chance.choice((0.0, float("nan"), 1e30, 0.5))))
    return "level 0: single bytes of three elements, number of frames, width of the volume"


DICOM: dict[str, Mutation] = {
    change.__name__.strip("_"): in_series(change)
    for change in (
        _element, _frames, _offsets, _file, _scale, _scale_of_one, _levels_that_lie, _two_slides, _pictures,
        _missing_level, _colours, _raw_bytes,
    )
}  # fmt: skip
"""Name -> mutation of a series."""
