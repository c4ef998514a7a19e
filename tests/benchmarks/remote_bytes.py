"""What one slide costs over HTTP: bytes, requests and seconds for 256 tiles of a slide of 100,000² pixels.

    python tests/benchmarks/remote_bytes.py [--size 100000] [--draws 256] [--latency 50] [--encoder small]

The server is a process of its own that counts what it sends; sides take turns: the local file, the server, the server
with so many milliseconds before each answer, the same taking one range by request and saying so in a header as S3 does,
the same without the header, which a first try has to find out, and a second run with a cache folder. Every side is a
process of its own. At the end: how few requests could fetch these tiles one range by request, for so many bytes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import in_own_process, large_slide, machine, options_parser, save, table
from one_slide import classified, model_folder

SERVERS = Path(__file__).resolve().parents[1] / "slide" / "servers.py"
MOST_MB, MOST_REQUESTS, FEW = 8, 100, 64
CACHE = "WSI_ATTENTION_CACHE"


class Counted:
    """A running server: its address, and what it sent since it was last asked."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._line().strip()

    def counts(self) -> dict[str, int]:
        """Requests and bytes since the last call."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, int] = json.loads(self._line())
        return found

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def server(folder: Path, **manners: Any) -> Iterator[Counted]:
    """Serves a folder from a process that ends with the block."""
    command = [sys.executable, str(SERVERS), str(folder), json.dumps(manners)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Counted(process)
        assert process.stdin is not None
        process.stdin.close()


def over_http(path: Path, model: Path, cache: Path | None = None, **manners: Any) -> dict[str, Any]:
    """One slide from a server; with a cache folder the second of two runs."""
    with server(path.parent, **manners) as running:
        os.environ[CACHE] = str(cache or "")
        url = f"{running.address}/{path.name}"
        if cache:
            in_own_process(classified, url, str(model))
        running.counts()
        try:
            return in_own_process(classified, url, str(model)) | running.counts()
        finally:
            del os.environ[CACHE]


def main() -> None:
    """Make the slide and the model, run all sides in turns, print the table and the targets."""
    parser = options_parser(__doc__, "remote_bytes", repeats=1)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--draws", type=int, default=256)
    parser.add_argument("--latency", type=float, default=50.0, help="milliseconds before each answer [50]")
    parser.add_argument("--encoder", default="small", help="of the tiles: small, resnet18 … [small]")
    parser.add_argument("--folder", type=Path, help="where slides are kept between runs; a temporary one by default")
    options = parser.parse_args()
    began, slow = machine(), options.latency / 1000
    rounds = []
    with TemporaryDirectory() as name:
        path = large_slide(options.folder or Path(name) / "slides", options.size)
        model = model_folder(Path(name), options.draws, options.encoder, overview_mpp=16.0, attention_widths=(24, 48))
        size = path.stat().st_size
        for _ in range(options.repeats):
            rounds.append(one_round(path, model, Path(name), slow))
        least = frontier(path, model)
    report(rounds, size, options.latency)
    shown = [count for count in (256, 250, 240, 220, 200, 128, FEW) if count in least]
    print("tiles by so many requests of one range, at least: " + ", ".join(f"{n}: {least[n]:.1f} MB" for n in shown))
    save(options.json, options, {"file_bytes": size, "rounds": rounds}, began)


def one_round(path: Path, model: Path, folder: Path, slow: float) -> dict[str, dict[str, Any]]:
    """Every side once."""
    with TemporaryDirectory(dir=folder) as cache:
        return {
            "local file": in_own_process(classified, str(path), str(model)),
            "http": over_http(path, model),
            "http, slow": over_http(path, model, latency=slow),
            "http, slow, one range": over_http(path, model, latency=slow, several=False, header="x-amz-request-id"),
            "http, slow, one range, unsaid": over_http(path, model, latency=slow, several=False),
            "http, slow, cached": over_http(path, model, Path(cache), latency=slow),
        }


def frontier(path: Path, model: Path) -> dict[int, float]:
    """The fewest MB that fetch all tiles of the prediction by so many requests of one range each, gaps included."""
    from wsi_attention import load_model, open_slide
    from wsi_attention.inference.predict import predict
    from wsi_attention.slide.readers.tiff.reader import TiffReader

    with open_slide(path, reader="tiff") as slide:
        tiles = predict(slide, load_model(model)).glimpses[0].tiles
    level = TiffReader(str(path)).levels[0]
    columns, rows = (tiles.locations[0] // 256).T
    numbers = sorted(set((rows * level.columns + columns).tolist()), key=level.offsets.__getitem__)
    ranges = [(int(level.offsets[number]), int(level.counts[number])) for number in numbers]
    gaps = sorted(after[0] - sum(before) for before, after in pairwise(ranges))
    wanted = sum(count for _, count in ranges)
    sums = [0, *accumulate(gaps)]
    return {len(ranges) - joined: (wanted + sums[joined]) / 1e6 for joined in range(len(ranges))}


def report(rounds: list[dict[str, dict[str, Any]]], size: int, latency: float) -> None:
    """Print the first round and the targets."""
    first = rounds[0]
    rows = [
        (
            name,
            f["tiles"],
            f.get("requests", "-"),
            f"{f.get('bytes', 0) / 1e6:.2f}" if "bytes" in f else "-",
            *(f"{f[part]:.2f}" for part in ("open", "overview_and_tissue", "look", "seconds")),
        )
        for name, f in first.items()
    ]
    print(f"file of {size / 1e6:,.0f} MB; slow: {latency:g} ms before each answer; reader {first['http']['reader']}")
    print(table(("side", "tiles", "requests", "MB", "open s", "overview s", "look s", "all s"), rows))
    for name in ("http", "http, slow, one range"):
        figures = first[name]
        print(f"{name}: {figures['bytes'] / 1e6:.2f} MB (target {MOST_MB}), {figures['requests']} requests", end="")
        print(f" (target {MOST_REQUESTS}), {figures['bytes'] / size:.2%} of the file")
    print(f"ratio http, slow / local file: {first['http, slow']['seconds'] / first['local file']['seconds']:.2f}x")


if __name__ == "__main__":
    main()
