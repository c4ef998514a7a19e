"""Snakemake wrapper of `wsi-attention classify`: slides in, a results folder around `predictions.csv` out."""

from pathlib import Path
from shlex import quote, split
from typing import Any

from snakemake.shell import shell

EMPTY = ("", None, [])


def folder_of(outputs: Any) -> Path:
    """The results folder: where predictions.csv lies.

    Raises:
        ValueError: there is no such output, or another one lies outside.
    """
    table = outputs.get("predictions")
    if table is None or Path(table).name != "predictions.csv":
        raise ValueError(f"output 'predictions' must be a path that ends in predictions.csv, found {table}")
    folder = Path(table).parent
    outside = [path for path in outputs if not Path(path).is_relative_to(folder)]
    if outside:
        raise ValueError(f"outputs must lie in {folder}, where predictions.csv is; found {', '.join(outside)}")
    return folder


def command_of(job: Any) -> str:
    """The command line of a job."""
    slides = job.input.get("slides")
    if slides in EMPTY:
        raise ValueError("input 'slides' is missing; name the slides: input: slides='slide.svs'")
    if job.input.get("model") in EMPTY and not {"-m", "--model"} & set(split(job.params.get("extra", ""))):
        raise ValueError(
            "input 'model' is missing; name the folder that wsi-attention train wrote: input: model='model'"
        )
    words = ["wsi-attention", "classify"]
    for slide in [slides] if isinstance(slides, str) else slides:
        words += ["-i", quote(slide)]
    words += ["-o", quote(str(folder_of(job.output)))]
    given = {
        "-m": job.input.get("model"),
        "--slides-csv": job.input.get("slides_csv"),
        "--what": job.params.get("what"),
    }
    for option, value in given.items():
        if value not in EMPTY:
            words += [option, quote(str(value))]
    return " ".join([*words, "-n", str(job.threads), job.params.get("extra", "")])


accepted = "|| [ $? -eq 1 ]" if snakemake.params.get("accept_failed", False) else ""  # noqa: F821
log = snakemake.log_fmt_shell(stdout=True, stderr=True)  # noqa: F821
shell(f"({command_of(snakemake)} {accepted}) {log}")  # noqa: F821
