"""`wsi-attention methods`: what can be trained, and every option of a method."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from wsi_attention.options import Option

WIDTH = 100


def methods(
    name: Annotated[str | None, typer.Argument(help="Method whose options are listed, e.g. zoom-in.")] = None,
) -> None:
    """List the attention methods that are installed, or all options of one: type, default, meaning, source.

    Example: wsi-attention methods zoom-in
    """
    from wsi_attention import registry
    from wsi_attention.methods.method import find_method

    if name is None:
        for one in registry.names(registry.MODELS):
            origin = registry.origin(registry.MODELS, one)
            typer.echo(f"{one:<12} {find_method(one).summary}  [{origin}]")
        typer.echo("\nwsi-attention methods NAME lists the options of a method.")
        return
    method = find_method(name)
    typer.echo(_wrapped(f"{name}: {method.summary}"))
    if method.paper:
        typer.echo(_wrapped(method.paper))
    typer.echo("\nOptions, for [model] of a recipe; a dot leads into a table of their own:\n")
    for option in method.listed():
        typer.echo(_page(option))


def _page(option: Option) -> str:
    default = "nothing" if option.default is None else json.dumps(option.default, ensure_ascii=False)
    kind = f"{option.kind}: {option.limits}" if option.limits else option.kind
    source = f" [{option.source}]" if option.source else ""
    return f"{option.name} = {default}\n" + _wrapped(f"({kind}) {option.meaning}{source}", "    ")


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
