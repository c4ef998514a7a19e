"""`wsi-attention crossvalidate`: slides with labels in, a study out."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_attention.cli.classify import use_cache
from wsi_attention.cli.feature_store import FeatureStoreGb
from wsi_attention.cli.say import say
from wsi_attention.cli.train import listening
from wsi_attention.cli.voice import Quiet, Verbose, Voice, voice_of
from wsi_attention.defaults import FEATURE_STORE_GB

if TYPE_CHECKING:
    from wsi_attention.study.crossvalidate import StudyResult


def crossvalidate(
    labels: Annotated[Path, typer.Option("-l", "--labels", help="CSV slide,label[,patient][,mpp][,split][,series].")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The study's folder.")],
    slides: Annotated[
        list[str] | None, typer.Option("-i", "--input", help="Folders, files or URLs with slides, no plain images.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="As of train: features of slides' tiles; -i may be left out then.")
    ] = None,
    folds: Annotated[int, typer.Option(help="Parts the patients are divided into; each is held out once.")] = 5,
    repeats: Annotated[int, typer.Option(help="How often they are divided anew.")] = 1,
    site: Annotated[str | None, typer.Option(help="Column of the labels whose values are never in two folds.")] = None,
    method: Annotated[
        str | None, typer.Option("-m", "--method", help="As of train. [default: the recipe's, else grow]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A recipe: TOML, or a shipped name such as tnet-paper. [default: the method's]")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="In place of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="In place of the recipe's; decides the folds too.")] = None,
    start: Annotated[str | None, typer.Option(help="A model whose weights every fold starts from.")] = None,
    encoder: Annotated[str | None, typer.Option(help="The tile encoder; see wsi-attention encoders.")] = None,
    encoder_start: Annotated[str | None, typer.Option(help="Encoder weights, as of train.")] = None,
    negative: Annotated[str | None, typer.Option(help="The class that means that nothing was found, or none.")] = None,
    series: Annotated[str | None, typer.Option(help="Which image of a file is the slide: its number or name.")] = None,
    feature_store: Annotated[
        Path | None, typer.Option(help="Folder for features of a frozen encoder, of all folds. [default: in the study]")
    ] = None,
    feature_store_gb: FeatureStoreGb = FEATURE_STORE_GB,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps what is fetched from URLs.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:1 …; cuda:0,cuda:1 do one fold each.")] = "auto",
    processes: Annotated[int, typer.Option("-n", "--processes", help="Folds done side by side.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew: remove an earlier study.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a model a fold, predict the slides that it has not seen, and join the models to one: classify -m study/.

    Started again after an interruption, it goes on to the same result.

    Example: wsi-attention crossvalidate -l labels.csv -i slides/ -o study/ --folds 5
    """
    from wsi_attention.cli.interrupts import resumable, starting

    voice = voice_of(quiet, verbose)
    with resumable(), listening(voice) as listener:
        listener.progress("loading", 0, 0)
        with starting():
            from wsi_attention.config import Recipe, as_recipe, changed, default_recipe
            from wsi_attention.slide.urls import masked
            from wsi_attention.study.crossvalidate import crossvalidate as do_study
            from wsi_attention.training.encoder_choice import with_encoder

        recipe = as_recipe(config) if config else default_recipe(method or Recipe.method)
        changes = {"method": method, "epochs": epochs, "seed": seed, "start": start}
        recipe = changed(recipe, **changes, encoder_start=encoder_start, negative=negative)
        use_cache(cache)
        result = do_study(
            labels,
            slides,
            output,
            with_encoder(recipe, encoder),
            folds=folds,
            repeats=repeats,
            site=site,
            earlier="replace" if overwrite else "continue",
            device=device,
            processes=processes,
            series=series,
            feature_store=feature_store,
            feature_store_gb=feature_store_gb,
            features=features,
            command=shlex.join(["wsi-attention", *map(masked, sys.argv[1:])]),
            listener=listener,
        )
    if voice is not Voice.QUIET:
        say(*_page(result, labels))


def _page(result: StudyResult, labels: Path) -> list[str]:
    """Return the figures of slides that were predicted by models that had not seen them, and what to type next."""
    scores = result.evaluation.scores
    low, high = scores.auroc_interval
    known = scores.auroc == scores.auroc
    auroc = f"{scores.auroc:.3f}  (95 % {low:.3f} to {high:.3f})" if known else "none: all slides are of one class"
    least, most = scores.accuracy_interval
    split = " --split all" if result.evaluation.split else ""
    return [
        f"out of fold, {scores.n} slides of {scores.patients} patients, {len(result.folds)} models:",
        *result.evaluation.overlap.remarks,
        f"AUROC      {auroc}",
        f"accuracy   {scores.accuracy:.3f}  (95 % {least:.3f} to {most:.3f})",
        f"ensemble   {result.folder}, for classify -m",
        f"record     {result.folder / 'record.html'}",
        f"next: {shlex.join(['wsi-attention', 'evaluate', '-p', str(result.predictions), '-l', str(labels)])}{split}",
    ]
