"""`wsi-attention classify-images`: plain images in, a table of labels out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsi_attention.cli.say import say, warn


def classify_images(
    images: Annotated[
        Path,
        typer.Option("-i", "--images", help="A zarr array (n, h, w[, c]) of bytes, or a folder of .npy, PNG or JPEG."),
    ],
    model: Annotated[str, typer.Option("-m", "--model", help="The model folder, trained with --images.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder that predictions.csv goes to.")],
    mpp: Annotated[float, typer.Option(help="µm per pixel of the images.")] = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:1 or mps.")] = "auto",
) -> None:
    """Label plain images, which are seen as they are: no slide, no tissue to find.

    Example: wsi-attention classify-images -i images/ -m model/ -o results/
    """
    from wsi_attention.cli.train import listening
    from wsi_attention.inference.images import classify_images as classify

    with listening() as listener:
        failed = classify(
            images, model, output, mpp=mpp, device=device, told=lambda done, of: listener.progress("images", done, of)
        )
    for name, reason in list(failed.items())[:10]:
        warn(f"{name}: {reason}")
    say(f"{output / 'predictions.csv'}: {len(failed)} images without a label")
    if failed:
        raise typer.Exit(1)
