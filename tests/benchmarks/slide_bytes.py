"""The bytes that one slide's label asks of its file, and of nothing else, beside those that it needs.

    python tests/benchmarks/slide_bytes.py [--size 100000] [--draws 256] [--readers auto tiff openslide]

ATS with a small encoder and random weights, so that its tiles lie all over the tissue of a generated slide (256-px JPEG
tiles, 0.25 µm/px), in a new process for each reader: with `auto` the slide is the first of its kind. strace counts what
is read of the file itself; modules of Python and what lies in memory are left out. Needed are the tiles and the
overview, as the slide's counters say, and the tables of stored tiles.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import large_slide, options_parser, run_and_save
from one_slide import classified, model_folder

_COUNT = re.compile(r" = (\d+)$")


def asked(path: Path, model: Path, reader: str, work: Path) -> dict[str, Any]:
    """What a process of its own says of a slide, and the bytes that it asked of the file."""
    trace = work / "trace.txt"
    command = ["strace", "-f", "-y", "-qq", "-e", "trace=read,pread64", "-o", str(trace)]
    alone = [sys.executable, __file__, "--alone", str(path), str(model), reader]
    told = subprocess.run([*command, *alone], capture_output=True, text=True, check=True).stdout
    lines = [line for line in trace.read_text(encoding="utf-8", errors="replace").splitlines() if path.name in line]
    sizes = [int(found[1]) for found in map(_COUNT.search, lines) if found]
    one: dict[str, Any] = json.loads(told)
    return one | {"file_bytes": sum(sizes), "reads": len(sizes)}


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Print the bytes of each reader."""
    path = large_slide(folder, options.size)
    model = model_folder(folder, options.draws, "small")
    found = {reader: asked(path, model, reader, folder) for reader in options.readers}
    for reader, one in found.items():
        needed = one["bytes_counted"] + one["bytes_index"]
        print(
            f"{reader}: {one['file_bytes'] / 1e6:.2f} MB of {path.stat().st_size / 1e6:,.0f} asked in {one['reads']}"
            f" reads, {needed / 1e6:.2f} needed: {one['file_bytes'] / needed:.3f}x, target 1.15 at most"
        )
    return found


def main() -> None:
    """The command line; with --alone one slide is classified, and what it tells is printed as JSON."""
    if sys.argv[1:2] == ["--alone"]:
        path, model, reader = sys.argv[2:]
        print(json.dumps(classified(path, model, reader=reader)))
        return
    if shutil.which("strace") is None:
        sys.exit("slide_bytes needs strace")
    parser = options_parser(__doc__, "slide_bytes", repeats=1)
    parser.add_argument("--size", type=int, default=100_000, help="side of the slide in pixels")
    parser.add_argument("--draws", type=int, default=256, help="tiles that are read")
    parser.add_argument("--readers", nargs="+", default=["auto", "tiff", "openslide"])
    parser.add_argument("--work", type=Path, help="keeps the slide here for the next run")
    run_and_save(parser, run)


if __name__ == "__main__":
    main()
