"""What every benchmark here shares: sides timed in turns, medians, ratios, facts on the machine, raw figures as JSON.

A side is a function that does the whole of what is measured. Sides take turns within one run, so that a busy machine
slows them alike; only ratios of one run are compared. Scripts import this as `from common import …`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "support"))

FIGURES = Path(__file__).parent / "figures"
PACKAGES = (
    "torch",
    "numpy",
    "openslide-python",
    "openslide-bin",
    "tiffslide",
    "tifffile",
    "imagecodecs",
    "zarr",
    "dask",
)

Side = Callable[[], object]
Seconds = dict[str, list[float]]


def options_parser(doc: str | None, name: str, repeats: int = 5) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have: --repeats, and --json, by default figures/NAME.json."""
    parser = argparse.ArgumentParser(description=(doc or name).splitlines()[0])
    parser.add_argument("--repeats", type=int, default=repeats, help=f"rounds, each side once a round [{repeats}]")
    parser.add_argument("--json", type=Path, default=FIGURES / f"{name}.json", help="where the raw figures go")
    return parser


def run_and_save(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace, Path], Any]) -> None:
    """Run a benchmark with its options in the folder that --work names, or in a temporary one; save its figures."""
    options, began = parser.parse_args(), machine()
    with TemporaryDirectory() as folder:
        save(options.json, options, run(options, options.work or Path(folder)), began)


def timed(side: Side) -> float:
    """Seconds that a side takes."""
    start = time.perf_counter()
    side()
    return time.perf_counter() - start


def in_turns(
    sides: Mapping[str, Side],
    repeats: int,
    before: Side | None = None,
    warm_up: bool = True,
    processor: Seconds | None = None,
) -> Seconds:
    """The seconds of every side in every round; the first side of a round changes from round to round.

    Args:
        sides: by name.
        repeats: rounds.
        before: done before each side, not timed, such as dropping the page cache.
        warm_up: whether every side runs once untimed first.
        processor: takes up the processor time of every side too, of this process and all its threads; other jobs on
            the machine disturb it less than the clock.
    """
    names = list(sides)
    for name in names if warm_up else ():
        sides[name]()
    seconds: Seconds = {name: [] for name in names}
    for turn in range(repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            if before is not None:
                before()
            used = time.process_time()
            seconds[name].append(timed(sides[name]))
            if processor is not None:
                processor.setdefault(name, []).append(time.process_time() - used)
    return seconds


def median(seconds: Seconds, name: str) -> float:
    """The median of a side's rounds."""
    return statistics.median(seconds[name])


def ratio(seconds: Seconds, slow: str, fast: str) -> tuple[float, float, float]:
    """How many times longer one side takes: median, smallest and largest over the rounds, each within its round."""
    found = [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]
    return statistics.median(found), min(found), max(found)


def ratio_line(seconds: Seconds, slow: str, fast: str, target: str = "") -> str:
    """One line: how many times longer `slow` takes than `fast`, the spread, and the target beside it."""
    middle, low, high = ratio(seconds, slow, fast)
    wanted = f", target {target}" if target else ""
    return f"ratio {slow} / {fast}: {middle:.3g}x ({low:.3g} to {high:.3g} over {len(seconds[fast])} rounds{wanted})"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns side by side, the first one to the left, numbers to the right."""
    cells = [[str(value) for value in row] for row in (head, *rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(head))]
    lines = [
        "  ".join(
            value.rjust(width) if k else value.ljust(width)
            for k, (value, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join(lines)


def in_own_process(side: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What `side(*arguments)` returns in a spawned process, with that process's peak memory as `peak_mb`.

    Raises:
        RuntimeError: the process ended without an answer.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, side, arguments))
    process.start()
    sender.close()
    try:
        figures: dict[str, Any] = receiver.recv()
    except EOFError as error:
        raise RuntimeError(f"{side} ended without an answer; its message is above") from error
    finally:
        process.join()
    return figures


def _send(sender: Any, side: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
    figures = side(*arguments)
    sender.send(figures | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})


def large_slide(folder: Path, size: int, suffix: str = ".svs", coverage: float = 0.4, seed: int = 1) -> Path:
    """A generated slide of `size`² pixels at 0.25 µm/px, 256-px JPEG tiles, four levels; made once a folder."""
    from slide_mosaic import write_large_slide

    from wsi_attention.testing.slides import SlideSpec

    path = folder / f"giant-{size}-{coverage:g}-{seed}{suffix}"
    if not path.exists():
        spec = SlideSpec((size, size), mpp=0.25, seed=seed, label="lesion", coverage=coverage, quality=80)
        write_large_slide(path, spec)
    return path


def drop_cache(path: Path) -> None:
    """Ask the system to forget the pages it holds of a file, so that the next read is cold."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores, memory, load over the last minute, system, versions, date."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_1_min": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _named(value: object) -> object:
    """An option without the folders of this machine."""
    if isinstance(value, list):
        return [_named(one) for one in value]
    return value.name if isinstance(value, Path) else value


def save(path: Path, options: argparse.Namespace, figures: Mapping[str, Any], began: Mapping[str, Any]) -> None:
    """Write the raw figures with the options and the machine as it was at the beginning (`machine()`) and is now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    asked = {name: _named(value) for name, value in vars(options).items()}
    load = round(os.getloadavg()[0], 2)
    content = {"machine": dict(began) | {"load_1_min_after": load}, "options": asked, "figures": figures}
    path.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")
    print(f"machine: {began['cores']} cores, load {began['load_1_min']} before, {load} after; figures: {path}")
