"""`wsi-attention quantise`: an int8 version of a model's tile encoder, from slides of the training set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsi_attention.cli.say import say


def quantise(
    model: Annotated[Path, typer.Option("-m", "--model", help="The model folder; the int8 encoder goes into it.")],
    slides: Annotated[
        list[Path], typer.Option("-i", "--input", help="Slides of the training set, or folders of them; ten will do.")
    ],
    tiles: Annotated[int, typer.Option(help="Tiles to calibrate on, evenly from all slides.")] = 300,
) -> None:
    """Make an int8 version of a model's tile encoder, for `classify --precision int8`. Measure what it costs.

    Example: wsi-attention quantise -m model/ -i slides/train/
    """
    from wsi_attention.checkpoint import load_model
    from wsi_attention.cli.train import listening
    from wsi_attention.inference.batch.discovery import find_slides
    from wsi_attention.inference.quantise import quantise as make
    from wsi_attention.inference.quantised import quantised

    paths = [slide.path for slide in find_slides(slides).slides]
    with listening() as listener:
        folder = make(model, paths, tiles=tiles, told=lambda done, of: listener.progress("slides", done, of))
    say(f"{folder}: {quantised(load_model(model)).why}")
