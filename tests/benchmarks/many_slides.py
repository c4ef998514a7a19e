"""Thousands of tiny slides in one batch: memory, open handles, what the table costs, how long a second run takes.

    OMP_NUM_THREADS=1 python tests/benchmarks/many_slides.py [--slides 1000 5000] [--in-process] [--json FILE]

Twenty slides are painted, the others are copies under other names. The model is untrained and reads eight tiles of 32
pixels, so that what the batch itself costs is seen. Every run is a process of its own; memory and handles are those of
the process and its children, the process's own apart.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from argparse import Namespace
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import torch
from common import options_parser, run_and_save, table

from wsi_attention import load_model
from wsi_attention.checkpoint import build_model, save_model
from wsi_attention.inference.batch import classify as batch
from wsi_attention.inference.results.folder import Results
from wsi_attention.model_card import ModelCard
from wsi_attention.testing.slides import SlideSpec, write_slide

DISTINCT = 20
SIDE = 512
EARLY = 0.2
"""The share of the slides after which growth is counted; imports, caches and threads are there by then."""


def slides(folder: Path, count: int) -> Path:
    """A folder of `count` slides in folders of a hundred."""
    folder.mkdir(parents=True)
    painted = [folder.parent / f"painted_{seed}.svs" for seed in range(DISTINCT)]
    for seed, path in enumerate(painted):
        if not path.exists():
            write_slide(path, SlideSpec((SIDE, SIDE), seed=seed, label="lesion"))
    for number in range(count):
        place = folder / f"{number // 100:03}" / f"slide_{number:05}.svs"
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(painted[number % DISTINCT], place)
    return folder


def model(folder: Path) -> Path:
    """An untrained model with two classes."""
    arguments = {"tile_size": 32, "overview_mpp": 4.0, "draws": 8, "encoder_widths": [8, 8, 8], "features": 16}
    arguments |= {"attention_widths": [8, 8]}
    torch.manual_seed(0)
    card = ModelCard(method="ats", classes=("benign", "lesion"), arguments=arguments)
    save_model(folder, build_model("ats", 2, **arguments), card)
    return folder


class Watch:
    """Called for every slide: takes down memory and handles now and then."""

    def __init__(self) -> None:
        self.samples: list[tuple[int, float, float, int]] = []
        self._process = psutil.Process()

    def __call__(self, name: str, done: int, total: int) -> None:
        """A sample of (slides done, own MB, MB of the family, open handles of the family), a hundred in all."""
        if done % max(1, total // 100):
            return
        family = [self._process, *self._process.children(recursive=True)]
        sizes, handles = [], 0
        for one in family:
            try:
                sizes.append(one.memory_info().rss / 1e6)
                handles += one.num_fds()
            except psutil.Error:  # a child that has just ended
                continue
        self.samples.append((done, sizes[0], sum(sizes), handles))


def measured(folder: str, out: str, weights: str, what: list[str], in_process: bool) -> dict[str, Any]:
    """One run in a fresh process."""
    spent: list[float] = []
    rows: list[int] = []
    write_table = Results.write_table

    def timed(self: Results) -> None:
        start = time.perf_counter()
        write_table(self)
        spent.append(time.perf_counter() - start)
        rows.append(len(self.states))

    Results.write_table = timed  # type: ignore[method-assign]
    watch, classifier = Watch(), load_model(weights)
    start = time.perf_counter()
    report = batch.classify([folder], out, classifier, device="cpu", what=what, watch=watch, in_process=in_process)
    seconds = time.perf_counter() - start
    found = {"seconds": seconds, "statuses": dict(report.statuses), "kept": report.kept}
    found |= {"table_seconds": sum(spent), "tables": len(spent), "rows": sum(rows)}
    return found | {"samples": watch.samples}


def growth(samples: list[tuple[int, float, float, int]], column: int) -> float:
    """How much a value grew from the first fifth of the slides to the end, in medians of ten samples."""
    values = [float(sample[column]) for sample in samples]
    early = values[int(len(values) * EARLY) :][:10]
    return sorted(values[-10:])[len(values[-10:]) // 2] - sorted(early)[len(early) // 2]


def run(options: Namespace, work: Path) -> dict[str, Any]:
    """All counts, first run and second run each."""
    found: dict[str, Any] = {}
    weights, what, rows = model(work / "model"), options.what.split(","), []
    for count in options.slides:
        given, out = slides(work / f"slides{count}", count), work / f"out{count}"
        figures = {}
        for name in ("first", "second"):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                asked = str(given), str(out), str(weights), what, options.in_process
                figures[name] = pool.submit(measured, *asked).result()
        found[str(count)] = figures
        first, second = figures["first"], figures["second"]
        assert second["kept"] == count, second
        peak = max(sample[1] for sample in first["samples"])
        handles = max(sample[3] for sample in first["samples"])
        rows.append(
            [
                str(count),
                f"{first['seconds']:.0f}",
                f"{peak:.0f}",
                f"{growth(first['samples'], 1):+.1f} ({growth(first['samples'], 2):+.1f})",
                f"{handles} ({growth(first['samples'], 3):+.0f})",
                f"{first['table_seconds']:.2f} ({first['tables']})",
                f"{first['rows'] / count:.1f}",
                f"{second['seconds']:.1f}",
            ]
        )
        shutil.rmtree(given)
        shutil.rmtree(out)
    names = ["slides", "s", "peak MB", "MB grown (all processes)", "handles (grown)"]
    names += ["table s (times)", "times a row", "second run s"]
    print(table(names, rows))
    return found


if __name__ == "__main__":
    parser = options_parser(__doc__, "many_slides", repeats=1)
    parser.add_argument("--slides", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--what", default="geojson,tiles,report")
    parser.add_argument("--in-process", action="store_true", help="do the slides in threads of the process itself")
    parser.add_argument("--work", type=Path, help="folder for slides and results [a temporary one]")
    run_and_save(parser, run)
