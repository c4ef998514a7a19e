"""The summary of a batch: numbers, a few lines of text, and where the time went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wsi_attention.inference.batch.discovery import Found
from wsi_attention.plain_text import counted, first_names, visible
from wsi_attention.structures import Counters
from wsi_attention.timing import KINDS, Clock, Work

SHOWN = 20
"""How many slides without a label are named; the table lists all."""
REASONS = 5
"""How many reasons for doing slides again are told; the record of the run lists all."""


@dataclass
class Report:
    """How a batch went.

    Attributes:
        results: the results folder, or its URL.
        total: slides asked for.
        statuses: status -> number of slides, earlier results included.
        kept: slides that were finished already.
        again: (name, why) of slides that were done again although an earlier run had finished them.
        gone: names of slides in the results folder that were not asked for.
        failures: (name, reason) of slides that failed now.
        empty: (name, reason) of slides without tissue, earlier results included.
        warnings: what labels of the model are worth, where its purpose is another than to label slides.
        noted: (name, notes) of slides that have a label and notes, earlier results included.
        others: files that are not slides.
        skipped: results folders of other runs, which were not searched.
        interrupted: whether the user stopped it.
        threads_left: whether threads may still be running that would keep the process alive.
        counters: what reading cost in this run.
        seconds: how long it all took.
        clocks: where the time went, one a slide, if that was asked for.
        left_out: names of exporters that show pixels, where there are features alone.
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
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: Found, results: Path | str, profile: bool) -> Report:
        """Return the report of a batch that has not begun."""
        clocks: list[Clock] | None = [] if profile else None
        return cls(results, len(found.slides), others=found.others, skipped=found.results, clocks=clocks)

    @property
    def profile(self) -> Profile | None:
        """Where the time went; None if that was not asked for."""
        return None if self.clocks is None else profile_of(self.clocks, self.seconds)

    @property
    def exit_status(self) -> int:
        """130 interrupted, 1 some slides failed or have no tissue, 0 all done."""
        return 130 if self.interrupted else int(bool(self.failures or self.empty))

    def facts(self) -> dict[str, object]:
        """Return what the record of a run says of how it went."""
        return {
            "seconds": round(self.seconds, 3),
            "ended": "interrupted" if self.interrupted else "complete",
            "slides": self.total,
            "statuses": dict(self.statuses),
            "kept": self.kept,
            "done_again": dict(self.again),
            "not_asked_for": list(self.gone),
            "failures": dict(self.failures),
            "without_tissue": dict(self.empty),
            "other_files_skipped": list(self.others),
            "results_skipped": list(self.skipped),
            "counters": asdict(self.counters),
            **({"profile": self.profile.facts()} if self.profile else {}),
        }


def complaints(report: Report) -> list[str]:
    """Name each slide without a label and say why, then each with notes; beyond `SHOWN` of either, count them."""
    without = _lines(report.failures + report.empty, "", "slides without a label")
    return without + _lines(report.noted, "note: ", "slides with notes")


def _lines(found: Sequence[tuple[str, str]], before: str, kind: str) -> list[str]:
    lines = [f"{name}: {before}{text}" for name, text in sorted(found)[:SHOWN]]
    more = len(found) - SHOWN
    return [*lines, f"{more} more {kind}, see the table"] if more > 0 else lines


