"""Survival: when an event comes, of slides for which it may not have come yet when they were last heard of.

Time is cut into intervals that end at equal shares of the events. Logit j is that of the hazard of interval j: that the
event falls into it, of those without one before. The loss is the likelihood of Gensheimer & Narasimhan, "A scalable
discrete-time survival model for neural networks", PeerJ 2019, equation 1, so each slide counts by itself and needs no
others beside it, as Cox's partial likelihood does (Zadeh & Schmid, "Bias in cross-entropy-based training of deep
survival networks", IEEE TPAMI 2021, on why the censored part is the likelihood and nothing less).

An interval reaches from the end of the one before, without it, to its own end, with it: survival at an end is that
after the events at this time, as the estimator of Kaplan and Meier has it. A slide that is censored within an interval
counts as having survived it where half of it was over or more (Gensheimer & Narasimhan, section "Loss function").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_attention.errors import InputError
from wsi_attention.statistics.concordance import concordance
from wsi_attention.statistics.figures import Judgement, judgement
from wsi_attention.targets.numbers import number_in
from wsi_attention.targets.sequential import log_passed, stopping_loss
from wsi_attention.targets.target import Shown, Truth

KIND = "survival"
RISK = "risk"
COLUMNS = ("time", "event")
EVENT, CENSORED = "event", "censored"
_SAID = {
    **dict.fromkeys(("1", "yes", "true", "event", "dead", "deceased"), EVENT),
    **dict.fromkeys(("0", "no", "false", "censored", "alive", "living"), CENSORED),
}


@dataclass(frozen=True)
class WantedSurvival:
    """A column with a time, and one that says whether it is that of the event.

    Attributes:
        intervals: how many time is cut into; fewer where events have fewer different times.
        columns: time, event.
    """

    intervals: int = 4
    columns: tuple[str, ...] = COLUMNS
    kind: str = KIND

    def text(self, cells: Mapping[str, str], where: str) -> str:
        """See `Asked`: "12.5 event", "30 censored"."""
        time_column, event_column = self.columns
        said = cells[event_column].strip().casefold()
        if said in ("1.0", "0.0"):
            said = said[0]
        if said not in _SAID:
            raise InputError(
                f"{where}: {event_column} is {cells[event_column]!r}; write 1 where the event came at the time, and 0 "
                "where it had not come until then"
            )
        if not cells[time_column]:
            told = "an event without a time" if _SAID[said] == EVENT else "no time"
            raise InputError(f"{where}: {told}: {time_column} is empty; fill it in, or leave the slide out")
        time = number_in(cells[time_column], time_column, where)
        if time <= 0:
            raise InputError(
                f"{where}: {time_column} is {cells[time_column]}; it is counted from the slide on, so above 0"
            )
        return f"{time!r} {_SAID[said]}"

    def check(self, texts: Mapping[int, str], name: str | Path) -> None:
        """See `Asked`; `text` has looked at each."""

    def strata(self, texts: Sequence[str], name: str | Path) -> list[str]:
        """See `Asked`; the group is whether the event came."""
        groups = [text.rpartition(" ")[2] for text in texts]
        events = groups.count(EVENT)
        if events < 2:
            raise InputError(
                f"{name}: {events} of {len(groups)} slides have an event ({self.columns[1]} = 1); survival needs two"
            )
        return groups

    def fitted(
        self, training: Sequence[str], validation: Sequence[str], name: str | Path
    ) -> tuple[Survival, list[str]]:
        """See `Asked`; the intervals are those of the events of training."""
        times = [float(text.split()[0]) for text in training if text.endswith(EVENT)]
        if not times:
            raise InputError(f"{name}: no training slide has an event; change the column split, or draw another seed")
        quantiles = np.quantile(times, np.arange(1, self.intervals + 1) / self.intervals, method="inverted_cdf")
        ends = tuple(sorted({_short(time) for time in quantiles.tolist()}))
        none = not any(text.endswith(EVENT) for text in validation)
        notes = ["no validation slide has an event: there is no C-index, the loss decides"] if none else []
        return Survival(ends, self), notes


@dataclass(frozen=True)
class Survival:
    """The probability that the event has not come at the end of each interval, and one risk from all of them.

    Attributes:
        ends: of the intervals, in the unit of the column of times; the first one begins at 0.
        wanted: what was asked for.
    """

    ends: tuple[float, ...]
    wanted: WantedSurvival
    kind: str = KIND
    unknown: float = 0.5
    weighed: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """The ends, as text."""
        return tuple(f"{end:g}" for end in self.ends)

    @property
    def outputs(self) -> int:
        """A hazard an interval."""
        return len(self.ends)

    @property
    def measured(self) -> tuple[str, ...]:
        """The survival at each end."""
        return tuple(f"survival_{name}" for name in self.names)

    @property
    def columns(self) -> tuple[str, ...]:
        """The risk, then survival at each end."""
        return (RISK, *self.measured)

    def as_dict(self) -> dict[str, object]:
        """Return what config.json says."""
        return {
            "kind": KIND,
            "columns": list(self.wanted.columns),
            "intervals": self.wanted.intervals,
            "ends": list(self.ends),
        }

    def known(self, text: str) -> Truth:
        """Return the time, and 1 for an event or 0."""
        time, _, said = text.partition(" ")
        return float(time), float(said == EVENT)

    def index(self, truth: Truth) -> int:
        """Return 0: slides are not weighed."""
        return 0

    def tensor(self, truths: Sequence[Truth]) -> Tensor:
        """Return (b, 2, J): which intervals are known of, 1 or 0, and 1 where the event came."""
        return torch.tensor([self._steps(time, bool(event)) for time, event in truths], dtype=torch.float32)

    def loss(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the mean negative log-likelihood; truth as `tensor` returns it."""
        return stopping_loss(logits, truth[:, 0].to(logits), truth[:, 1].to(logits)).mean()

    def read(self, logits: Tensor) -> Tensor:
        """Return the survival at each end, (..., J); it never rises."""
        return log_passed(logits).exp()

    def headline(self, numbers: Tensor) -> Tensor:
        """Return the risk, (..., 1): the share of the time up to the last end that the event is expected to take away.

        1 − (1 / T)·∫₀ᵀ S(t) dt with S straight between the ends: 0 where no event comes, 1 where it comes at once.
        """
        widths = torch.tensor(self._widths, dtype=numbers.dtype, device=numbers.device)
        before = torch.cat([torch.ones_like(numbers[..., :1]), numbers[..., :-1]], dim=-1)
        lived = ((before + numbers) / 2 * widths).sum(dim=-1, keepdim=True)
        return 1 - lived / self.ends[-1]

    def shown(self, numbers: NDArray[np.float64]) -> Shown:
        """Return the risk, and the survival at each end."""
        risk = float(self.headline(torch.from_numpy(numbers)))
        values = ((RISK, risk), *zip(self.measured, numbers.tolist(), strict=True))
        return Shown((), np.empty(0), values, f"risk {risk:.3f}")

    def judged(self, numbers: Tensor, truths: Sequence[Truth], patients: Sequence[str] | None = None) -> Judgement:
        """Return Harrell's C-index of the risk."""
        times, events = np.array([time for time, _ in truths]), np.array([event > 0 for _, event in truths])
        risks = self.headline(numbers.double()).squeeze(-1).numpy()
        figures = {"C-index": concordance(times, events, risks)}
        return judgement(self._loss_of(numbers.double(), self.tensor(truths).double()), figures, len(truths), patients)

    def _loss_of(self, survival: Tensor, truth: Tensor) -> float:
        """Return the mean negative log-likelihood of survival (n, J) at the ends."""
        before = torch.cat([torch.ones_like(survival[:, :1]), survival[:, :-1]], dim=-1)
        hazards = (1 - survival / before.clamp_min(1e-12)).clamp(1e-12, 1 - 1e-12)
        return float(stopping_loss(hazards.logit(), truth[:, 0], truth[:, 1]).mean())

    def _steps(self, time: float, event: bool) -> list[list[float]]:
        begins = (0.0, *self.ends[:-1])
        came = [event and begin < time <= end for begin, end in zip(begins, self.ends, strict=True)]
        survived = [
            time >= (end if event else (begin + end) / 2) and not here
            for begin, end, here in zip(begins, self.ends, came, strict=True)
        ]
        seen = [float(here or over) for here, over in zip(came, survived, strict=True)]
        return [seen, [float(here) for here in came]]

    @property
    def _widths(self) -> list[float]:
        return [end - begin for begin, end in pairwise((0.0, *self.ends))]


def _short(time: float) -> float:
    """Return a time with at most six digits, so that its column has a short name; never earlier than it was."""
    short = float(f"{time:.6g}")
    step = 10.0 ** (math.floor(math.log10(time)) - 5)
    return short if short >= time else float(f"{short + step:.6g}")
