"""How a batch of slides went: in numbers, and in a few lines of text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from wsi_attention.structures import Counters

SHOWN = 20
"""Failures that the text names; the table has all."""


@dataclass
class Report:
    """How a batch went.

    Attributes:
        results: the results folder.
        total: slides asked for.
        statuses: status -> number of slides, earlier results included.
        kept: slides that were finished already.
        failures: (name, reason) of slides that failed now.
        others: files that were no slides.
        interrupted: whether the user stopped it.
        threads_left: whether threads may still be running that would keep the process alive.
        counters: what reading cost in this run.
        seconds: how long it all took.
    """

    results: Path
    total: int
    statuses: Counter[str] = field(default_factory=Counter)
    kept: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    others: tuple[str, ...] = ()
    interrupted: bool = False
    threads_left: bool = False
    counters: Counters = field(default_factory=Counters)
    seconds: float = 0.0

    @property
    def exit_status(self) -> int:
        """130 interrupted, 1 some slides failed, 0 all done."""
        return 130 if self.interrupted else int(bool(self.failures))


def summary(report: Report) -> str:
    """What a user wants to know at the end, a few lines."""
    counts = ", ".join(f"{number} {status}" for status, number in sorted(report.statuses.items()))
    lines = [f"{report.total} slide{'s' * (report.total != 1)}: {counts or 'none'} in {report.seconds:.1f} s"]
    if report.kept:
        lines.append(f"{report.kept} had been finished by an earlier run and were kept")
    if report.others:
        count, shown = len(report.others), ", ".join(Path(path).name for path in report.others[:3])
        lines.append(f"{count} other file{'s' * (count > 1)} skipped: {shown}{', ...' * (count > 3)}")
    lines += [f"  failed: {name}: {reason}" for name, reason in sorted(report.failures)[:SHOWN]]
    if len(report.failures) > SHOWN:
        lines.append(f"  and {len(report.failures) - SHOWN} more, see the table")
    lines.append(f"table: {report.results / 'predictions.csv'}")
    if report.interrupted:
        done = report.statuses.total()
        lines.append(f"interrupted: {done} of {report.total} slides are finished; the same command does the rest")
    return "\n".join(lines)
