"""`wsi-attention methods`: what can be trained, and who provides it."""

from __future__ import annotations

import inspect

import typer


def methods() -> None:
    """Lists the attention methods that are installed.

    Example: wsi-attention methods
    """
    from wsi_attention import registry

    for name in registry.names(registry.MODELS):
        builder = registry.load(registry.MODELS, name)
        summary = (inspect.getdoc(builder) or "").split("\n\n")[0].replace("\n", " ")
        typer.echo(f"{name:<12} {summary}  [{registry.origin(registry.MODELS, name)}]")
