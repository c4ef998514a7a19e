"""What `wsi-attention info` says of a folder: a row for each slide in it; of a results folder what was done there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_attention.cli.say import say, warn
from wsi_attention.plain_text import counted

if TYPE_CHECKING:
    from wsi_attention.slide.description import SlideDescription

Describe = Callable[[str], "SlideDescription | None"]
"""Returns what a slide says of itself; None where it cannot be opened, which is told by then."""


def show_results(folder: Path, as_json: bool) -> None:
    """Print the model, the slides by status and by label, and the exports of a results folder."""
    from wsi_attention.inference.results.state import read_states

    statuses, labels, kinds, runs = Counter[str](), Counter[str](), set[str](), dict[str, str]()
    for state in read_states(folder):
        statuses[state.status] += 1
        if state.run.counted and state.row.get("label"):
            labels[state.row["label"]] += 1
        kinds |= {export.split("/")[0] for export in state.exports}
        runs[state.run.weights_sha256] = state.run.model
    if as_json:
        facts = {"results": str(folder), "models": runs, "statuses": statuses, "labels": labels, "exports": [*kinds]}
        say(json.dumps(facts, ensure_ascii=False))
        return
    models = ", ".join(f"{name} (weights {sha256[:12]})" for sha256, name in runs.items())
    rows = [("results", folder), ("model", models or "none"), ("slides", _counted(statuses))]
    rows += [("labels", _counted(labels))] if labels else []
    rows += [("exports", ", ".join(sorted(kinds)) or "none"), ("see", f"wsi-attention view {folder}")]
    say(*(f"{name:<12} {value}" for name, value in rows), "")


def show_slides(folder: Path, describe: Describe, as_json: bool) -> bool:
    """Print a row for each slide in a folder, with a mark where something is odd; return whether all could be opened.

    Raises:
        InputError: there is no slide in it.
    """
    from wsi_attention.inference.batch.discovery import find_slides

    found = find_slides([folder])
    width = max(len(slide.relative) for slide in found.slides)
    if not as_json:
        say(f"{'slide':<{width}}  {'pixels':>15}  {'µm/px':>7}  levels  {'reader':<10}  odd")
    unread = 0
    for slide in found.slides:
        facts = describe(slide.path)
        unread += facts is None
        if facts is not None:
            say(json.dumps(facts, ensure_ascii=False) if as_json else _row(slide.relative, width, facts))
    slides, others = counted(len(found.slides), "slide"), counted(len(found.others), "other file")
    if not as_json:
        say(
            "",
            f"{folder}: {slides}, {unread} of them cannot be opened, {others}",
        )
        say("wsi-attention info FILE says what is odd", "")
    elif found.others:
        warn(f"{folder}: {others}")
    return not unread


def _row(name: str, width: int, facts: SlideDescription) -> str:
    size = "{} x {}".format(*facts["size"])
    mpp = f"{facts['mpp'][0]:.4g}" if facts["mpp"] else "unknown"
    odd = counted(len(facts["odd"]), "remark") if facts["odd"] else ""
    line = f"{name:<{width}}  {size:>15}  {mpp:>7}  {len(facts['levels']):>6}  {facts['reader']:<10}  {odd}"
    return line.rstrip()


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.most_common()) or "none"
