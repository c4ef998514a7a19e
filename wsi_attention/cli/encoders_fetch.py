"""`wsi-attention encoders fetch` and `convert`: weights for use without a network, and pickles made safe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from wsi_attention.cli.say import say, warn


def fetch(
    names: Annotated[list[str], typer.Argument(help="Encoders, e.g. uni2-h, or hub:owner/model[@revision].")],
) -> None:
    """Show the licence of an encoder and download its weights, for later use without a network.

    Example: wsi-attention encoders fetch efficientnet-lite0
    """
    from wsi_attention.encoders.fetching import fetch as fetch_one

    for name in names:
        say(f"{name}: weights are in {fetch_one(name, say)}")


def convert(
    file: Annotated[Path, typer.Argument(help="A .bin, .pth, .pt or .ckpt file of weights.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The .safetensors file to write.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Whose weights they are, e.g. uni2-h; colours and origin come from it.")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="Mean of the colours, e.g. 0.485,0.456,0.406.")] = None,
    std: Annotated[str | None, typer.Option(help="Their standard deviation, e.g. 0.229,0.224,0.225.")] = None,
) -> None:
    """Turn a file of weights into safetensors, in another process that loads tensors and nothing else.

    Example: wsi-attention encoders convert pytorch_model.bin -o uni.safetensors --encoder uni
    """
    from wsi_attention.encoders.conversion import about_file
    from wsi_attention.encoders.conversion import convert as convert_one

    about = about_file(file, encoder, _numbers("--mean", mean), _numbers("--std", std))
    say(convert_one(file, output, about).sentence)
    say(f"origin: {about.origin.name}, {about.origin.rights}" if about.origin else "origin: not known")
    if about.mean:
        say(f"colours: mean {_listed(about.mean)}, std {_listed(about.std)}")
    else:
        warn("nothing says which colours these weights were trained with; give --encoder NAME, or --mean and --std")


def _numbers(option: str, text: str | None) -> tuple[float, ...]:
    from wsi_attention.errors import InputError

    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise InputError(f"{option} {text}: give a number a channel, such as 0.485,0.456,0.406") from None


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