def summary(report: Report) -> str:
    """Return the summary of a batch, a few lines."""
    counts = ", ".join(f"{number} {status}" for status, number in sorted(report.statuses.items()))
    lines = [f"{text.capitalize()}." for text in sorted(report.warnings)]
    lines.append(f"{counted(report.total, 'slide')}: {counts or 'none'} in {report.seconds:.1f} s")
    if report.kept:
        lines.append(f"{report.kept} had been finished by an earlier run and were kept")
    lines += _again(report.again)
    if report.left_out:
        lines.append(f"left out, for it shows pixels of slides (-i): {', '.join(report.left_out)}")
    if report.gone:
        lines.append(
            f"{counted(len(report.gone), 'slide')} of earlier runs not asked for now, rows and files stay:"
            f" {first_names(report.gone)}; --overwrite removes them"
        )
    if report.others:
        shown = first_names([Path(path).name for path in report.others])
        lines.append(f"{counted(len(report.others), 'other file')} skipped: {shown}")
    if report.skipped:
        places = counted(len(report.skipped), "place")
        lines.append(f"{places} with earlier results left out: {first_names(report.skipped)}")
    lines += [f"{what:<10}{path}" for what, path in _places(report.results)]
    if report.interrupted:
        done = report.statuses.total() - report.statuses["failed"]
        lines.append(f"interrupted: {done} of {report.total} slides are finished; the same command does the rest")
    lines += report.profile.lines() if report.profile else []
    return "\n".join(map(visible, lines))


def _again(done: list[tuple[str, str]]) -> list[str]:
    """Return a line for each reason why finished slides were done again, the most frequent first."""
    reasons = Counter(why for _, why in done).most_common()
    lines = [
        f"{counted(count, 'slide')} done again: {why} ({first_names(sorted(name for name, own in done if own == why))})"
        for why, count in reasons[:REASONS]
    ]
    more = sum(count for _, count in reasons[REASONS:])
    return [*lines, f"{more} more done again for reasons of their own, see run_*.json"] if more else lines


def _places(results: Path | str) -> list[tuple[str, Path | str]]:
    """Return the files and folders for people, by what they are: the table, and those of the others that exist."""
    if isinstance(results, str):
        return [("results:", results)]
    folders = [("GeoJSON:", results / "geojson"), ("heatmaps:", results / "heatmaps"), ("tiles:", results / "tiles")]
    folders.insert(0, ("report:", results / "report.html"))
    folders.insert(0, ("patients:", results / "patients.csv"))
    return [("table:", results / "predictions.csv"), *((what, path) for what, path in folders if path.exists())]


@dataclass(frozen=True)
class Profile:
    """What the slides of one run cost.

    Attributes:
        slides: that were worked on.
        wall: seconds that passed.
        seconds: of each kind of work, of all slides together. "waiting" is the time in which no slide was worked on;
            a slide that waits while others compute costs nothing.
    """

    slides: int
    wall: float
    seconds: dict[Work, float]

    @property
    def sum(self) -> float:
        """Seconds of all kinds: the wall time for one slide, more where slides were worked on at the same time."""
        return sum(self.seconds.values())

    def lines(self) -> list[str]:
        """Return a line for each kind of work: seconds for each slide, in total, and the share of the sum."""
        slides, total = max(1, self.slides), self.sum or 1.0
        lines = [f"{'':<10}{'a slide':>10}{'total':>10}{'share':>8}"]
        lines += [
            f"{kind:<10}{spent / slides:>8.3f} s{spent:>8.2f} s{spent / total:>8.1%}"
            for kind, spent in ((kind, self.seconds[kind]) for kind in KINDS)
        ]
        together = f"; {self.sum / self.wall:.2f} at a time" if self.wall > 0 else ""
        return [*lines, f"{'sum':<10}{self.sum / slides:>8.3f} s{self.sum:>8.2f} s in {self.wall:.2f} s{together}"]

    def facts(self) -> dict[str, object]:
        """Return what the record of a run says of the profile."""
        return asdict(self)


def profile_of(clocks: Sequence[Clock], wall: float) -> Profile:
    """Return the profile of slides that were timed one by one, on threads, processes or machines with the same clock.

    Args:
        clocks: one a slide, stopped.
        wall: seconds from the start to the end of the run.
    """
    seconds = {kind: sum(clock.seconds[kind] for clock in clocks) for kind in KINDS}
    worked = covered(interval for clock in clocks for interval in clock.busy)
    seconds["waiting"] = max(0.0, wall - worked)
    return Profile(len(clocks), wall, seconds)


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Return how long at least one of the intervals (start, end) lasted."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
