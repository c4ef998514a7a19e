"""`wsi-attention doctor`: does this installation work, on this machine, end to end."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

import typer

from wsi_attention.cli.say import say
from wsi_attention.plain_text import counted

PACKAGES = ("torch", "openslide-python", "openslide-bin", "tiffslide", "zarr", "dask", "scikit-image")
CPU_BUILD = (
    "a driver is missing, or the build for CPUs would do, 5 GB smaller: "
    "python -m pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cpu"
)
EXTRAS = ("distributed", "dask-jobqueue", "timm", "transformers", "torchvision", "huggingface_hub")


def doctor() -> None:
    """Print versions, the build of torch, devices and readers, then classify a small generated slide (ten seconds).

    Example: wsi-attention doctor
    """
    from wsi_attention import __version__

    typer.echo(f"wsi-attention {__version__}, Python {platform.python_version()}, {platform.system()}")
    for package in (*PACKAGES, *EXTRAS):
        typer.echo(f"  {package:<18}{_version(package)}")
    typer.echo(f"torch: {_build()}")
    typer.echo(f"devices: {', '.join(_devices())}")
    with TemporaryDirectory() as folder:
        checks: dict[str, Callable[[Path], str]] = {"readers": _readers, "encoders": _encoders, "classify": _classify}
        passed = [_check(name, check, Path(folder)) for name, check in checks.items()]
    if not all(passed):
        raise typer.Exit(1)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed (optional)"


def _build() -> str:
    """Return for what hardware torch was built, and what to do where that hardware is not there."""
    import torch

    if torch.version.hip:
        return f"built for ROCm {torch.version.hip}"
    if not torch.version.cuda:
        return "built without CUDA, for CPUs (on a Mac also its GPU, mps)"
    built = f"built for CUDA {torch.version.cuda}"
    return built if torch.cuda.is_available() else f"{built}, but no GPU answers: {CPU_BUILD}"


def _devices() -> list[str]:
    import torch

    cards = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return [
        f"cpu ({counted(torch.get_num_threads(), 'thread')})",
        *cards,
        *(["mps"] if torch.backends.mps.is_available() else []),
    ]


def _check(name: str, check: Callable[[Path], str], folder: Path) -> bool:
    try:
        say(f"{name}: {check(folder)}")
    except Exception as error:  # a doctor reports whatever is wrong
        say(f"{name}: FAILED, {type(error).__name__}: {error}")
        return False
    return True


def _readers(folder: Path) -> str:
    from wsi_attention.slide.slide import open_slide
    from wsi_attention.testing.slides import SlideSpec, write_slide

    works = []
    for suffix, reader in ((".svs", "openslide"), (".svs", "tiff"), (".ome.tiff", "tiffslide"), (".ome.zarr", "zarr")):
        path = folder / f"self-test{suffix}"
        if not path.exists():
            write_slide(path, SlideSpec((1536, 1536), seed=1))
        with open_slide(str(path), reader) as slide:
            slide.read((0, 0), 0, (64, 64))
        works.append(reader)
    return f"{', '.join(works)} work"


def _encoders(folder: Path) -> str:
    from wsi_attention.nn.encoders import ENCODERS
    from wsi_attention.nn.timm_encoder import timm_state

    return f"{', '.join(ENCODERS)} work; {timm_state()}"


def _classify(folder: Path) -> str:
    from wsi_attention import load_model, open_slide, predict

    with open_slide(str(folder / "self-test.svs")) as slide:
        prediction = predict(slide, load_model("demo"))
    read = f"{prediction.counters.tiles} tiles read in {prediction.counters.seconds:.2f} s"
    return f"works with the demonstration model ({read})"
