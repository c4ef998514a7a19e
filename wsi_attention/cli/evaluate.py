"""`wsi-attention evaluate`: predictions against known labels and outlined lesions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_attention.cli.say import say, warn

if TYPE_CHECKING:
    from wsi_attention.evaluation.evaluation import Evaluation


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
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for the page. [default: evaluation/ in the results folder]"),
    ] = None,
    threshold: Annotated[
        list[str] | None, typer.Option(help="Call a class at this probability: 0.4, or CLASS=0.4 (repeat).")
    ] = None,
    sensitivity: Annotated[
        list[str] | None,
        typer.Option(help="Wanted, as 0.95 or CLASS=0.95; the threshold is chosen on rows with split = val."),
    ] = None,
    by: Annotated[list[str] | None, typer.Option(help="Column of the labels: figures for each value (repeat).")] = None,
    against: Annotated[
        Path | None, typer.Option(help="Predictions of another model for the same slides: which AUROC is higher.")
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
) -> None:
    """Show AUROC, accuracy and each class's share with 95 % intervals; with -g, how often the top tile hits a lesion.

    evaluation.html shows the curves, calibration, operating points, groups; evaluation.csv holds every figure. The page
    is for one label a slide: of another target the figures are shown alone.

    Example: wsi-attention evaluate -p results/predictions.csv -l labels.csv -g groundtruth/
    """
    import json

    from wsi_attention.cli.evaluation_lines import lines, target_lines
    from wsi_attention.evaluation import evaluation, targets
    from wsi_attention.evaluation.operating import read_wanted
    from wsi_attention.files import write_text
    from wsi_attention.inference.results.mirror import check_folder

    for given in (predictions, results, against, output):
        check_folder(given or ".")
    target = targets.target_in(predictions, results, model)
    if target is not None:
        of_classes = {"-g": groundtruth, "-o": output, "--threshold": threshold, "--sensitivity": sensitivity}
        targets.check_asked(target, of_classes | {"--by": by, "--against": against})
        beyond = targets.evaluate_target(predictions, labels, target, results, split=split, model=model)
        say(*target_lines(beyond))
        if as_json:
            write_text(as_json, json.dumps(beyond.as_dict(), indent=2) + "\n")
        return
    found = evaluation.evaluate(
        predictions,
        labels,
        groundtruth,
        results,
        split=split,
        model=model,
        thresholds=read_wanted(threshold or (), "--threshold"),
        sensitivity=read_wanted(sensitivity or (), "--sensitivity"),
        by=by or (),
        against=against,
    )
    say(*lines(found))
    if as_json:
        write_text(as_json, json.dumps(found.as_dict(), indent=2) + "\n")
    _write(found, output)


def _write(found: Evaluation, output: Path | None) -> None:
    """Write the page; where no folder is given, into that of the results, and nowhere beside a table of its own."""
    from wsi_attention.errors import ResultsError
    from wsi_attention.evaluation.folder import FOLDER
    from wsi_attention.inference.results.page import link_further
    from wsi_attention.inference.results.state import FOLDER as STATES

    if output is None and not (found.source.parent / STATES).is_dir():
        say("", "page       none: the table lies in no results folder; -o takes a folder for the page")
        return
    try:
        say("", f"page       {found.write(output or found.source.parent / FOLDER)}")
        if output is None:
            link_further(found.source.parent)
    except ResultsError as error:
        if output is not None:
            raise
        warn(f"no page: {error}; -o takes a folder for it")
