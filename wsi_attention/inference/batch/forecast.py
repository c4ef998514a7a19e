"""What a batch would do, and what it would cost, without doing it: a few slides are tried in a folder of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from wsi_attention.checkpoint import Classifier
from wsi_attention.devices import device_of
from wsi_attention.errors import ResultsError
from wsi_attention.export.chosen import name_of
from wsi_attention.files import size_of
from wsi_attention.inference.batch.classify import Order, finished_and_missing, run_batch, run_key, to_do
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.inference.batch.listener import Listener, News, Silent
from wsi_attention.inference.batch.patients import check_features
from wsi_attention.inference.batch.runners import Runner
from wsi_attention.inference.batch.wishes import Wishes
from wsi_attention.inference.engine import used_on
from wsi_attention.inference.results.folder import look_into
from wsi_attention.inference.results.mirror import scheme_of
from wsi_attention.plain_text import counted
from wsi_attention.slide.urls import is_url

TRIED = 3
"""Slides that are tried: two processes load their libraries for the first two, the third shows what a slide costs."""


@dataclass(frozen=True)
class Cost:
    """What one slide costs.

    Attributes:
        of: the slides that it was measured on, in words.
        seconds: median of their times.
        tiles: median of the tiles that were read.
        written: bytes of their results, together with the page; None where that was not measured.
    """

    of: str
    seconds: float
    tiles: float
    written: int | None = None


@dataclass(frozen=True)
class Forecast:
    """What a batch would do.

    Attributes:
        results: where results would go.
        model: its name.
        device: where it would compute.
        precision: what it would compute in.
        what: names of the exporters.
        slides: how many were found.
        missing: names of those that would be done.
        again: why finished slides would be done again -> how many.
        others: how many other files would be skipped.
        workers: slides side by side.
        cost: of a slide; None where nothing would be done, or the slide that was tried has no result.
        why_unknown: why there is no cost although something would be done.
    """

    results: Path
    model: str
    device: str
    precision: str
    what: tuple[str, ...]
    slides: int
    missing: tuple[str, ...]
    again: Counter[str]
    others: int
    workers: int
    cost: Cost | None = None
    why_unknown: str = ""

    def lines(self) -> list[str]:
        """Return the forecast for people, and at the end that nothing was written."""
        waiting, kept = len(self.missing), self.slides - len(self.missing)
        place = f"on {self.device}, precision {self.precision}"
        found = [f"would classify {waiting} of {self.slides} slides with model {self.model} {place}"]
        found += [f"{kept} have a result in {self.results} that stands"] if kept else []
        found += [f"{count} would be done again: {why}" for why, count in self.again.most_common()]
        found += [f"{counted(self.others, 'other file')} would be skipped"] if self.others else []
        found.append(f"would write to {self.results}: predictions.csv, {', '.join(self.what)}")
        found += self._cost_lines(waiting)
        return [*found, "nothing was written; the same command without --dry-run does it"]

    def _cost_lines(self, waiting: int) -> list[str]:
        if self.cost is None:
            return [f"the cost is not known: {self.why_unknown}"] if self.why_unknown else []
        side_by_side = max(1, min(self.workers, waiting))
        minutes = waiting * self.cost.seconds / side_by_side / 60
        tiles = round(waiting * self.cost.tiles, -int(waiting > 99))
        disk = "" if self.cost.written is None else f", {waiting * self.cost.written / 1e6:.0f} MB of results"
        time = f"{minutes:.0f} minutes" if minutes >= 2 else f"{60 * minutes:.0f} seconds"
        return [
            f"a slide: {self.cost.seconds:.1f} s, {self.cost.tiles:.0f} tiles, measured on {self.cost.of}",
            f"all: about {time} with {side_by_side} side by side, {tiles:.0f} tiles{disk}; slides differ",
        ]


def foresee(
    order: Order,
    results: str | Path,
    classifier: Classifier,
    wishes: Wishes,
    runner: Runner,
    listener: Listener | None = None,
) -> Forecast:
    """Return what `run_batch` would do with the same arguments; nothing is written to the results.

    The cost is that of the slides that the results folder has already; where it has none, `TRIED` slides are classified
    into a temporary folder, those in the middle by size of their files. The last of them counts, as libraries are
    loaded by then.

    Args:
        order: the slides.
        results: the results folder, which need not exist.
        classifier: the model.
        wishes: what is wanted of each slide.
        runner: does the slides that are tried.
        listener: told of the stages.

    Raises:
        WsiAttentionError: `run_batch` would refuse the arguments; or results would go to a URL, which is not looked at.
    """
    if scheme_of(results):
        raise ResultsError(f"{results}: a dry run looks into a results folder of this machine; give one with -o")
    listener, place = listener or Silent(), Path(results)
    wishes = replace(wishes, feature_store=None).checked(classifier)
    check_features(classifier, wishes)
    listener.stage("looking for slides")
    found, wishes, _ = to_do(order, wishes, classifier, place)
    device = device_of("auto" if "," in wishes.device else wishes.device)
    precision, _ = used_on(classifier, device, wishes.precision)
    listener.stage(f"comparing {len(found.slides)} slides with the results that are there")
    run = run_key(classifier, precision, wishes.effort, wishes.snap)
    folder = look_into(place, run, order.existing)
    waiting, again = finished_and_missing(folder, found.slides, classifier, wishes, run)
    seen = [state for state in folder.states.values() if state.status in ("done", "partial")]
    cost, why = None, ""
    if waiting and seen:
        tiles = median(float(state.row.get("tiles_read") or 0) for state in seen)
        cost = Cost(f"the {len(seen)} that are there", median(state.seconds for state in seen), tiles)
    elif waiting:
        cost, why = _tried(order, classifier, wishes, runner, in_the_middle([*waiting.values()]), listener)
    names = tuple(map(name_of, wishes.what))
    sizes = len(found.slides), tuple(waiting), again, len(found.others), order.workers
    return Forecast(place, classifier.name, str(device), precision, names, *sizes, cost, why)


def in_the_middle(slides: Sequence[SlideFile]) -> list[SlideFile]:
    """Return the slides whose files are in the middle by size, at most `TRIED`, the very middle one last.

    They have the same mpp and series. Of slides behind URLs alone, those in the middle of the list.
    """
    here = [slide for slide in slides if not is_url(slide.path)] or slides
    ordered = sorted(here, key=lambda slide: 0 if is_url(slide.path) else size_of(Path(slide.path)))
    middle = ordered[len(ordered) // 2]
    alike = [slide for slide in ordered if (slide.mpp, slide.series) == (middle.mpp, middle.series)]
    at = alike.index(middle)
    nearest = sorted(alike, key=lambda slide: abs(alike.index(slide) - at))
    return nearest[:TRIED][::-1]


class _Trial:
    """A listener that keeps the outcome of the last slide, one with a result if there is one."""

    def __init__(self) -> None:
        self.news: News | None = None
        self.done = False

    def stage(self, text: str) -> None:
        """Do nothing."""

    def slide(self, news: News) -> None:
        """Keep it."""
        done = news.state.status in ("done", "partial")
        if done or not self.done:
            self.news, self.done = news, done


def _tried(
    order: Order,
    classifier: Classifier,
    wishes: Wishes,
    runner: Runner,
    slides: Sequence[SlideFile],
    listener: Listener,
) -> tuple[Cost | None, str]:
    """Return what a slide costs; or why that cannot be said."""
    listener.stage(f"trying {', '.join(slide.relative for slide in slides)}")
    paths, like = tuple(slide.path for slide in slides), slides[-1]
    alone = replace(order, inputs=paths, slides_csv=None, mpp=like.mpp, series=like.series, workers=1)
    trial = _Trial()
    with TemporaryDirectory(prefix="wsi-attention-dry-run-", ignore_cleanup_errors=True) as folder:
        run_batch(alone, folder, classifier, wishes, runner, trial)
        written = size_of(Path(folder)) // len(slides)
    news = trial.news
    if news is None or not trial.done:
        reason = f"{news.state.path}: {news.state.reason}" if news else "it was interrupted"
        return None, f"what was tried has no result: {reason}"
    tiles = float(news.state.row.get("tiles_read") or 0)
    return Cost(f"{Path(news.state.path).name}, in the middle by size", news.state.seconds, tiles, written), ""
