"""`report.html`: one page that opens anywhere, without a network, of a few slides, or the list of many.

The page of a few shows every slide below its table. That of many is the table alone: each slide's own page, which
`export.report` wrote, opens inside it on demand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from wsi_attention.export.report_part import TOP
from wsi_attention.export.report_rows import Row
from wsi_attention.export.report_section import FAINT, Section
from wsi_attention.export.templating import environment, page_parts

COLUMNS = (
    ("name", "Slide", "text", "minmax(0, 2.4fr)"),
    ("label", "Label", "text", "minmax(0, 1.8fr)"),
    ("probability", "Probability", "number", "7.6rem"),
    ("spread", "Spread", "number", "5rem"),
    ("unread", "Attention unread", "number", "5.2rem"),
    ("status", "Status", "text", "5.4rem"),
    ("tiles", "Tiles read", "number", "4rem"),
    ("area", "Area read", "number", "4.6rem"),
    ("reason", "Remarks", "text", "minmax(0, 2.6fr)"),
)
"""Key, title, kind and width of each."""
PATIENT = ("patient", "Patient", "text", "minmax(0, 1.2fr)")
"""The second column, where patients are known."""
NOT_CALIBRATED = (
    "The model's own number. It is not calibrated: 0.9 does not mean that nine of ten such slides have this label."
)

STEP = 50
"""Rows that the page shows at first; more appear as the reader comes to them."""


@dataclass(frozen=True)
class Listing:
    """How the table is to be read, and what lies beside the page.

    Attributes:
        classes: names that `Row.shares` are of.
        chosen: the class whose probability the rows are sorted by, highest first; if empty they are sorted by name.
        cohort: whether slides open on demand, each from its own page, instead of standing below the table.
        beside: what must be kept beside the page; empty where it needs nothing.
        links: (name, address) of further pages.
    """

    classes: tuple[str, ...] = ()
    chosen: str = ""
    cohort: bool = False
    beside: str = ""
    links: tuple[tuple[str, str], ...] = ()

    def share(self, row: Row) -> float | None:
        """Return the probability that a row shows: of the chosen class, else of its label."""
        if not self.chosen:
            return row.probability
        return row.shares[self.classes.index(self.chosen)] if row.shares else None


def page(
    rows: Sequence[Row],
    sections: Iterable[Section],
    about: Sequence[tuple[str, str]],
    certainty: Sequence[str] = (NOT_CALIBRATED,),
    listing: Listing | None = None,
) -> Iterator[str]:
    """Yield the page in pieces, so that no more than one section must be in memory.

    Args:
        rows: every slide, in the order of the table.
        sections: those slides that are shown below the table, in the order of the rows.
        about: (term, value) of the run.
        certainty: sentences on what probabilities and labels are worth.
        listing: how the table is to be read; by name, and nothing lies beside the page, if None.
    """
    listing = listing or Listing()
    patients = list(dict.fromkeys(row.patient for row in rows if row.patient))
    columns = (*COLUMNS[:1], *((PATIENT,) if patients else ()), *COLUMNS[1:])
    yield from (
        environment()
        .get_template("report.html.j2")
        .generate(
            rows=rows,
            slides=sections,
            about=about,
            certainty=certainty,
            warnings=sorted({row.warning for row in rows if row.warning}),
            columns=[column[:3] for column in columns],
            widths=" ".join(width for *_, width in columns),
            patients=patients,
            places={row.name: row.page or f"#slide-{row.number}" for row in rows if row.shown} if patients else {},
            step=STEP,
            top=TOP,
            faint=FAINT,
            **_found_in(rows),
            **_order(listing, bool(patients)),
            **page_parts("look.js", "table.js", *(("cards.js",) if listing.cohort else ())),
        )
    )


def _found_in(rows: Sequence[Row]) -> dict[str, object]:
    """Return what the rows can be counted and chosen by."""
    return {
        "labels": sorted(Counter(row.label for row in rows if row.label and row.counted).items()),
        "without": sorted(Counter(row.status for row in rows if not row.label).items()),
        "statuses": sorted({row.status for row in rows}),
    }


def _order(listing: Listing, of_patients: bool) -> dict[str, object]:
    return {
        "classes": listing.classes,
        "chosen": listing.chosen,
        "of_chosen": listing.share,
        "cohort": listing.cohort,
        "beside": listing.beside,
        "links": listing.links,
        "frames": " frame-src 'self' file:;" if listing.cohort else "",
        "sorted_by": "probability" if listing.chosen else "patient" if of_patients else "name",
        "order": "descending" if listing.chosen else "ascending",
    }
