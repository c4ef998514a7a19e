"""Options of `wsi-attention classify`: one line a name, so that the command itself stays a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from wsi_attention.errors import InputError

Inputs = Annotated[list[str] | None, Option("-i", "--input", help="Slides, folders of slides, URLs, or slides CSVs.")]
More = Annotated[list[str] | None, Argument(help="More inputs: -i slides/*.svs works.")]
Results = Annotated[str, Option("-o", "--output", help="The results folder, or a URL such as s3://bucket/results.")]
Model = Annotated[
    str | None,
    Option("-m", "--model", help="A model folder (required); demo is a demonstration, for painted slides only."),
]
Workers = Annotated[int, Option("-n", "--workers", help="Slides computed side by side.")]
Batch = Annotated[int, Option("-b", "--batch", help="Tiles read by one task.")]
Device = Annotated[str, Option(help="cpu, cuda:1 …; auto is the first GPU, else the CPU.")]
Precision = Annotated[str, Option(help="32, bf16, or auto: bf16 where the hardware has it.")]
Mpp = Annotated[float | None, Option(help="µm per level-0 pixel, if the files are wrong or silent.")]
Series = Annotated[str | None, Option(help="Which image of a file is the slide: its number or name (see info).")]
SlidesCsv = Annotated[Path | None, Option(help="CSV slide[,mpp][,mask][,series]: which slides of -i.")]
Limit = Annotated[float, Option(help="Seconds a slide may take before it counts as failed.")]
Exact = Annotated[bool, Option("--exact", help="Read every tile instead of a sample: minutes a slide.")]
Tolerance = Annotated[
    float | None, Option(help="Read until standard error and unread attention are at most this, e.g. 0.02.")
]
Budget = Annotated[int | None, Option(help="The most tiles a slide for --tolerance.")]
Unread = Annotated[
    float | None,
    Option(help="The most attention on unread tiles for --tolerance to stop; 1: any. [default: the tolerance]"),
]
What = Annotated[
    str | None, Option(help="geojson, tiles, heatmap, heatmap-zarr, report; commas between. [default: all]")
]
NoSnap = Annotated[bool, Option("--no-snap", help="Leave sampled tiles off the file's own tile grid: slower.")]
Profile = Annotated[bool, Option("--profile", help="Print where the time went.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Remove earlier results first.")]
FullHash = Annotated[
    bool, Option("--full-hash", help="Hash slides whole, also large ones, so that any change of a byte is noticed.")
]
Cache = Annotated[
    Path | None, Option(help="Folder that keeps what is fetched of URLs; needed where a server gives whole files only.")
]
Scheduler = Annotated[str | None, Option(help="Workers of this dask scheduler: tcp://…, tls://…, a scheduler file.")]
LocalCluster = Annotated[int | None, Option(help="That many worker processes on this machine.")]
InProcess = Annotated[
    bool,
    Option("--in-process", help="No worker processes: less memory, but a slide that crashes a library ends the run."),
]
Slurm = Annotated[Path | None, Option(help="Workers as jobs of Slurm: a TOML file with jobs and [job].")]


def given(model: str | None) -> str:
    """The model that was asked for; there is no default, for a label of the wrong model looks like any other.

    Raises:
        InputError: none was.
    """
    if model:
        return model
    raise InputError(
        "no model was given: name the folder that wsi-attention train wrote with -m; -m demo is a demonstration whose"
        " label means nothing on real tissue"
    )
