"""`wsi-attention evaluate`: predictions against known labels and outlined lesions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from wsi_attention.training.evaluation import Evaluation


def evaluate(
    predictions: Annotated[Path, typer.Option("-p", "--predictions", help="predictions.csv, or its results folder.")],
    labels: Annotated[Path, typer.Option("-l", "--labels", help="CSV slide,label.")],
    groundtruth: Annotated[
        Path | None, typer.Option("-g", "--groundtruth", help="Folder of <slide>.geojson with lesions, level-0 pixels.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option("-r", "--results", help="Results folder with tiles/. [default: the table's]")
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
) -> None:
    """Shows AUROC with a 95 % interval, accuracy and confusion; with -g, how often the top tile hits a lesion.

    Example: wsi-attention evaluate -p results/predictions.csv -l labels.csv -g groundtruth/
    """
    import json

    from wsi_attention.inference.mirror import check_folder
    from wsi_attention.inference.writing import write_text
    from wsi_attention.training import evaluation

    check_folder(predictions)
    check_folder(results or ".")
    found = evaluation.evaluate(predictions, labels, groundtruth, results)
    typer.echo(_page(found))
    if as_json:
        write_text(as_json, json.dumps(found.as_dict(), indent=2) + "\n")


def _page(found: Evaluation) -> str:
    scores, (low, high) = found.scores, found.interval
    lines = [
        f"slides     {scores.n} (labelled without prediction: {len(found.unpredicted)}, "
        f"predicted without label: {len(found.unlabelled)})",
        f"AUROC      {scores.auroc:.4f}  (95 % {low:.4f} to {high:.4f})",
        f"accuracy   {scores.accuracy:.4f}",
        f"F1         {scores.f1:.4f}",
        "",
        _confusion(found),
    ]
    if found.localisation:
        at = found.localisation
        hits = (
            f"{at.hits} of {at.positives} ({at.share:.1%})" if at.positives else "no slide with both lesions and tiles"
        )
        lines += ["", f"highest-weighted tile touches a lesion: {hits}"]
        lines += [f"  missed: {', '.join(at.missed[:10])}"] if at.missed else []
    return "\n".join(lines)


def _confusion(found: Evaluation) -> str:
    width = max(7, *(len(name) + 2 for name in found.classes))
    header = "truth \\ predicted".ljust(20) + "".join(name.rjust(width) for name in found.classes)
    rows = zip(found.classes, found.scores.confusion, strict=True)
    return "\n".join([header, *(name.ljust(20) + "".join(f"{cell:>{width}}" for cell in row) for name, row in rows)])
