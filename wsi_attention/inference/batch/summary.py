"""How a batch of slides went: in numbers, and in a few lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wsi_attention.inference.profile import Profile, profile_of
from wsi_attention.plain_text import visible
from wsi_attention.structures import Counters
from wsi_attention.timing import Clock

SHOWN = 20
"""Slides without a label that are named; the table has all."""
REASONS = 5
"""Reasons for doing slides again that are told; the record of the run has all."""


@dataclass
class Report:
    """How a batch went.

    Attributes:
        results: the results folder, or its URL.
        total: slides asked for.
        statuses: status -> number of slides, earlier results included.
        kept: slides that were finished already.
        again: (name, why) of slides that were done again although an earlier run had finished them.
        gone: names of slides in the results folder that were not among those asked for.
        failures: (name, reason) of slides that failed now.
        empty: (name, reason) of slides without tissue, earlier results included.
        warnings: what labels of the model are worth, where it says that it is no model in earnest.
        noted: (name, notes) of slides that have a label and notes, earlier results included.
        others: files that were no slides.
        skipped: results folders of other runs that nobody looked into.
        interrupted: whether the user stopped it.
        threads_left: whether threads may still be running that would keep the process alive.
        counters: what reading cost in this run.
        seconds: how long it all took.
        clocks: where the time went, one a slide, if that was asked for.
    """

    results: Path | str
    total: int
    statuses: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    again: list[tuple[str, str]] = field(default_factory=list)
    gone: tuple[str, ...] = ()
    failures: list[tuple[str, str]] = field(default_factory=list)
    empty: list[tuple[str, str]] = field(default_factory=list)
    warnings: set[str] = field(default_factory=set)
    noted: list[tuple[str, str]] = field(default_factory=list)
    others: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    interrupted: bool = False
    threads_left: bool = False
    counters: Counters = field(default_factory=Counters)
    seconds: float = 0.0
    clocks: list[Clock] | None = None

    @property
    def profile(self) -> Profile | None:
        """Where the time went; None if that was not asked for."""
        return None if self.clocks is None else profile_of(self.clocks, self.seconds)

    @property
    def exit_status(self) -> int:
        """130 interrupted, 1 some slides failed or have no tissue, 0 all done."""
        return 130 if self.interrupted else int(bool(self.failures or self.empty))


def complaints(report: Report) -> list[str]:
    """Name each slide without a label and say why, then each with notes; beyond `SHOWN` of either, count them."""
    without = _lines(report.failures + report.empty, "", "slides without a label")
    return without + _lines(report.noted, "note: ", "slides with notes")


def _lines(found: Sequence[tuple[str, str]], before: str, kind: str) -> list[str]:
    lines = [f"{name}: {before}{text}" for name, text in sorted(found)[:SHOWN]]
    more = len(found) - SHOWN
    return [*lines, f"{more} more {kind}, see the table"] if more > 0 else lines


def summary(report: Report) -> str:
    """What a user wants to know at the end, a few lines."""
    counts = ", ".join(f"{number} {status}" for status, number in sorted(report.statuses.items()))
    lines = [f"{text.capitalize()}." for text in sorted(report.warnings)]
    lines.append(f"{_counted(report.total, 'slide')}: {counts or 'none'} in {report.seconds:.1f} s")
    if report.kept:
        lines.append(f"{report.kept} had been finished by an earlier run and were kept")
    lines += _again(report.again)
    if report.gone:
        lines.append(
            f"{_counted(len(report.gone), 'slide')} of earlier runs not asked for now, rows and files stay:"
            f" {_some(report.gone)}; --overwrite removes them"
        )
    if report.others:
        shown = _some([Path(path).name for path in report.others])
        lines.append(f"{_counted(len(report.others), 'other file')} skipped: {shown}")
    if report.skipped:
        lines.append(f"{_counted(len(report.skipped), 'place')} with earlier results left out: {_some(report.skipped)}")
    lines += [f"{what:<10}{path}" for what, path in _places(report.results)]
    if report.interrupted:
        done = report.statuses.total() - report.statuses["failed"]
        lines.append(f"interrupted: {done} of {report.total} slides are finished; the same command does the rest")
    lines += report.profile.lines() if report.profile else []
    return "\n".join(map(visible, lines))


def _again(done: list[tuple[str, str]]) -> list[str]:
    """A line for each reason why finished slides were done again, the most frequent first."""
    reasons = Counter(why for _, why in done).most_common()
    lines = [
        f"{_counted(count, 'slide')} done again: {why} ({_some(sorted(name for name, own in done if own == why))})"
        for why, count in reasons[:REASONS]
    ]
    more = sum(count for _, count in reasons[REASONS:])
    return [*lines, f"{more} more done again for reasons of their own, see run_*.json"] if more else lines


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _some(names: Sequence[str]) -> str:
    """The first three names, and whether there are more."""
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def _places(results: Path | str) -> list[tuple[str, Path | str]]:
    """What a results folder holds for people, and where: the table, and those folders that are there."""
    if isinstance(results, str):
        return [("results:", results)]
    folders = [("GeoJSON:", results / "geojson"), ("heatmaps:", results / "heatmaps"), ("tiles:", results / "tiles")]
    folders.insert(0, ("report:", results / "report.html"))
    return [("table:", results / "predictions.csv"), *((what, path) for what, path in folders if path.exists())]
