"""The rows of the report's tables: slides, and patients."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("done", "partial", "no_tissue", "failed")


@dataclass(frozen=True)
class Patient:
    """A patient in the table of patients, as patients.csv has it.

    Attributes:
        number: its place in the table, from 1.
        label: as people see it, with a model's purpose; empty where no slide has one.
        probability: of the label.
        used: slides with a label.
        slides: all of them.
        decides: name of the slide that decides.
    """

    number: int
    name: str
    status: str
    label: str = ""
    probability: float | None = None
    used: int = 0
    slides: int = 0
    decides: str = ""
    reason: str = ""

    @property
    def kind(self) -> str:
        """The status as a class of the style sheet."""
        return self.status if self.status in KINDS else ""


@dataclass(frozen=True)
class Row:
    """A slide in the table; None where a slide without a label has no such number.

    Attributes:
        number: the slide's place in the table, from 1.
        label: as people see it, with a model's purpose.
        shown: whether the page has a section on it.
        warning: what a label of a model with this purpose is worth.
        unread: share of the attention on tiles that were not read.
        patient: whose it is, where patients are known; the slides of one stand together.
        counted: whether several slides may have this label, which a number is not.
        shares: probability of every class of the page, in order.
        page: where the slide's own page lies from this one; empty where its section is on this page, or there is none.
    """

    number: int
    name: str
    status: str
    label: str = ""
    probability: float | None = None
    spread: float | None = None
    tiles: int | None = None
    area: float | None = None
    reason: str = ""
    shown: bool = False
    warning: str = ""
    unread: float | None = None
    patient: Patient | None = None
    counted: bool = True
    shares: tuple[float, ...] = ()
    page: str = ""

    @property
    def kind(self) -> str:
        """The status as a class of the style sheet."""
        return self.status if self.status in KINDS else ""
