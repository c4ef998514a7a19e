"""Which slides a model has learnt from, as hashes that reveal no name, so that nobody judges it by them unawares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from wsi_attention.errors import ModelError

KEY: Final = "learnt_from"
"""Where config.json keeps it."""
KINDS = ("slides", "hashed_names", "names", "patients")
"""What is remembered: fingerprints of contents, file names without suffix of slides whose content is remembered and of
those of which there is nothing but the name, patients."""
PARTS = ("train", "val")
SENTENCES = {"train": "this slide trained the model", "val": "this slide helped to choose the model (validation)"}
"""What the notes of a prediction say of a slide of each part."""


@dataclass(frozen=True)
class LearntFrom:
    """Hashes of the slides, by kind and then by part ("train" or "val")."""

    hashes: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)

    @classmethod
    def of(cls, texts: Mapping[str, Mapping[str, Iterable[str]]]) -> Self:
        """Return the record of fingerprints, names and patients, by kind and part."""
        return cls(
            {kind: {part: frozenset(map(_hash, own)) for part, own in parts.items()} for kind, parts in texts.items()}
        )

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Self | None:
        """Return what config.json says, None where it says nothing, as that of a model from an earlier version.

        Raises:
            ModelError: it holds something else than lists of hashes.
        """
        found = config.get(KEY)
        if not isinstance(found, Mapping):
            return None
        kinds = {kind: own for kind, own in found.items() if kind in KINDS and isinstance(own, Mapping)}
        wrong = [f"{kind}.{part}" for kind, parts in kinds.items() for part in parts if not _is_texts(parts[part])]
        if wrong:
            raise ModelError(f"{KEY!r} of the model is damaged: {wrong[0]} is no list of hashes; copy it again")
        return cls({kind: {part: frozenset(own) for part, own in kinds[kind].items()} for kind in kinds})

    @classmethod
    def union(cls, several: Iterable[LearntFrom]) -> Self:
        """Return what an ensemble has learnt from: a slide that trained one member and chose another's epoch trained.

        Args:
            several: the records of the members.
        """
        records = list(several)
        found: dict[str, dict[str, frozenset[str]]] = {}
        for kind in KINDS:
            every = {
                part: _together(one.hashes.get(kind, {}).get(part, frozenset()) for one in records) for part in PARTS
            }
            train = every["train"]
            found[kind] = {"train": train, "val": every["val"] - train}
        return cls({kind: parts for kind, parts in found.items() if any(parts.values())})

    def as_dict(self) -> dict[str, dict[str, list[str]]]:
        """Return plain JSON values, the same for the same slides."""
        return {kind: {part: sorted(own) for part, own in parts.items()} for kind, parts in self.hashes.items()}

    def part_of(self, kind: str, text: str) -> str | None:
        """Return in which part a fingerprint, name or patient was, None where it was in none."""
        known, parts = _hash(text), self.hashes.get(kind, {})
        return next((part for part in PARTS if known in parts.get(part, ())), None)

    def is_called(self, name: str, fingerprint: str | None) -> bool:
        """Return True where a slide of this name was used, and contents do not tell that it was another one.

        Args:
            name: file name without suffix.
            fingerprint: of the content, None where it is not known; one that `slides` knows needs no name.
        """
        kinds = ("names",) if fingerprint else ("names", "hashed_names")
        return any(self.part_of(kind, name) for kind in kinds)

    def note(self, fingerprint: str) -> tuple[str, ...]:
        """Return what to say of a slide of this content; nothing where the model has not seen it."""
        part = self.part_of("slides", fingerprint)
        return (SENTENCES[part],) if part else ()


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _together(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*sets)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
