"""What the report says of one slide: a section of `report.html`, or a page of the slide's own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from wsi_attention.defaults import VIEWER_PORT
from wsi_attention.export.layers import ShownBox
from wsi_attention.export.report_part import DATA, END, MARK, TOP, Part, TilePart, data_of
from wsi_attention.export.report_rows import Row
from wsi_attention.export.templating import environment, page_parts
from wsi_attention.structures import UNDECIDED, shown_class

VIEWER = f"http://127.0.0.1:{VIEWER_PORT}/"
"""Where `wsi-attention view` shows the slides themselves, on this computer alone."""
SHOWN_TILE = 400
"""Pixels of the screen that a tile takes where a link opens the viewer at it."""

FAINT = 0.3
"""Strength below which a tile's number is hollow."""


@dataclass(frozen=True)
class Section:
    """What the page says of one slide.

    Attributes:
        row: its row.
        part: what `report_part.read_part` returns.
    """

    row: Row
    part: Part

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
        """Heaviest last, so that they lie on top."""
        return self.part["boxes"][::-1]

    def strength(self, box: ShownBox) -> float:
        """Return how strongly a tile is drawn, from 0 to 1: the root of its weight over that of the heaviest."""
        heaviest = max((one["weight"] for one in self.part["boxes"] if one["rank"]), default=0.0)
        return math.sqrt(box["weight"] / heaviest) if heaviest > 0 else 0.0

    @property
    def viewer(self) -> str:
        """The address at which the viewer shows the whole slide."""
        return f"{VIEWER}#slide={quote(self.name, safe='', errors='backslashreplace')}"

    def viewer_at(self, box: ShownBox) -> str:
        """Return the address at which the viewer shows a tile: its middle, and pixels of the screen a level-0 pixel."""
        zoom = min(1.0, SHOWN_TILE / max(box["w"], box["h"]))
        return f"{self.viewer}&x={box['x'] + box['w'] // 2}&y={box['y'] + box['h'] // 2}&zoom={zoom:.3g}"

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


def slide_page(name: str, part: Part) -> Iterator[str]:
    """Yield the page of one slide, from which `report_part.read_part` reads the part again.

    Args:
        name: the slide's.
        part: what the page shows.
    """
    from markupsafe import Markup

    yield MARK
    yield from (
        environment()
        .get_template("card.html.j2")
        .generate(
            slide=Section(Row(1, name, status=""), part),
            data=Markup(f"{DATA}{data_of(part)}</script>"),
            top=TOP,
            faint=FAINT,
            **page_parts("look.js", "card.js"),
        )
    )
    yield END
