"""What `peers.py` prints: each peer's time for the large slide, measured or computed, over ours for the same slide."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from common import table

Figures = dict[str, Any]
STRETCHES = ("model", "prepare", "encode")
KINDS = {"seconds": "clock", "cpu": "processor time"}


def spent(figures: Figures, kind: str) -> float:
    """Seconds from the file to the label, imports left out; kind "seconds" by the clock, "cpu" of processor time."""
    return sum(float(figures.get(f"{stretch}_{kind}", 0.0)) for stretch in STRETCHES)


def on_large(peer: Figures, one: Figures, tissue: float, kind: str) -> float:
    """Computed seconds of a peer on the large slide: all but encoding as measured there, encoding by its tiles."""
    small = one["small"]
    return spent(peer["ahead"], kind) + small[f"encode_{kind}"] * large_tiles(peer, small, tissue) / small["tiles"]


def large_tiles(peer: Figures, small: Figures, tissue: float) -> float:
    """The peer's own number of tiles on the large slide; where it does not tell, by the slides' tissue."""
    return float(peer["ahead"]["tiles"] or small["tiles"] * tissue)


def of_ours(one: Figures, side: str, kind: str) -> float:
    """Mean of our runs before and after a peer's."""
    return statistics.mean(spent(one[end][side], kind) for end in ("ours_before", "ours_after"))


def show(name: str, one: Figures) -> None:
    """A line while it runs."""
    ours = ", ".join(f"{side} {of_ours(one, side, 'seconds'):.1f} s" for side in one["ours_before"])
    small = one["small"]
    print(
        f"{name}: {small['tiles']} tiles of the small slide in {spent(small, 'seconds'):.1f} s; ours: {ours}",
        flush=True,
    )


def report(found: Figures, options: argparse.Namespace) -> None:
    """Print a table a peer."""
    for name, peer in found["peers"].items():
        small = peer["rounds"][0]["small"]
        tiles = large_tiles(peer, small, found["tissue_tiles_ratio"])
        print(
            f"\n{name}: {small['tiles']} tiles of {options.small}² measured, {tiles:,.0f} of {options.size}² computed"
        )
        rows = [row for kind in KINDS for row in _rows(peer, found["tissue_tiles_ratio"], kind)]
        print(table(("ours", "by", "s", f"{name} s (computed)", "ratio", "rounds"), rows))
        if "full" in peer:
            _full(name, peer["full"])
    print("\ntarget: a ratio of at least 30 at 40,000²")


def _rows(peer: Figures, tissue: float, kind: str) -> list[tuple[str, ...]]:
    theirs = [on_large(peer, one, tissue, kind) for one in peer["rounds"]]
    rows = []
    for side in peer["rounds"][0]["ours_before"]:
        ours = [of_ours(one, side, kind) for one in peer["rounds"]]
        ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
        middle = (
            f"{statistics.median(ours):.2f}",
            f"{statistics.median(theirs):.0f}",
            f"{statistics.median(ratios):.0f}x",
        )
        rows.append((side, KINDS[kind], *middle, f"{min(ratios):.0f} to {max(ratios):.0f}"))
    return rows


def _full(name: str, one: Figures) -> None:
    large = one["large"]
    for kind, words in KINDS.items():
        took = spent(large, kind)
        told = ", ".join(f"{side} {took / of_ours(one, side, kind):.0f}x" for side in one["ours_before"])
        print(
            f"{name} on the large slide, measured, by {words}: {large['tiles']:,} tiles in {took:.0f} s; ratio: {told}"
        )
