"""`wsi-attention classify`: a folder of slides in, a results folder out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def classify(
    inputs: Annotated[
        list[str] | None, typer.Option("-i", "--input", help="Slides, folders of slides, URLs, or slides CSVs.")
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(help="More inputs: -i slides/*.svs works.")] = None,
    results: Annotated[Path, typer.Option("-o", "--output", help="The results folder.")] = Path("results"),
    model: Annotated[
        str, typer.Option("-m", "--model", help="A model folder or a shipped name such as demo.")
    ] = "demo",
    workers: Annotated[int, typer.Option("-n", "--workers", help="Slides computed side by side.")] = 1,
    batch: Annotated[int, typer.Option("-b", "--batch", help="Tiles read by one task.")] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda:1 …; auto is the first GPU, else the CPU.")] = "auto",
    precision: Annotated[str, typer.Option(help="32, bf16, or auto: bf16 on a GPU that has it.")] = "auto",
    mpp: Annotated[float | None, typer.Option(help="µm per level-0 pixel, if the files are wrong or silent.")] = None,
    slides_csv: Annotated[Path | None, typer.Option(help="CSV slide[,mpp][,mask]: which slides of -i.")] = None,
    limit: Annotated[float, typer.Option(help="Seconds a slide may take before it counts as failed.")] = 1800.0,
    exact: Annotated[
        bool, typer.Option("--exact", help="Read every tile instead of a sample: minutes a slide.")
    ] = False,
    tolerance: Annotated[
        float | None, typer.Option(help="Read until the standard error of the probability is at most this, e.g. 0.02.")
    ] = None,
    budget: Annotated[int | None, typer.Option(help="The most tiles a slide for --tolerance.")] = None,
    what: Annotated[
        str | None, typer.Option(help="geojson, tiles, heatmap, heatmap-zarr; commas between. [default: all]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove earlier results first.")] = False,
) -> None:
    """Labels slides, and shows the regions each label rests on. A second run does only what is missing.

    Exit status: 0 all slides done, 1 some failed or have no tissue (the table says which), 2 the call was wrong,
    130 interrupted.

    Example: wsi-attention classify -i slides/ -o results/ -m demo
    """
    from wsi_attention.cli.progress import watching
    from wsi_attention.inference import batch as batches
    from wsi_attention.inference.report import complaints, summary
    from wsi_attention.models.checkpoint import load_model

    with watching() as watch:
        report = batches.classify(
            [*(inputs or ()), *(more or ())],
            results,
            load_model(model),
            slides_csv=slides_csv,
            mpp=mpp,
            workers=workers,
            batch=batch,
            device=device,
            precision=precision,  # type: ignore[arg-type]  # checked there, with an error that lists what there is
            limit=limit,
            exact=exact,
            tolerance=tolerance,
            budget=budget,
            what=batches.EXPORTS if what is None else [name.strip() for name in what.split(",") if name.strip()],
            existing="overwrite" if overwrite else "resume",
            watch=watch,
        )
    for line in complaints(report):
        typer.echo(f"wsi-attention: {line}", err=True)
    typer.echo(summary(report))
    if report.threads_left:  # a slide that hangs in a library must not keep the command from ending
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(report.exit_status)
    raise typer.Exit(report.exit_status)
