"""One seed, one mutant: which format, which mutation, and the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import numpy as np
import store_mutations
import tiff_mutations
import written_tiffs
from base_slides import BASES, scene, write_base
from dicom_mutations import DICOM
from mutant import Change, Mutant, Work

Mutation = Callable[[Work], Change]

_TIFF: dict[str, Mutation] = {
    **tiff_mutations.BYTES,
    **written_tiffs.TIFFS,
    "placeholder": tiff_mutations.placeholder,
    "not_square": tiff_mutations.not_square,
    "no_tiles": tiff_mutations.no_tiles,
}
_PLAIN = dict(_TIFF)
_APERIO = {name: one for name, one in _TIFF.items() if name not in ("placeholder", "not_square")} | {
    "aperio_scale": written_tiffs.aperio_scale
}
_OME = {name: one for name, one in _TIFF.items() if name not in ("placeholder", "not_square")} | {
    "ome_scale": written_tiffs.ome_scale,
    "ome_images": written_tiffs.ome_images,
}
_STORE = {**store_mutations.BYTES, **store_mutations.STORES}

MUTATIONS: dict[str, Mapping[str, Mutation]] = {
    "svs": _APERIO,
    "tiff": _PLAIN,
    "ome-tiff": _OME,
    "tables": _PLAIN,
    "lzw": _PLAIN,
    "deflate": _PLAIN,
    "jpeg2000": _APERIO,
    "zarr-0.4": _STORE,
    "zarr-0.5": _STORE,
    "zip-0.4": {**_STORE, **store_mutations.ZIPS},
    "zip-0.5": {**_STORE, **store_mutations.ZIPS},
    "dicom": DICOM,
}
"""Format -> name -> mutation."""

WEIGHTS = {"svs": 4, "tiff": 4, "ome-tiff": 4, "zarr-0.4": 3, "zarr-0.5": 3, "dicom": 4}
"""How often a format is taken; the others once each."""


def make(seed: int, folder: Path, sound: Path) -> Mutant:
    """Make the mutant of a seed.

    Args:
        seed: fixes format, mutation, and every choice in it.
        folder: where the mutant goes.
        sound: where `write_sound` has written the sound slides.
    """
    chance = Random(seed)
    base = chance.choices(list(BASES), [WEIGHTS.get(name, 1) for name in BASES])[0]
    name = chance.choice(list(MUTATIONS[base]))
    path = folder / f"{base}-{seed}{BASES[base][0]}"
    _copy(sound / f"{base}{BASES[base][0]}", path)
    change = MUTATIONS[base][name](Work(chance, scene(), path))
    return Mutant(seed, base, name, change, path)


def write_sound(folder: Path) -> None:
    """Write the sound slide of every format into a new folder, and the pixels of its level 0 as `truth.npy`."""
    folder.mkdir(parents=True)
    np.save(folder / "truth.npy", scene().levels[0])
    for base in BASES:
        write_base(base, folder / base)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
