"""A batch of slides with one worker and with several: worker processes, and threads of one process.

    OMP_NUM_THREADS=1 python tests/benchmarks/batch_workers.py [--slides 200] [--workers 1 2] [--repeats 3]

Generated slides, all exports, a results folder of its own for every side and round. Worker processes are started and
have imported torch before the clock starts; how long that takes is told beside it. More workers than cores, or torch
with several threads each, make the run compute-bound: then no ratio is to be expected.
"""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import in_turns, machine, median, options_parser, ratio, ratio_line, save, table

from wsi_attention import load_model
from wsi_attention.inference.batch.classify import classify
from wsi_attention.inference.cluster.open import open_cluster
from wsi_attention.testing.slides import SlideSpec, write_slide

DISTINCT = 20
"""Slides that are painted; the others are copies under other names, which costs the batch the same."""


def paint(folder: Path, size: int, seed: int) -> None:
    """One slide of `size`² pixels."""
    write_slide(folder / f"slide_{seed:03}.svs", SlideSpec((size, size), seed=seed, label="lesion"))


def slides(folder: Path, count: int, size: int) -> Path:
    """A folder of `count` slides."""
    folder.mkdir(parents=True)
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(partial(paint, folder, size), range(min(DISTINCT, count))))
    for number in range(DISTINCT, count):
        shutil.copyfile(folder / f"slide_{number % DISTINCT:03}.svs", folder / f"slide_{number:03}.svs")
    return folder


def batch(folder: Path, out: Path, **how: Any) -> None:
    """All slides into an empty results folder."""
    shutil.rmtree(out, ignore_errors=True)
    report = classify([folder], out, load_model("demo"), device="cpu", **how)
    if report.failures or report.kept:
        raise RuntimeError(f"{len(report.failures)} slides failed, {report.kept} were there")


def main() -> None:
    """Prints seconds and ratios."""
    parser = options_parser(__doc__, "batch_workers", repeats=3)
    parser.add_argument("--slides", type=int, default=200)
    parser.add_argument("--size", type=int, default=2048, help="pixels a side [2048]")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    began = machine()
    with TemporaryDirectory() as folder, ExitStack() as stack:
        root, sides, starts = Path(folder), {}, {}
        given = slides(root / "slides", options.slides, options.size)
        for number in options.workers:
            start = time.perf_counter()
            cluster = stack.enter_context(open_cluster(local=number, device="cpu"))
            starts[number] = time.perf_counter() - start
            sides[f"{number} processes"] = partial(batch, given, root / f"processes{number}", executor=cluster)
            sides[f"{number} threads"] = partial(batch, given, root / f"threads{number}", workers=number)
        seconds = in_turns(sides, options.repeats)
    rows = [[name, f"{median(seconds, name):.1f}", f"{options.slides / median(seconds, name):.1f}"] for name in sides]
    print(table(["workers", "s", "slides/s"], rows))
    first = options.workers[0]
    more = [(f"{first} {kind}", f"{n} {kind}") for kind in ("processes", "threads") for n in options.workers[1:]]
    for slow, fast in more:
        print(ratio_line(seconds, slow, fast, "1.7" if fast.startswith("2 ") else ""))
    print(f"start of the worker processes: {', '.join(f'{n}: {taken:.1f} s' for n, taken in starts.items())}")
    figures = {"seconds": seconds, "start_seconds": starts, "torch_threads": torch.get_num_threads()}
    figures |= {"ratios": {f"{slow} / {fast}": ratio(seconds, slow, fast) for slow, fast in more}}
    save(options.json, options, figures, began)


if __name__ == "__main__":
    main()
