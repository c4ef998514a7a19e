"""`wsi-attention train`: slides with labels in, a model folder out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_attention.cli.classify import use_cache
from wsi_attention.cli.feature_store import FeatureStoreGb
from wsi_attention.cli.say import say
from wsi_attention.cli.voice import Quiet, Verbose, Voice, voice_of
from wsi_attention.defaults import FEATURE_STORE_GB
from wsi_attention.plain_text import visible

if TYPE_CHECKING:
    from wsi_attention.config import Recipe
    from wsi_attention.training.listener import Listener
    from wsi_attention.training.run import TrainingResult


FeatureStore = Annotated[
    Path | None,
    typer.Option(
        help="Folder that keeps what a frozen encoder says of tiles; runs share it. [default: features beside -o]"
    ),
]


def train(
    labels: Annotated[Path, typer.Option("-l", "--labels", help="CSV slide,label[,patient][,mpp][,split][,series].")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The model folder.")],
    slides: Annotated[
        list[str] | None, typer.Option("-i", "--input", help="Folders, files or URLs with the labelled slides.")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="Folder of TRIDENT, CLAM, STAMP or LazySlide with features of slides' tiles; -i may be left out then."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="In place of slides: a zarr array (n, h, w[, c]) of bytes, or a folder of .npy, PNG or JPEG."
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("-m", "--method", help="See wsi-attention methods. [default: the recipe's, else grow]"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A recipe: TOML, or a shipped name such as tnet-paper. [default: the method's]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="In place of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="In place of the recipe's.")] = None,
    start: Annotated[str | None, typer.Option(help="A model whose weights to start from, e.g. demo.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="The tile encoder, e.g. uni2-h; see wsi-attention encoders.")
    ] = None,
    encoder_start: Annotated[
        str | None, typer.Option(help="Encoder weights: a .safetensors file, a model folder, or pretrained.")
    ] = None,
    negative: Annotated[
        str | None, typer.Option(help="The class that means that nothing was found; none: every class is a finding.")
    ] = None,
    series: Annotated[
        str | None,
        typer.Option(help="Which image of a file is the slide, where the labels do not say: number or name."),
    ] = None,
    maps: Annotated[
        str | None, typer.Option(help="A model folder whose accumulated maps to learn, for oaa-plus.")
    ] = None,
    feature_store: FeatureStore = None,
    feature_store_gb: FeatureStoreGb = FEATURE_STORE_GB,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps what is fetched from URLs.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    devices: Annotated[int, typer.Option(help="How many of them train together.")] = 1,
    gpus: Annotated[str | None, typer.Option(help="Train on these GPUs together: all, or numbers such as 0,1.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew: remove an earlier training.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a model on labelled slides. Started again after an interruption, it goes on to the same result.

    Example: wsi-attention train -l labels.csv -i slides/ -o model/ --method ats
    """
    from wsi_attention.cli.interrupts import resumable, starting

    voice = voice_of(quiet, verbose)
    with resumable(), listening(voice) as listener:
        listener.progress("loading", 0, 0)
        with starting():
            from wsi_attention.config import Recipe, as_recipe, changed, default_recipe
            from wsi_attention.devices import gpus_named
            from wsi_attention.slide.urls import masked
            from wsi_attention.training import run
            from wsi_attention.training.encoder_choice import with_encoder

        recipe = as_recipe(config) if config else default_recipe(method or Recipe.method)
        wanted = {"method": method, "epochs": epochs, "seed": seed, "start": start, "encoder_start": encoder_start}
        recipe = with_encoder(changed(recipe, **wanted, maps=maps, negative=negative), encoder)
        use_cache(cache)
        result = run.train(
            labels,
            slides,
            output,
            recipe,
            earlier="replace" if overwrite else "continue",
            device=device if gpus is None else ",".join(gpus_named(gpus, device)),
            processes=devices,
            series=series,
            feature_store=feature_store,
            feature_store_gb=feature_store_gb,
            features=features,
            images=images,
            command=shlex.join(["wsi-attention", *map(masked, sys.argv[1:])]),
            listener=listener,
        )
    if result.reports and voice is not Voice.QUIET:
        say(*_page(result, recipe))


def _page(result: TrainingResult, recipe: Recipe) -> list[str]:
    """Return how good the epoch is that was kept, where the learning curve lies, and what to type next."""
    output, best = result.folder, result.best
    lines = []
    if result.finished_before:
        lines.append(f"{output}: finished already after {result.epochs} epochs; --overwrite begins anew")
    judged = f"{best.val_slides} slides of {best.val_patients} patients"
    judged = judged if recipe.bag == "slide" else f"{best.val_patients} patients"
    figures = ", ".join(
        f"{one.name} {one.value:.3f} (95 % {one.interval[0]:.3f} to {one.interval[1]:.3f})" for one in best.figures
    )
    figures = figures or (
        f"AUROC {best.val_auroc:.3f} (95 % {best.val_auroc_low:.3f} to {best.val_auroc_high:.3f}), accuracy "
        f"{best.val_accuracy:.3f} (95 % {best.val_accuracy_low:.3f} to {best.val_accuracy_high:.3f})"
    )
    kept, chose = f"best of {result.epochs} epochs is {best.epoch}", ", which chose the epoch too"
    if recipe.best == "last":
        kept, chose = f"the last of {result.epochs} epochs", ""
    lines.append(f"{output}: {kept}: validation {figures} on {judged}{chose}; {len(result.failed)} slides left out")
    curve = output / "training" / "learning_curve.svg"
    lines += [f"learning curve  {curve}"] if curve.is_file() else []
    command = ["wsi-attention", "classify", "-i", "new_slides/", "-o", "results/", "-m", str(output)]
    return [*lines, f"next: {shlex.join(command)}"]


@contextmanager
def listening(voice: Voice = Voice.USUAL) -> Iterator[Listener]:
    """Yield what prints the lines of a training and moves its progress bar; with `-v` a line for each stage too."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    silent = voice is Voice.QUIET
    with Progress(*columns, console=console, transient=True, disable=silent or not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        class Shown:
            stage = ""

            def line(self, text: str) -> None:
                if not silent:
                    console.print(visible(text), markup=False)

            def progress(self, stage: str, done: int, total: int) -> None:
                if stage != self.stage:
                    self.stage = stage
                    bar.reset(task, description=visible(stage), total=total or None)
                    if voice is Voice.VERBOSE:
                        self.line(f"{stage}{f', {total} slides' if total else ''}")
                bar.update(task, completed=done)

        yield Shown()
