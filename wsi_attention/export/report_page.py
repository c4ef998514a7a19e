"""`report.html`: one page that opens anywhere, without a network, of the parts that `export.report` wrote."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from wsi_attention.export.layers import MAPS, ShownBox
from wsi_attention.export.report import TOP, Part, TilePart
from wsi_attention.plain_text import visible
from wsi_attention.structures import UNDECIDED, error_text, shown_class

if TYPE_CHECKING:
    from jinja2 import Environment

COLUMNS = (
    ("name", "Slide", "text"),
    ("label", "Label", "text"),
    ("probability", "Probability", "number"),
    ("spread", "Spread", "number"),
    ("unread", "Attention unread", "number"),
    ("status", "Status", "text"),
    ("tiles", "Tiles read", "number"),
    ("area", "Area read", "number"),
    ("reason", "Remarks", "text"),
)
PATIENT = ("patient", "Patient", "text")
"""The second column, where patients are known."""
NOT_CALIBRATED = (
    "The model's own number. It is not calibrated: 0.9 does not mean that nine of ten such slides have this label."
)
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

    @property
    def kind(self) -> str:
        """The status as a class of the style sheet."""
        return self.status if self.status in KINDS else ""


@dataclass(frozen=True)
class Section:
    """What the page says of one slide.

    Attributes:
        row: its row.
        part: what `report.read_part` returns.
        full: with the large overview and the tiles, or with a thumbnail alone.
    """

    row: Row
    part: Part
    full: bool

    @property
    def number(self) -> int:
        """As in the table."""
        return self.row.number

    @property
    def name(self) -> str:
        """As in the table."""
        return self.row.name

    @property
    def label(self) -> str:
        """As people see it, with a model's purpose."""
        named = self.part["label"]
        if self.part["among"] is not None and named == UNDECIDED and self.classes:
            named = f"{named}, most probable {self.classes[0][0]}"
        return shown_class(named, self.part["purpose"])

    @property
    def calibrated(self) -> str:
        """What the page says beside a probability."""
        return "calibrated" if "uncalibrated" in self.part["provenance"] else "not calibrated"

    @property
    def probability(self) -> float | None:
        """Of the most probable class, which the label is unless it is undecided; None where it is not one class."""
        return None if self.part.get("called") else max(self.part["probabilities"], default=0.0)

    @property
    def classes(self) -> list[tuple[str, float]]:
        """(name, probability), most probable first."""
        pairs = zip(self.part["classes"], self.part["probabilities"], strict=False)
        return sorted(pairs, key=lambda pair: -pair[1])

    @property
    def values(self) -> list[tuple[str, float]]:
        """(name, number) of a target beyond one label."""
        return self.part.get("values", [])

    @property
    def boxes(self) -> list[ShownBox]:
        """Heaviest last, so that they lie on top; a thumbnail shows the heaviest alone."""
        kept = [box for box in self.part["boxes"] if self.full or (box["rank"] or TOP + 1) <= TOP]
        return kept[::-1]

    @property
    def tiles(self) -> list[tuple[TilePart, ShownBox]]:
        """The tiles shown at full resolution, each with its box."""
        ranked = {box["rank"]: box for box in self.part["boxes"] if box["rank"]}
        return [(tile, ranked[tile["rank"]]) for tile in self.part["tiles"] if tile["rank"] in ranked]

    @property
    def origin(self) -> list[tuple[str, str]]:
        """Where numbers come from, as (term, value)."""
        known = self.part["provenance"]
        found = [("Reader", known.get("reader")), ("Scale from", known.get("mpp_source")), ("Seed", known.get("seed"))]
        found.append(("Content", str(known.get("fingerprint") or "")[:16]))
        return [(term, str(value)) for term, value in found if value]


def page(
    rows: Sequence[Row],
    sections: Iterable[Section],
    about: Sequence[tuple[str, str]],
    left_out: str = "",
    certainty: Sequence[str] = (NOT_CALIBRATED,),
) -> Iterator[str]:
    """Yield the page in pieces, so that no more than one section must be in memory.

    Args:
        rows: every slide.
        sections: those slides that are shown, in the order of the rows.
        about: (term, value) of the run.
        left_out: what was left out to keep the page small; empty where nothing was.
        certainty: sentences on what probabilities and labels are worth.
    """
    from markupsafe import Markup

    script = template_text("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    labels = Counter(row.label for row in rows if row.label and row.counted)
    without = Counter(row.status for row in rows if not row.label)
    patients = list(dict.fromkeys(row.patient for row in rows if row.patient))
    yield from (
        environment()
        .get_template("report.html.j2")
        .generate(
            rows=rows,
            slides=sections,
            about=about,
            left_out=left_out,
            certainty=certainty,
            warnings=sorted({row.warning for row in rows if row.warning}),
            columns=(*COLUMNS[:1], *((PATIENT,) if patients else ()), *COLUMNS[1:]),
            patients=patients,
            numbers={row.name: row.number for row in rows if row.shown} if patients else {},
            maps=MAPS,
            top=TOP,
            labels=sorted(labels.items()),
            without=sorted(without.items()),
            style=Markup(template_text("report.css")),
            script=Markup(script),
            script_hash=f"sha256-{digest}",
        )
    )


@cache
def environment(package: str = "wsi_attention.export") -> Environment:
    """Return what fills the templates of a package in: every text is escaped, and shown with no harmful character."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
    )
    found.filters |= {"decimals": _decimals, "thousands": _thousands, "distance": _distance, "spread": _spread}
    return found


def template_text(name: str, package: str = "wsi_attention.export") -> str:
    """Return a file beside the templates of a package as it is."""
    return (files(package) / "templates" / name).read_text(encoding="utf-8")


def _decimals(value: float, places: int) -> str:
    return f"{value:.{places}f}"


def _thousands(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")


def _distance(micrometres: float) -> str:
    return f"{micrometres / 1000:.2f} mm" if micrometres >= 1000 else f"{micrometres:.0f} µm"


def _spread(value: float) -> str:
    return error_text(value).strip()
