"""`wsi-attention encoders`: the published encoders that are known, and all that is known of one."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, TypeVar, cast

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from wsi_attention.encoders.entry import Entry

F = TypeVar("F", bound=Callable[..., object])
SHOW = "show"
UNKNOWN = "not established"
WIDTH, MARGIN = 100, 18


def _or_show(resolve: F) -> F:
    """Return how a group finds its command, with `SHOW` before a first word that names none."""

    def resolved(group: TyperGroup, context: object, words: list[str]) -> object:
        named = words and words[0] not in group.commands and not words[0].startswith("-")
        return resolve(group, context, [SHOW, *words] if named else words)

    return cast(F, resolved)


class Encoders(TyperGroup):
    """A group of commands in which any other word is the name of an encoder to show."""

    resolve_command = _or_show(TyperGroup.resolve_command)


app = typer.Typer(
    cls=Encoders, rich_markup_mode=None, subcommand_metavar="[NAME | COMMAND ...]", invoke_without_command=True
)
"""Further commands join it with `app.command()`."""


@app.callback()
def encoders(context: typer.Context) -> None:
    """List the published encoders that are known by name, or show all that is known of one.

    Example: wsi-attention encoders uni2-h
    """
    if context.invoked_subcommand is not None:
        return
    from wsi_attention.encoders.table import entries

    rows: list[tuple[str, ...]] = [("name", "features", "input", "µm/px", "licence", "commercial", "gated")]
    rows += [_row(entry) for entry in entries().values()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    typer.echo(f"\n?: {UNKNOWN}. wsi-attention encoders NAME shows all that is known of one.")


@app.command(SHOW, hidden=True)
def show(name: Annotated[str, typer.Argument(help="An encoder, e.g. uni2-h.")]) -> None:
    """Show all that is known of an encoder."""
    from wsi_attention.encoders.table import entry_of

    entry = entry_of(name)
    typer.echo(f"{entry.name}: {entry.title or UNKNOWN}\n")
    for key, value in _facts(entry):
        lines = textwrap.wrap(value or UNKNOWN, WIDTH - MARGIN, break_on_hyphens=False, break_long_words=False)
        typer.echo(f"{key:<{MARGIN}}" + f"\n{'':<{MARGIN}}".join(lines))
    if entry.tile_size and entry.mean:
        typer.echo(f'\nIn a recipe, under [model]: encoder = "{entry.name}"; or train --encoder {entry.name}')


def _row(entry: Entry) -> tuple[str, ...]:
    scales = " ".join(f"{mpp:g}" for mpp in entry.mpps)
    cells = (entry.name, str(entry.dim or ""), str(entry.input or ""), scales, entry.licence)
    return tuple(cell or "?" for cell in (*cells, _yes(entry.commercial), _yes(entry.gated)))


def _facts(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield what it is called and what it is, as people read it; empty where not established."""
    yield "repository", entry.repository + (f", revision {entry.revision}" if entry.revision else "")
    yield "weights", entry.weights
    yield "licence", entry.licence
    yield "commercial use", _yes(entry.commercial)
    yield "may be given on", _yes(entry.redistributable)
    yield "gated", _yes(entry.gated)
    yield "parameters", f"{entry.parameters:g} million" if entry.parameters else ""
    yield "built by", _builder(entry)
    yield "arguments", ", ".join(f"{key} = {value!r}" for key, value in entry.arguments.items()) or "none"
    yield "tiles", _pixels(entry.tile_sizes)
    yield "scale", " or ".join(f"{mpp:g}" for mpp in entry.mpps) + " µm/px" if entry.mpps else ""
    yield "resize", _resize(entry)
    yield "mean", ", ".join(f"{value:g}" for value in entry.mean)
    yield "std", ", ".join(f"{value:g}" for value in entry.std)
    yield "patch", _pixels((entry.patch,) if entry.patch else ())
    yield "tokens before", "" if entry.prefix_tokens is None else str(entry.prefix_tokens)
    yield "feature", _feature(entry)
    yield "precision", {"32": "float32", "16": "float16", "bf16": "bfloat16"}.get(entry.precision, "")
    if entry.note:
        yield "note", entry.note


def _builder(entry: Entry) -> str:
    code = "code in its repository, by way of " if entry.remote_code else ""
    config = ", completed by config.json of its repository" if entry.config else ""
    extra = f" (pip install {entry.extra})" if entry.extra else ""
    return f"{code}{entry.builder} {entry.architecture}".strip() + extra + config


def _resize(entry: Entry) -> str:
    if not entry.resize or not entry.interpolation:
        return ""
    crop = "" if entry.resize == entry.input else f", then the centre of {entry.input} px"
    return f"other tiles than {entry.input} px to {entry.resize} px, {entry.interpolation}{crop}"


def _feature(entry: Entry) -> str:
    kinds = {"cls": "class token", "mean": "mean of the patches", "own": "the network's own", "pooler": "pooler_output"}
    kind = kinds.get(entry.pooling, "class token and mean of the patches" if entry.pooling else UNKNOWN)
    return f"{entry.dim} numbers: {kind}" if entry.dim else ""


def _pixels(sides: tuple[int, ...]) -> str:
    return " or ".join(map(str, sides)) + " px" if sides else ""


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"
