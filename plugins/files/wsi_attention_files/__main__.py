"""`python -m wsi_attention_files`: results to a dialect, a dialect to masks, and what a file says."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from wsi_attention import WsiAttentionError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Files of TRIDENT, CLAM, WSInfer and STAMP.")
Mpp = Annotated[float | None, typer.Option(help="µm per level-0 pixel, where neither file nor slide says it.")]


@app.command()
def write(
    dialect: Annotated[str, typer.Argument(help="trident, clam, wsinfer or stamp.")],
    results: Annotated[Path, typer.Argument(help="The results folder that classify wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to; the dialect's layout is made there.")],
    features: Annotated[
        str | None, typer.Option(help="Model whose tile encoder computes features, of length 1.")
    ] = None,
    slide: Annotated[list[str] | None, typer.Option(help="Only this slide, as predictions.csv names it.")] = None,
) -> None:
    """Writes the tiles that classify read as files of another pipeline, so that its MIL can use them."""
    from wsi_attention import load_model
    from wsi_attention_files.convert import write_results

    classifier = load_model(features) if features else None
    _tell(write_results(results, output, dialect, slide or (), classifier))


@app.command()
def read(
    files: Annotated[list[Path], typer.Argument(help="HDF5 files, or folders of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where masks/, tiles/ and slides.csv go.")],
    slides: Annotated[Path | None, typer.Option(help="Folder with the slides; found by name.")] = None,
    mpp: Mpp = None,
) -> None:
    """Makes masks of another pipeline's coordinates: `classify --slides-csv OUTPUT/slides.csv` looks only there."""
    from wsi_attention_files.convert import read_folder

    _tell(read_folder(files, output, slides, mpp))


@app.command()
def inspect(file: Annotated[Path, typer.Argument(help="An HDF5 file.")], mpp: Mpp = None) -> None:
    """Says what a file holds."""
    from wsi_attention.bags import read_bag

    bag = read_bag(file, mpp=mpp)
    size = f"slide of {bag.extent[0]}×{bag.extent[1]}" if bag.extent else "size of the slide unknown"
    shape = "no features" if bag.features is None else f"features {bag.features.shape[1]} {bag.features.dtype}"
    typer.echo(f"{bag.dialect}: {len(bag)} tiles of {bag.side} level-0 pixels, {size}, {shape} {bag.encoder}".rstrip())


@app.command()
def recipe(config: Annotated[Path, typer.Argument(help="config.json of a WSInfer or WSInfer-MIL model.")]) -> None:
    """Prints a training recipe that looks at the same tiles as a model of WSInfer."""
    from wsi_attention_files.model_config import read_model_config
    from wsi_attention_files.model_config import recipe as recipe_of

    typer.echo(recipe_of(read_model_config(config)), nl=False)


def _tell(results: Iterable[object]) -> None:
    from wsi_attention_files.convert import Refused

    failed = False
    for one in results:
        if isinstance(one, Refused):
            failed = True
            typer.echo(f"wsi-attention-files: {one.reason}", err=True)
        else:
            typer.echo(one)
    if failed:
        raise typer.Exit(1)


def main() -> None:
    """Runs the command; an error is one line and exit status 2."""
    try:
        app()
    except WsiAttentionError as error:
        typer.echo(f"wsi-attention-files: {error}", err=True)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
