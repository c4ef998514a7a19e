"""What `wsi-attention evaluate` shows on the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from wsi_attention.evaluation.operating import MOST_PROBABLE
from wsi_attention.plain_text import first_names, visible

if TYPE_CHECKING:
    from wsi_attention.evaluation.evaluation import Evaluation
    from wsi_attention.evaluation.localisation import Localisation
    from wsi_attention.evaluation.targets import TargetEvaluation
    from wsi_attention.statistics.thresholds import Share


def lines(found: Evaluation) -> list[str]:
    """Return what the terminal shows of an evaluation, line by line."""
    from wsi_attention.statistics.intervals import METHODS

    scores = found.scores
    alone = "" if found.unit == "patients" else "(no patients given: each slide counts as one) "
    whose = f"of {scores.patients} patients " if found.of_patients else alone
    shown = [
        *([f"{found.warning.capitalize()}."] if found.warning else []),
        f"{found.unit:<11}{scores.n} {whose}(labelled without prediction: {len(found.unpredicted)}, "
        f"predicted without label: {len(found.unlabelled)})",
        *_left_out(found),
        *([found.split] if found.split else []),
        *found.overlap.lines,
        "",
        _auroc(found),
        f"accuracy   {scores.accuracy:.3f}  {_interval(scores.accuracy_interval)}, "
        f"{sum(one.right for one in scores.recalls)} of {scores.n} {found.unit}",
        *_recalls(found),
        f"F1         {scores.f1:.3f}  {_interval(scores.f1_interval)}, mean over the classes, {scores.n} {found.unit}",
        METHODS,
        "",
        *_confusion(found),
    ]
    if found.localisation:
        shown += ["", *_localisation(found.localisation)]
    return [*shown, *_points(found), *_groups(found), *_against(found)]


def _left_out(found: Evaluation | TargetEvaluation) -> list[str]:
    """Name what only the labels or only the predictions have: such as failed slides, or other names."""
    sides = (("without prediction", found.unpredicted), ("without label", found.unlabelled))
    return [f"  {what}: {first_names(names)}" for what, names in sides if names]


def _auroc(found: Evaluation) -> str:
    scores, counts = found.scores, [one.slides for one in found.scores.recalls]
    if scores.auroc != scores.auroc:
        return f"AUROC      none: all {found.unit} are of one class"
    if found.positive is None:
        each = ", ".join(f"{count} {name}" for name, count in zip(found.classes, counts, strict=True))
        return f"AUROC      {scores.auroc:.3f}  {_interval(scores.auroc_interval)}, each class against the rest: {each}"
    at = found.classes.index(found.positive)
    against = f"{counts[at]} {found.positive} against {counts[1 - at]} {found.classes[1 - at]}"
    return f"AUROC      {scores.auroc:.3f}  {_interval(scores.auroc_interval)}, {against}"


def _recalls(found: Evaluation) -> list[str]:
    """Return a line for each class that occurs: how many of its slides are called right."""
    words = {found.positive: " (sensitivity)", found.negative: " (specificity)"} if found.positive else {}
    whose = [f" of {one.patients} patients" if found.of_patients else "" for one in found.scores.recalls]
    return [
        f"  {name}{words.get(name, '')}: {one.right} of {one.slides} {found.unit}{own} right  {_interval(one.interval)}"
        for name, one, own in zip(found.classes, found.scores.recalls, whose, strict=True)
        if one.slides
    ]


def _localisation(at: Localisation) -> list[str]:
    hits = f"{at.hits} of {at.positives} ({at.share:.1%})" if at.positives else "no slide with both lesions and tiles"
    lines = [
        f"highest-weighted tile touches a lesion: {hits}  {_interval(at.interval) if at.positives else ''}".rstrip()
    ]
    return lines + ([f"  missed: {', '.join(at.missed[:10])}"] if at.missed else [])


def _interval(interval: tuple[float, float]) -> str:
    return f"(95 % {interval[0]:.3f} to {interval[1]:.3f})"


def _confusion(found: Evaluation) -> list[str]:
    names = [visible(name) for name in found.classes]
    width = max(7, *(len(name) + 2 for name in names))
    header = "truth \\ predicted".ljust(20) + "".join(name.rjust(width) for name in names)
    rows = zip(names, found.scores.confusion, strict=True)
    return [header, *(name.ljust(20) + "".join(f"{cell:>{width}}" for cell in row) for name, row in rows)]


def _points(found: Evaluation) -> list[str]:
    """Return the operating points that were asked for."""
    asked = [point for point in found.points if point.origin != MOST_PROBABLE]
    shown = []
    for point in asked:
        at = point.found
        shown += [
            "",
            f"{point.name} at {at.threshold:.4g} or more ({point.origin})",
            *([f"  {point.note}"] if point.note else []),
            f"  sensitivity {_share(at.sensitivity)}, specificity {_share(at.specificity)}, "
            f"{point.slides} {found.unit}",
            f"  PPV {_share(at.ppv)}, NPV {_share(at.npv)}",
        ]
    return shown


def _share(share: Share) -> str:
    if not share.slides:
        return "none: there are none"
    return f"{share.value:.3f} {_interval(share.interval)}"


def _groups(found: Evaluation) -> list[str]:
    shown = []
    for number, group in enumerate(found.groups):
        if not number or found.groups[number - 1].column != group.column:
            shown += ["", f"by {group.column}"]
        one = group.scores
        area = f"AUROC {one.auroc:.3f} {_interval(one.auroc_interval)}" if one.auroc == one.auroc else "one class alone"
        whose = f" of {one.patients} patients" if found.of_patients else ""
        accuracy = f"accuracy {one.accuracy:.3f} {_interval(one.accuracy_interval)}"
        shown.append(f"  {visible(group.value)}: {area}, {accuracy}, {one.n} {found.unit}{whose}")
    return shown


def _against(found: Evaluation) -> list[str]:
    other = found.comparison
    if other is None:
        return []
    auroc = other.auroc
    if auroc.value != auroc.value:
        return ["", f"against {visible(other.other)}: no AUROC to compare, all {found.unit} are of one class"]
    areas = f"AUROC {auroc.first:.3f} and {auroc.second:.3f}, difference {auroc.value:+.3f}"
    ends = f"{_interval(auroc.interval)}, p = {auroc.p:.3g}, {other.slides} {found.unit}"
    return ["", f"against {visible(other.other)}: {areas}  {ends}"]


def target_lines(found: TargetEvaluation) -> list[str]:
    """Return what the terminal shows of predictions of a target beyond one label, line by line."""
    judged = found.judgement
    whose = (
        f"of {judged.patients} patients" if found.patients_given else "(no patients given: each slide counts as one)"
    )
    width = max(len(one.name) for one in judged.figures) + 2
    return [
        *([f"{found.warning.capitalize()}."] if found.warning else []),
        f"slides     {judged.n} {whose} (labelled without prediction: {len(found.unpredicted)}, "
        f"predicted without label: {len(found.unlabelled)})",
        *_left_out(found),
        *([found.split] if found.split else []),
        *found.overlap.lines,
        "",
        *(f"{one.name.ljust(width)}{_figure(one.value)}  {_interval(one.interval)}" for one in judged.figures),
        "95 % intervals by a Bayesian bootstrap over patients (Rubin 1981; Hesterberg 2015)",
        f"no page: it is for one label a slide, and the model was asked for {found.target.kind}",
    ]


def _figure(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.3f}"
