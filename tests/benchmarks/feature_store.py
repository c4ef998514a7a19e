"""Training with a feature store: how fast later epochs are, how few bytes all epochs ask for, and what kills leave.

    OMP_NUM_THREADS=1 python tests/benchmarks/feature_store.py epochs [--encoder timm:vit_small_patch16_224]
    OMP_NUM_THREADS=1 python tests/benchmarks/feature_store.py bytes [--slides 60] [--size 40000] [--epochs 20]
    OMP_NUM_THREADS=1 python tests/benchmarks/feature_store.py kills [--kills 20]

`epochs`: a frozen encoder whose every tile of tissue is drawn in every epoch, trained with a store and without one.
`bytes`: ats and zoom-in over a loopback HTTP server that counts what it sends; one training of each is killed half
way and started again. Slides beyond `--distinct` are copies of the others with a last byte of their own.
`kills`: trainings killed at random moments and started again, and two trainings at once, with one store.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from common import options_parser, run_and_save, table
from remote_bytes import Counted, server

COMMAND = [sys.executable, "-c", "from wsi_attention.cli import main; main()"]
SHARED = """
method = "{method}"
epochs = {epochs}
patience = 1000
batch = 4
precision = "32"
validation_share = 0.34
[augmentation]
symmetry = "none"
stain = 0.0
brightness = 0.0
[model]
encoder = "{encoder}"
encoder_frozen = true
tile_size = {tile}
tile_mpp = {mpp}
draws = {draws}
"""
METHODS = {
    "ats": "overview_mpp = 16.0\n",
    "zoom-in": "overview_mpp = 16.0\nview_mpps = [4.0]\ncells_um = [512.0, 128.0]\nwarm_up = 1000\n",
}
SIDES = ["plain", "store", "store, killed", "store + cache", "store + cache, killed"]
"""Without a store; with one; and with a folder that `--cache` names."""


def recipe(folder: Path, method: str, more: str, **numbers: Any) -> Path:
    """Writes a recipe."""
    path = folder / f"{method}-{numbers['epochs']}-{numbers['draws']}.toml"
    path.write_text(SHARED.format(method=method, **numbers) + more)
    return path


def train(labels: Path, slides: Sequence[str], told: Path, out: Path, *more: str) -> list[str]:
    """The command that trains."""
    inputs = [part for slide in slides for part in ("-i", slide)]
    return [
        *COMMAND,
        "train",
        "-l",
        str(labels),
        *inputs,
        "--config",
        str(told),
        "-o",
        str(out),
        "--device",
        "cpu",
        *more,
    ]


def metrics(out: Path) -> list[dict[str, str]]:
    """The rows of a training's metrics.csv."""
    with (out / "training" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def small_slides(folder: Path, count: int, side: int) -> Path:
    """Labelled slides and their labels.csv, made where they are not there yet."""
    if (folder / "labels.csv").is_file():
        return folder
    from wsi_attention.testing.slides import SlideSpec, write_slide

    folder.mkdir(parents=True, exist_ok=True)
    rows = ["slide,label"]
    for seed in range(count):
        label = ("benign", "lesion")[seed % 2]
        write_slide(folder / f"s{seed:02}.svs", SlideSpec((side, side), seed=seed, label=label, lesion_scale=8))
        rows.append(f"s{seed:02},{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


# ---- epochs


class Clock:
    """Notes when the first epoch begins and when each ends, its validation included."""

    def __init__(self) -> None:
        self.ends = [0.0]

    def line(self, text: str) -> None:
        """Takes the last line before the first epoch, and the line that ends an epoch."""
        if text.startswith("epoch "):
            self.ends.append(time.perf_counter())
        elif len(self.ends) == 1:
            self.ends = [time.perf_counter()]

    def progress(self, stage: str, done: int, total: int) -> None:
        """Does nothing."""


def epochs(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Seconds of each epoch with the store and without, and how far the weights differ in the end."""
    import torch
    from safetensors.torch import load_file

    from wsi_attention.config import load_recipe
    from wsi_attention.training.run import train as run

    slides = small_slides(folder / "slides", options.slides, options.side)
    numbers = {"encoder": options.encoder, "tile": 224, "mpp": 0.5, "draws": 10_000, "epochs": options.epochs}
    told = load_recipe(recipe(folder, "ats", "overview_mpp = 16.0\n", **numbers))
    found: dict[str, Any] = {}
    weights = {}
    for name, gigabytes in (("store", 1.0), ("without", 0.0)):
        clock = Clock()
        more: dict[str, Any] = {"feature_store": folder / "features", "feature_store_gb": gigabytes}
        run(slides / "labels.csv", slides, folder / name, told, device="cpu", listener=clock, **more)
        found[name] = [round(b - a, 3) for a, b in pairwise(clock.ends)]
        weights[name] = load_file(folder / name / "model.safetensors")
    far = max(float((weights["store"][name] - weights["without"][name]).abs().max()) for name in weights["store"])
    bits = all(torch.equal(weights["store"][name], weights["without"][name]) for name in weights["store"])
    rows = [(f"epoch {i + 1}", *(found[name][i] for name in found)) for i in range(options.epochs)]
    print(table(("seconds", *found), rows))
    speed = found["store"][0] / found["store"][1]
    print(
        f"encoder {options.encoder}, {options.slides} slides of {options.side}² px, every tile of tissue in each epoch"
    )
    print(f"second epoch against the first: {speed:.1f}x (target 10x)")
    print(f"weights with the store and without: {'equal bit for bit' if bits else f'differ by at most {far:.2g}'}")
    return found | {"ratio": speed, "bits": bits, "differ": far}


# ---- bytes


def cohort(folder: Path, count: int, size: int, distinct: int) -> Path:
    """Large slides with labels.csv; those beyond `distinct` are copies that differ in bytes after their end."""
    from slide_mosaic import write_large_slide

    from wsi_attention.testing.slides import SlideSpec

    folder.mkdir(parents=True, exist_ok=True)
    rows = ["slide,label"]
    for number in range(count):
        label = ("benign", "lesion")[number % 2]
        path, first = folder / f"s{number:02}.svs", folder / f"s{number % distinct:02}.svs"
        if not path.exists() and number < distinct:
            spec = SlideSpec((size, size), mpp=0.25, seed=number, label=label, coverage=0.4, quality=80)
            write_large_slide(path, spec)
        elif not path.exists():
            shutil.copy(first, path)
            with path.open("ab") as file:
                file.write(number.to_bytes(8, "big") * 2048)
        rows.append(f"s{number:02},{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def over_http(running: Counted, slides: Path, told: Path, out: Path, *more: str, kill: int = 0) -> dict[str, Any]:
    """Trains over HTTP, killed once after `kill` epochs; returns what the server sent, and the last metrics."""
    urls = [f"{running.address}/{path.name}" for path in sorted(slides.glob("*.svs"))]
    command = train(slides / "labels.csv", urls, told, out, *more)
    running.counts()
    start, before = time.monotonic(), {"bytes": 0, "requests": 0}
    if kill:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not _reached(out, kill):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            raise RuntimeError("the training ended before it was killed")
        before = running.counts()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    last = metrics(out)[-1]
    kept = {name: last[name] for name in ("train_loss", "val_loss", "val_auroc")}
    asked = {name: count + before[name] for name, count in running.counts().items()}
    kept |= {"bytes_before_the_kill": before["bytes"]} if kill else {}
    return asked | kept | {"epochs": len(metrics(out)), "seconds": round(time.monotonic() - start, 1)}


def _reached(out: Path, epoch: int) -> bool:
    try:
        return len(metrics(out)) >= epoch
    except OSError:
        return False


def bytes_asked(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The share of the cohort's bytes that all epochs of each method ask for."""
    slides = cohort(folder / "slides", options.slides, options.size, options.distinct)
    whole = sum(path.stat().st_size for path in slides.glob("*.svs"))
    numbers = {"encoder": options.encoder, "tile": 256, "mpp": 0.25, "draws": options.draws, "epochs": options.epochs}
    found: dict[str, Any] = {"cohort_bytes": whole}
    with server(slides) as running:
        for method in options.methods:
            told = recipe(folder, method, METHODS[method], **numbers)
            for side in options.sides:
                name = f"{method}, {side}"
                out = folder / "runs" / name.replace(" ", "").replace(",", "-").replace("+", "-")
                more = ["--feature-store", str(out / "features"), "--feature-store-gb", "0" if side == "plain" else "5"]
                more += ["--cache", str(out / "cache")] if "cache" in side else []
                kill = options.epochs // 2 if "killed" in side else 0
                found[name] = over_http(running, slides, told, out / "model", *more, kill=kill)
                one = found[name]
                print(f"{name}: {one['bytes'] / whole:.2%} of the cohort's bytes, {one}", flush=True)
    rows = [
        (
            name,
            one["epochs"],
            one["requests"],
            f"{one['bytes'] / 1e6:.1f}",
            f"{one['bytes'] / whole:.2%}",
            one["val_loss"],
            one["val_auroc"],
            one["seconds"],
        )
        for name, one in found.items()
        if isinstance(one, dict)
    ]
    print(f"{options.slides} slides of {options.size}² px ({options.distinct} distinct), {whole / 1e6:,.0f} MB in all;")
    print(f"{options.epochs} epochs, {options.draws} tiles of 256 px a slide, encoder {options.encoder}, frozen")
    print(table(("run", "epochs", "requests", "MB", "of the cohort", "val loss", "AUROC", "s"), rows))
    return found


# ---- kills


def trained(command: Sequence[str], told: Path) -> None:
    """Runs a training in this process, which a server of processes has forked with the imports done."""
    from wsi_attention.cli import main as wsi_attention

    sys.argv = ["wsi-attention", *command]
    with told.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    wsi_attention()


def started(command: Sequence[str], told: Path) -> BaseProcess:
    """Starts a training as a process of its own."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["wsi_attention.cli.train", "wsi_attention.training.run"])
    process = context.Process(target=trained, args=(command[len(COMMAND) :], told))
    process.start()
    return process


def ended(process: BaseProcess, told: Path) -> str:
    """What a training has said; it must have succeeded."""
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"a training ended with {process.exitcode}: {told.read_text()}")
    return told.read_text()


def kills(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """How many killed and repeated trainings end with the weights of an undisturbed one, sharing one store."""
    random.seed(options.seed)
    slides, log = small_slides(folder / "slides", 6, 1024), folder / "log.txt"
    numbers = {"encoder": "small", "tile": 64, "mpp": 1.0, "draws": 8, "epochs": 4}
    told = recipe(folder, "ats", "overview_mpp = 8.0\nattention_widths = [8, 8]\ncontext = 3\n", **numbers)

    def command(out: Path, store: Path, gigabytes: float = 5) -> list[str]:
        store_options = ["--feature-store", str(store), "--feature-store-gb", str(gigabytes)]
        return train(slides / "labels.csv", [str(slides)], told, out, *store_options)

    ended(started(command(folder / "plain", folder / "none", 0), log), log)
    start = time.monotonic()
    ended(started(command(folder / "whole", folder / "undisturbed"), log), log)
    seconds = time.monotonic() - start
    expected, plain = ((folder / name / "model.safetensors").read_bytes() for name in ("whole", "plain"))
    print(
        f"with a store and without: {'equal bit for bit' if expected == plain else 'not equal'}; {seconds:.1f} s each"
    )
    landed = identical = close = damaged = 0
    out, store = folder / "out", folder / "killed"
    while landed < options.kills:
        for place in (out, store):
            shutil.rmtree(place, ignore_errors=True)
        process, moment = started(command(out, store), log), random.uniform(0, 4)
        while process.is_alive() and moment >= 1 and not _reached(out, int(moment)):
            time.sleep(0.01)
        process.join(moment % 1 * seconds / (2 if moment < 1 else 8))  # the first epoch takes half of the time, about
        process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            continue
        landed += 1
        at = len(metrics(out)) if (out / "training" / "metrics.csv").exists() else 0
        kept = sum(1 for _ in store.rglob("*.zarr.zip"))
        damaged += "not used" in ended(started(command(out, store), log), log)
        made = (out / "model.safetensors").read_bytes()
        identical, close = identical + (made == expected), close + close_enough(made, expected)
        print(f"  kill {landed}, after {at} epochs, {kept} files in the store:", end=" ")
        print(f"{identical} identical, {close} close, {damaged} damaged", flush=True)
    print(f"{landed} kills landed; {damaged} trainings that went on met a damaged file;")
    print(f"{identical} of them end with the undisturbed one's weights bit for bit, {close} within 1e-4")
    shared, both = folder / "shared", [folder / "both0", folder / "both1"]
    logs = [folder / f"{place.name}.txt" for place in both]
    together = [started(command(place, shared), log) for place, log in zip(both, logs, strict=True)]
    for process, log in zip(together, logs, strict=True):
        ended(process, log)
    models = [(place / "model.safetensors").read_bytes() for place in both]
    alike = [close_enough(model, plain) for model in models]
    same = [model == plain for model in models]
    print(f"two trainings at once, one store: within 1e-4 of one without a store: {alike}, bit for bit: {same}")
    figures = {"kills": landed, "identical": identical, "close": close, "damaged": damaged}
    return figures | {"alike": alike, "same": same, "store_changes_nothing": expected == plain}


def close_enough(one: bytes, other: bytes) -> bool:
    """Whether two models are equal but for the last bits: tiles may have been encoded in other batches."""
    from safetensors.torch import load

    first, second = load(one), load(other)
    return all(bool((first[name] - second[name]).abs().max() <= 1e-4) for name in first)


PARTS = {"epochs": epochs, "bytes": bytes_asked, "kills": kills}


def main() -> None:
    """Runs one part and prints its figures."""
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    parser = options_parser(__doc__, f"feature_store_{part}", repeats=1)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--work", type=Path, help="folder for slides and runs; a temporary one where not given")
    parser.add_argument("--encoder", default="small", help="of the tiles [small]")
    parser.add_argument("--slides", type=int, default=8, help="how many [8]")
    parser.add_argument("--side", type=int, default=2048, help="pixels along a slide, for `epochs` [2048]")
    parser.add_argument("--size", type=int, default=40_000, help="pixels along a slide, for `bytes` [40000]")
    parser.add_argument("--distinct", type=int, default=4, help="slides that are painted; others are copies [4]")
    parser.add_argument("--epochs", type=int, default=3, help="passes over the slides [3]")
    parser.add_argument("--draws", type=int, default=4, help="tiles a slide and epoch, for `bytes` [4]")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES[:3], help="which, for `bytes`")
    parser.add_argument("--kills", type=int, default=20, help="killed trainings [20]")
    parser.add_argument("--seed", type=int, default=0)
    run_and_save(parser, PARTS[part])


if __name__ == "__main__":
    main()
