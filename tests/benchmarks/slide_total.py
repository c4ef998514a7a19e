"""What a slide costs from the file to the last output: by stage and by exporter, against tiles alone and the limit.

    OMP_NUM_THREADS=1 python tests/benchmarks/slide_total.py [--sizes 10000 40000 100000] [--draws 16 256] [--folder F]

Generated slides (256-px JPEG tiles, 0.25 µm/px, 40 % tissue), the shipped model; `classify` in the process itself, one
thread. "tiles alone" is `--what tiles`; the limit is what nobody can leave out: the overview decoded once, the tiles
decoded, the forward passes. With --batch, so many links to one slide are classified with one worker process and with
two. The start is that of the whole command on the six samples, to its end and to its first result.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import in_own_process, large_slide, options_parser, run_and_save, table

SAMPLES = Path(__file__).resolve().parents[2] / "sample_slides"
FIRST = 10_000
TILES_ALONE = ("tiles",)


@contextmanager
def processor_seconds(found: list[float]) -> Iterator[None]:
    """Append the processor time of the process inside."""
    start = time.process_time()
    yield
    found.append(time.process_time() - start)


def batch(slides: list[str], out: Path, classifier: Any, what: list[Any], **how: Any) -> None:
    """Classify into an empty folder."""
    from wsi_attention.inference.batch.classify import classify

    shutil.rmtree(out, ignore_errors=True)
    report = classify(slides, out, classifier, device="cpu", what=what, **how)
    if report.failures or report.kept:
        raise RuntimeError(f"{report.failures} failed, {report.kept} were there")


def with_draws(draws: int) -> Any:
    """The shipped model with a budget of tiles."""
    from wsi_attention import load_model

    classifier = load_model("demo")
    classifier.model.draws = draws
    return classifier


def whole(path: str, draws: int, repeats: int) -> dict[str, Any]:
    """Processor and clock seconds of a slide with the default outputs, with tiles alone, and the limit."""
    import torch

    from wsi_attention.defaults import EXPORTS, PICTURES

    torch.set_num_threads(1)
    classifier = with_draws(draws)
    found: dict[str, list[float]] = {}
    with TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        sides: dict[str, Callable[[], object]] = {
            "default": partial(batch, [path], out, classifier, list(EXPORTS), in_process=True),
            "tiles alone": partial(batch, [path], out, classifier, list(TILES_ALONE), in_process=True),
            "limit": partial(limit, path, classifier),
        }
        for name in sorted({*EXPORTS, *PICTURES} - {*TILES_ALONE}):
            sides[f"with {name}"] = partial(
                batch, [path], out, classifier, sorted({*TILES_ALONE, name}), in_process=True
            )
        for side in sides.values():
            side()
        for _ in range(repeats):
            for name, side in sides.items():
                start = time.perf_counter()
                with processor_seconds(found.setdefault(name, [])):
                    side()
                found.setdefault(f"{name}, clock", []).append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def limit(path: str, classifier: Any) -> None:
    """The overview decoded once, the tiles decoded, the forward passes: with the places of tiles known beforehand."""
    from wsi_attention import open_slide
    from wsi_attention.slide.tissue import find_tissue
    from wsi_attention.tiles.source import SlideSource

    with open_slide(path, "tiff") as slide:
        if path not in _MASKS:
            source = SlideSource(slide)
            downsample = source.whole_overview_downsample(classifier.model.overview_mpp)
            _MASKS[path] = find_tissue(source.overview_rgb(downsample), downsample, slide.mpp)
        import torch

        with torch.inference_mode():
            classifier.model.eval()(SlideSource(slide, tissue=_MASKS[path]))


_MASKS: dict[str, Any] = {}


def stages(path: str, draws: int) -> dict[str, float]:
    """Clock seconds by kind of work of one slide, in a process that has classified before."""
    import torch

    from wsi_attention.defaults import EXPORTS
    from wsi_attention.inference.batch.classify import classify

    torch.set_num_threads(1)
    classifier = with_draws(draws)
    with TemporaryDirectory() as folder:
        for number in range(3):
            report = classify(
                [path],
                Path(folder) / str(number),
                classifier,
                device="cpu",
                what=list(EXPORTS),
                profile=True,
                in_process=True,
            )
    clock = (report.clocks or [])[0]
    return dict(clock.seconds)


def of_many(slide: Path, count: int, work: Path, what: list[str]) -> dict[str, float]:
    """Clock seconds of a batch of links to one slide, with one worker process and with two."""
    from wsi_attention import load_model
    from wsi_attention.inference.cluster.open import open_cluster

    given = work / f"links{count}"
    given.mkdir()
    for number in range(count):
        os.link(slide, given / f"slide_{number:04}.svs")
    found = {}
    for workers in (1, 2):
        with open_cluster(local=workers, device="cpu") as cluster:
            start = time.perf_counter()
            batch([str(given)], work / "out", load_model("demo"), what, executor=cluster)
            found[str(workers)] = time.perf_counter() - start
    shutil.rmtree(given)
    return found


def start(work: Path) -> dict[str, float]:
    """Clock seconds of the command on the six samples: to its end, and to its first result."""
    out = work / "samples"
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    command = [sys.executable, "-c", "from wsi_attention.cli import main; main()"]
    asked = ["classify", "-i", str(SAMPLES), "-o", str(out), "-m", "demo"]
    process = subprocess.Popen([*command, *asked], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = None
    while process.poll() is None:
        if first is None and any(out.glob("states/*.json")):
            first = time.perf_counter() - began
        time.sleep(0.005)
    return {"end": time.perf_counter() - began, "first result": first or float("nan")}


def run(options: Namespace, work: Path) -> dict[str, Any]:
    """Print the tables and ratios."""
    folder = options.folder or work
    found: dict[str, Any] = {"whole": {}, "stages": {}, "batch": {}}
    for size in options.sizes:
        path = str(large_slide(folder, size))
        for draws in options.draws:
            key = f"{size:,}², {draws} tiles"
            found["whole"][key] = in_own_process(whole, path, draws, options.repeats)
            found["stages"][key] = in_own_process(stages, path, draws)
    _print_whole(found["whole"])
    kinds = [name for name in next(iter(found["stages"].values())) if name != "peak_mb"]
    rows = [[key, *(f"{one[name]:.3f}" for name in kinds)] for key, one in found["stages"].items()]
    print(f"\nclock by stage, seconds\n{table(['slide', *kinds], rows)}")
    for count in options.batch:
        taken = of_many(large_slide(folder, options.batch_size), count, work, options.what.split(","))
        found["batch"][str(count)] = taken
        print(
            f"\n{count} slides of {options.batch_size:,}²: {taken['1']:.1f} s with one process,"
            f" {taken['2']:.1f} with two"
        )
        print(f"ratio 1 process / 2 processes: {taken['1'] / taken['2']:.2f}x, target at least 1.9")
    found["start"] = [start(work) for _ in range(options.repeats)]
    middle = {name: statistics.median(one[name] for one in found["start"]) for name in ("end", "first result")}
    print(
        f"\nsix samples, whole process: {middle['end']:.1f} s, target 5 at most;"
        f" first result after {middle['first result']:.1f} s"
    )
    return found


def _print_whole(found: dict[str, dict[str, float]]) -> None:
    names = [name for name in next(iter(found.values())) if not name.endswith(", clock") and name != "peak_mb"]
    rows = [[key, *(f"{one[name]:.3f}" for name in names)] for key, one in found.items()]
    print(f"processor seconds a slide\n{table(['slide', *names], rows)}")
    for key, one in found.items():
        print(
            f"ratio default / tiles alone, {key}: {one['default'] / one['tiles alone']:.2f}x, target 1.3 at most;"
            f" besides the limit {one['default'] - one['limit']:.2f} s, target 0.35"
        )
    keys = [key for key in found if key.endswith(f", {min(int(k.split()[-2]) for k in found)} tiles")]
    if len(keys) > 1:
        base = keys[1] if len(keys) > 2 else keys[0]
        growth = found[keys[-1]]["tiles alone"] / found[base]["tiles alone"]
        print(f"growth from {base} to {keys[-1]}: {growth:.2f}x")


if __name__ == "__main__":
    parser = options_parser(__doc__, "slide_total", repeats=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 40_000, 100_000, 200_000])
    parser.add_argument("--draws", type=int, nargs="+", default=[16, 256])
    parser.add_argument("--batch", type=int, nargs="*", default=[8, 200], help="slides of the batches")
    parser.add_argument("--batch-size", type=int, default=40_000, help="pixels a side of their slides")
    parser.add_argument("--what", default="geojson,tiles,report", help="outputs of the batches")
    parser.add_argument("--folder", type=Path, help="where slides are kept between runs; a temporary one by default")
    parser.add_argument("--work", type=Path, help="folder for results [a temporary one]")
    run_and_save(parser, run)
