"""Where the time of a batch went, as a few lines and as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wsi_attention.timing import KINDS, Clock, Work


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
        """A line for each kind: seconds a slide, in total, and the share of the sum."""
        slides, total = max(1, self.slides), self.sum or 1.0
        lines = [f"{'':<10}{'a slide':>10}{'total':>10}{'share':>8}"]
        lines += [
            f"{kind:<10}{spent / slides:>8.3f} s{spent:>8.2f} s{spent / total:>8.1%}"
            for kind, spent in ((kind, self.seconds[kind]) for kind in KINDS)
        ]
        together = f"; {self.sum / self.wall:.2f} at a time" if self.wall > 0 else ""
        return [*lines, f"{'sum':<10}{self.sum / slides:>8.3f} s{self.sum:>8.2f} s in {self.wall:.2f} s{together}"]

    def facts(self) -> dict[str, Any]:
        """For the record of a run."""
        return asdict(self)


def profile_of(clocks: Sequence[Clock], wall: float) -> Profile:
    """The profile of slides that were timed one by one, on any threads, processes or machines with the same time.

    Args:
        clocks: one a slide, stopped.
        wall: seconds from the start to the end of the run.
    """
    seconds = {kind: sum(clock.seconds[kind] for clock in clocks) for kind in KINDS}
    worked = covered(interval for clock in clocks for interval in clock.busy)
    seconds["waiting"] = max(0.0, wall - worked)
    return Profile(len(clocks), wall, seconds)


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """How long at least one of the intervals (start, end) lasted."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
