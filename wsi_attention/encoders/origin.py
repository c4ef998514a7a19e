"""Where an encoder's weights come from, and whether they may be part of a model folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

PERMISSIVE = {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "cc0-1.0", "cc-by-4.0"}
"""Licences, as the hub writes them, under which weights may be given on."""


@dataclass(frozen=True)
class Origin:
    """Where weights come from.

    Attributes:
        name: what `wsi-attention encoders fetch` takes; empty for weights that nobody publishes.
        repository: "owner/model" on the hub; empty for weights that are not there.
        revision: of the repository; empty where that was not recorded.
        licence: of the weights; empty where not known.
        redistributable: whether it lets the weights be given on; None where that is not known.
    """

    name: str = ""
    repository: str = ""
    revision: str = ""
    licence: str = ""
    redistributable: bool | None = None

    def __bool__(self) -> bool:
        return bool(self.name)

    @classmethod
    def of(cls, stored: object) -> Origin:
        """Return an origin from JSON; nothing is known where it says nothing that can be used."""
        said = stored if isinstance(stored, Mapping) else {}
        texts = {one.name: said[one.name] for one in fields(cls)[:-1] if isinstance(said.get(one.name), str)}
        allowed = said.get("redistributable")
        return cls(**texts, redistributable=allowed if isinstance(allowed, bool) else None)

    def as_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        return asdict(self)

    @property
    def contained(self) -> bool:
        """Whether a model folder may contain the weights: nobody else publishes them, or their licence permits it."""
        return not self or self.redistributable is True

    @property
    def rights(self) -> str:
        """What is known of the licence, as a clause."""
        known = {True: "may be given on", False: "must not be given on", None: "not known whether it may be given on"}
        return f"licence {self.licence or 'not known'}, {known[self.redistributable]}"

    @property
    def command(self) -> str:
        """The command that gets the weights."""
        name = f'"{self.name}"' if " " in self.name else self.name
        return f"wsi-attention encoders fetch {name}"


NOBODY = Origin()
"""The origin of weights that nobody published."""


def permission(licence: str) -> bool | None:
    """Return whether a licence of the hub lets weights be given on; None where this package does not know it."""
    known = licence.strip().lower()
    if known in PERMISSIVE:
        return True
    return False if "-nd" in known else None
