"""What worker processes cost: the whole command on many small slides, with them and without.

    OMP_NUM_THREADS=1 python tests/benchmarks/isolation.py [--slides 200] [--size 1024] [--repeats 5]

Whole commands in turns, each into an empty results folder, all exports. The same command on one slide tells the start
apart: what is left is what a slide costs. Most of the memory of worker processes is shared; it is told as the sum of
what each has for itself plus its part of what is shared (PSS).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from batch_workers import slides
from common import in_turns, median, options_parser, ratio, ratio_line, run_and_save, table

COMMAND = [sys.executable, "-c", "from wsi_attention.cli import main; main()", "classify", "-m", "demo"]
SIDES = {"processes": [], "in process": ["--in-process"]}


def command(given: Path, out: Path, *more: str) -> list[str]:
    """The command on a folder or slide, into a folder that is empty then."""
    shutil.rmtree(out, ignore_errors=True)
    return [*COMMAND, "-i", str(given), "-o", str(out), "--device", "cpu", *more]


def whole(given: Path, out: Path, *more: str) -> None:
    """Run the command."""
    subprocess.run(command(given, out, *more), check=True, stdout=subprocess.DEVNULL)


def memory(given: Path, out: Path, *more: str) -> float:
    """The most memory in MB that the command and its processes have at a time."""
    run = subprocess.Popen(command(given, out, *more), stdout=subprocess.DEVNULL)
    peak, over = 0.0, threading.Event()
    while run.poll() is None and not over.wait(0.2):
        try:
            family = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
            peak = max(peak, sum(one.memory_full_info().pss for one in family) / 2**20)
        except psutil.Error:  # one has just ended
            continue
    return peak


def figures(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time both sides and print the ratio."""
    given = slides(folder / "slides", options.slides, options.size)
    one = sorted(given.iterdir())[0]
    sides = {name: partial(whole, given, folder / name, *more) for name, more in SIDES.items()}
    starts = {f"{name}, one slide": partial(whole, one, folder / name, *more) for name, more in SIDES.items()}
    seconds = in_turns(sides | starts, options.repeats)
    peaks = {name: memory(given, folder / name, *more) for name, more in SIDES.items()}
    rows = []
    for name in SIDES:
        all_of_it, start = median(seconds, name), median(seconds, f"{name}, one slide")
        each = (all_of_it - start) / (options.slides - 1)
        rows.append([name, f"{all_of_it:.1f}", f"{start:.1f}", f"{each * 1000:.0f}", f"{peaks[name]:.0f}"])
    print(table(["slides are done", "s", "s, one slide", "ms a further slide", "MB"], rows))
    print(ratio_line(seconds, "processes", "in process", "1.05"))
    print(ratio_line(seconds, "processes, one slide", "in process, one slide"))
    return {"seconds": seconds, "peak_mb": peaks, "ratio": ratio(seconds, "processes", "in process")}


def main() -> None:
    """Print seconds, ratios and memory."""
    parser = options_parser(__doc__, "isolation", repeats=5)
    parser.add_argument("--slides", type=int, default=200)
    parser.add_argument("--size", type=int, default=1024, help="pixels a side [1024]")
    parser.add_argument("--work", type=Path, help="folder for slides and results")
    run_and_save(parser, figures)


if __name__ == "__main__":
    main()
