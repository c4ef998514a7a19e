"""What a mutation is given, and what it says it did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from base_slides import MPP, Scene

Lost = Literal["", "pixels", "scale", "channels", "image"]
"""What of a slide a mutation takes away so that a reader can tell; "" where it cannot be told, or nothing is lost."""


@dataclass(frozen=True)
class Change:
    """What was done to a slide.

    Attributes:
        what: in words.
        lost: what is lost for certain: such a slide must not be `done` without a note.
        mpp: the scale that somebody who trusts the file arrives at; None where it does not matter.
    """

    what: str
    lost: Lost = ""
    mpp: float | None = MPP


@dataclass(frozen=True)
class Mutant:
    """A changed slide on disk.

    Attributes:
        seed: makes it again.
        base: the format it was made from.
        mutation: the mutation's name.
        change: what was done.
        path: the file or folder.
    """

    seed: int
    base: str
    mutation: str
    change: Change
    path: Path


@dataclass(frozen=True)
class Work:
    """What a mutation works with: chance, the scene, and the sound slide, changed in place or replaced."""

    chance: Random
    scene: Scene
    path: Path
