"""`wsi-attention evaluate`: predictions against known labels and outlined lesions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_attention.cli.say import say
from wsi_attention.plain_text import visible

if TYPE_CHECKING:
    from wsi_attention.evaluation.evaluation import Evaluation, Localisation


def evaluate(
    predictions: Annotated[Path, typer.Option("-p", "--predictions", help="predictions.csv, or its results folder.")],
    labels: Annotated[Path, typer.Option("-l", "--labels", help="CSV slide,label[,patient][,split].")],
    groundtruth: Annotated[
        Path | None, typer.Option("-g", "--groundtruth", help="Folder of <slide>.geojson with lesions, level-0 pixels.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option("-r", "--results", help="Results folder with tiles/. [default: the table's]")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val, test or all rows of the labels. [default: all but train]")
    ] = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="The model, where the results folder does not lead to it.")
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
) -> None:
    """Show AUROC, accuracy and each class's share with 95 % intervals; with -g, how often the top tile hits a lesion.

    Example: wsi-attention evaluate -p results/predictions.csv -l labels.csv -g groundtruth/
    """
    import json

    from wsi_attention.evaluation import evaluation
    from wsi_attention.files import write_text
    from wsi_attention.inference.results.mirror import check_folder

    check_folder(predictions)
    check_folder(results or ".")
    found = evaluation.evaluate(predictions, labels, groundtruth, results, split=split, model=model)
    say(*_page(found))
    if as_json:
        write_text(as_json, json.dumps(found.as_dict(), indent=2) + "\n")


def _page(found: Evaluation) -> list[str]:
    from wsi_attention.statistics.intervals import METHODS

    scores = found.scores
    whose = (
        f"of {scores.patients} patients" if found.patients_given else "(no patients given: each slide counts as one)"
    )
    lines = [
        *([f"{found.warning.capitalize()}."] if found.warning else []),
        f"slides     {scores.n} {whose} (labelled without prediction: {len(found.unpredicted)}, "
        f"predicted without label: {len(found.unlabelled)})",
        *([found.split] if found.split else []),
        *found.overlap.lines,
        "",
        _auroc(found),
        f"accuracy   {scores.accuracy:.3f}  {_interval(scores.accuracy_interval)}, "
        f"{sum(one.right for one in scores.recalls)} of {scores.n} slides",
        *_recalls(found),
        f"F1         {scores.f1:.3f}  {_interval(scores.f1_interval)}, mean over the classes, {scores.n} slides",
        METHODS,
        "",
        *_confusion(found),
    ]
    if found.localisation:
        lines += ["", *_localisation(found.localisation)]
    return lines


def _auroc(found: Evaluation) -> str:
    scores, counts = found.scores, [one.slides for one in found.scores.recalls]
    if scores.auroc != scores.auroc:
        return "AUROC      none: all slides are of one class"
    if found.positive is None:
        each = ", ".join(f"{count} {name}" for name, count in zip(found.classes, counts, strict=True))
        return f"AUROC      {scores.auroc:.3f}  {_interval(scores.auroc_interval)}, each class against the rest: {each}"
    at = found.classes.index(found.positive)
    against = f"{counts[at]} {found.positive} against {counts[1 - at]} {found.classes[1 - at]}"
    return f"AUROC      {scores.auroc:.3f}  {_interval(scores.auroc_interval)}, {against}"


def _recalls(found: Evaluation) -> list[str]:
    """Return a line for each class that occurs: how many of its slides are called right."""
    words = {found.positive: " (sensitivity)", found.negative: " (specificity)"} if found.positive else {}
    whose = [f" of {one.patients} patients" if found.patients_given else "" for one in found.scores.recalls]
    return [
        f"  {name}{words.get(name, '')}: {one.right} of {one.slides} slides{own} right  {_interval(one.interval)}"
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
