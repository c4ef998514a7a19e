"""All commands under one name."""

from __future__ import annotations

import typer

from wsi_attention.cli import (
    classify,
    classify_images,
    crossvalidate,
    doctor,
    encoders,
    encoders_fetch,
    evaluate,
    export,
    info,
    methods,
    models,
    quantise,
    report,
    study,
    train,
    view,
)

app = typer.Typer(
    name="wsi-attention",
    help=(
        "A slide label, with the regions it rests on, from the few tiles that attention asks for. "
        "Research use only.\n\n"
        "Add --debug to any command to see a traceback instead of one line."
    ),
    epilog="Start here: wsi-attention classify -i slides/ -o results/ -m model/",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for command in (
    classify.classify,
    classify_images.classify_images,
    train.train,
    crossvalidate.crossvalidate,
    evaluate.evaluate,
    info.info,
    export.export,
    export.validate,
    report.report,
    view.view,
    models.models,
    methods.methods,
    quantise.quantise,
    doctor.doctor,
):
    app.command(no_args_is_help=command not in (models.models, methods.methods, doctor.doctor))(command)

encoders.app.command(no_args_is_help=True)(encoders_fetch.fetch)
encoders.app.command(no_args_is_help=True)(encoders_fetch.convert)
app.add_typer(encoders.app, name="encoders")
app.add_typer(study.app, name="study")


@app.callback(invoke_without_command=True)
def _top(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from wsi_attention import __version__

        typer.echo(__version__)
        raise typer.Exit
