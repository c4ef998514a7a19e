"""`wsi-attention export` and `wsi-attention validate`: exports made again, and GeoJSON checked as QuPath reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from wsi_attention.cli.say import say, warn
from wsi_attention.defaults import EXPORTS, PICTURES

PROJECT = "qupath-project"
"""The export that is about all slides: a project of QuPath."""


def export(
    results: Annotated[Path, typer.Argument(help="The results folder that classify wrote.")],
    what: Annotated[
        str, typer.Option(help=f"{', '.join((*EXPORTS, *PICTURES, PROJECT))}, or all; commas between.")
    ] = "geojson",
    slide: Annotated[list[str] | None, typer.Option(help="Only this slide, as predictions.csv names it.")] = None,
    qupath_bounds: Annotated[
        str, typer.Option(help="auto: coordinates as QuPath crops the slide; none: level-0 pixels.")
    ] = "auto",
    gzip: Annotated[bool, typer.Option("--gzip", help="Compress GeoJSON; QuPath reads .geojson.gz too.")] = False,
) -> None:
    """Make exports again from what a results folder remembers; neither model nor slides are needed.

    Example: wsi-attention export results/ --what geojson --qupath-bounds none
    """
    from wsi_attention.errors import InputError
    from wsi_attention.export.geojson import GeoJSONExporter, bounds_of
    from wsi_attention.inference.results.export_again import export_again
    from wsi_attention.inference.results.mirror import check_folder
    from wsi_attention.registry import EXPORTERS, names

    check_folder(results)
    chosen = kinds(what)
    if unknown := [one for one in chosen if one not in (*names(EXPORTERS), PROJECT)]:
        raise InputError(f"no exporter named {unknown[0]!r}; there are {', '.join((*names(EXPORTERS), PROJECT))}")
    if gzip and chosen != ["geojson"]:
        raise InputError(f"--gzip compresses GeoJSON, found --what {what}; give --what geojson, or leave --gzip out")
    geojson = GeoJSONExporter(bounds_of(qupath_bounds), gzip=gzip)
    written = 0
    for kind in (one for one in chosen if one != PROJECT):
        for path in export_again(results, geojson if kind == "geojson" else kind, slide or (), warn):
            say(path)
            written += 1
    if PROJECT in chosen:
        written += _project(results, slide or ())
    if not written:
        say("wsi-attention: nothing to export: no slide has a prediction", err=True)


def kinds(what: str) -> list[str]:
    """Return the names in a list, each once; `all` stands for every export of single slides."""
    found = [
        one
        for name in map(str.strip, what.split(","))
        if name
        for one in ((*EXPORTS, *PICTURES) if name == "all" else (name,))
    ]
    return list(dict.fromkeys(found))


def _project(results: Path, names: Sequence[str]) -> int:
    """Write a project of QuPath; return how many images it has of these results."""
    from wsi_attention.inference.results.export_again import with_geojson
    from wsi_attention.inference.results.qupath_project import SCRIPT, write_project

    with_geojson(results, names, warn)
    written = write_project(results, names)
    for name, reason in sorted(written.left_out.items()):
        warn(f"{name}: left out of the project: {reason}")
    say(written.path, f"next: QuPath script -p {written.path} --save {written.path.parent / SCRIPT}")
    return written.images


def validate(
    files: Annotated[list[Path], typer.Argument(help="GeoJSON files, also compressed (.gz).")],
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT of the image in QuPath: finds objects outside it.")
    ] = None,
) -> None:
    """Check GeoJSON as QuPath reads it: one bad object makes QuPath drop the whole file.

    Exit status: 0 QuPath reads everything as it is meant, 1 problems were found, 2 the call was wrong.

    Example: wsi-attention validate results/geojson/*.geojson
    """
    from wsi_attention.errors import InputError
    from wsi_attention.export.qupath import inspect
    from wsi_attention.inference.batch.globs import expanded

    files = list(map(Path, expanded(files)))
    for path in files:
        if not path.is_file():
            raise InputError(f"{path}: no such file; give GeoJSON files, such as results/geojson/*.geojson")
    extent = _size(size)
    bad = False
    for path in files:
        report = inspect(path, extent)
        say(*(f"{path}: {problem}" for problem in report.problems))
        say(*(f"{path}: note: {remark}" for remark in report.remarks))
        say(f"{path}: {report.features} objects, {len(report.problems) or 'no'} problems")
        bad = bad or bool(report.problems)
    raise typer.Exit(int(bad))


def _size(text: str | None) -> tuple[int, int] | None:
    from wsi_attention.errors import InputError

    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise InputError(f"--size {text}: expected WIDTHxHEIGHT in pixels, e.g. --size 98304x65536")
    return int(width), int(height)
