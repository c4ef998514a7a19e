"""A slide label by wsi-attention beside the exhaustive pipelines of LazySlide, WSInfer and tiatoolbox, same encoder.

    python tests/benchmarks/peers.py --lazyslide PYTHON --wsinfer PYTHON --tiatoolbox PYTHON [--full lazyslide]

Each peer runs its own documented pipeline from the file to slide features and a label in a process of its own, by
`peers/NAME_driver.py`; ours is all that `wsi-attention classify` does, exports included. Everybody encodes 256-px
tiles at 0.25 µm/px of the same generated JPEG slide (40 % tissue) by the same ResNet-18 with the same random weights,
on as many threads as OMP_NUM_THREADS allows; peers load tiles with --workers processes beside that.

The peers encode every tissue tile, so they run whole on a smaller slide, and the large slide is computed: finding
tissue and placing tiles measured on it, encoding scaled by the number of tiles. `--full NAME` measures it instead.
Ours runs on the large slide before and after every run of a peer. Ratios are told by the clock and by processor time;
other jobs on the machine disturb the second less.

PYTHON is the interpreter of an environment of the peer's own; a peer without one is left out. To make them:

    python -m venv lazyslide && lazyslide/bin/pip install torch==2.13.0 lazyslide==0.13.0 openslide-bin
    python -m venv wsinfer && wsinfer/bin/pip install torch==2.13.0 torchvision==0.28.0 wsinfer==0.6.1 'zarr<3'
      'tifffile<2025.5' tiffslide==2.5.1 openslide-python openslide-bin
    python -m venv tiatoolbox && tiatoolbox/bin/pip install torch==2.13.0
    tiatoolbox/bin/pip install --no-deps torchvision==0.28.0 tiatoolbox==2.1.3
    tiatoolbox/bin/pip install psutil and what tiatoolbox asks for except torch, torchvision, jupyterlab and sphinx

Its drivers let torchvision's GPU build load beside a CPU build of torch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from common import large_slide, machine, options_parser, save
from peers_report import Figures, report, show

HERE = Path(__file__).parent / "peers"
PEERS = ("lazyslide", "wsinfer", "tiatoolbox")


def make_weights(folder: Path) -> Path:
    """A random ResNet-18 with two classes under torchvision's names."""
    import torch

    from wsi_attention.nn.resnet import ResNet18

    torch.manual_seed(0)
    encoder, head = ResNet18().state_dict(), torch.nn.Linear(512, 2).state_dict()
    path = folder / "weights.pt"
    torch.save({**encoder, **{f"fc.{name}": value for name, value in head.items()}}, path)
    return path


def make_model(folder: Path, weights: Path, tiles: int) -> Path:
    """A model folder of ours that reads so many tiles and encodes them by the same network."""
    import torch

    from wsi_attention.checkpoint import build_model, save_model
    from wsi_attention.model_card import ModelCard

    arguments = {"tile_size": 256, "tile_mpp": 0.25, "overview_mpp": 8.0, "encoder": "resnet18", "draws": tiles}
    torch.manual_seed(0)
    model = build_model("ats", 2, **arguments)
    model.encoder.load_backbone(torch.load(weights, weights_only=True))  # type: ignore[union-attr,operator]
    save_model(folder / f"model-{tiles}", model, ModelCard("ats", arguments, ("benign", "lesion")))
    return folder / f"model-{tiles}"


def driven(python: str, name: str, slide: Path, weights: Path, *more: str) -> Figures:
    """What a driver tells, with the seconds of its whole process.

    Raises:
        RuntimeError: it failed; the end of what it said is told.
    """
    with TemporaryDirectory() as out:
        command = [python, str(HERE / f"{name}_driver.py"), str(slide), str(weights), out, *more]
        start = time.perf_counter()
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
    if run.returncode:
        raise RuntimeError(f"{name} failed:\n{run.stderr[-2000:]}")
    figures: Figures = json.loads(run.stdout.strip().splitlines()[-1])
    return figures | {"process_seconds": seconds}


def rounds(options: argparse.Namespace, folder: Path) -> Figures:
    """All runs: of each peer between two of ours, round after round."""
    from reader_sides import StoredTiles

    large, small = large_slide(folder, options.size), large_slide(folder, options.small)
    tissue = len(StoredTiles(large).tissue) / len(StoredTiles(small).tissue)
    weights = make_weights(folder)
    models = {f"K={tiles}": make_model(folder, weights, tiles) for tiles in options.budgets}
    found: Figures = {"tissue_tiles_ratio": tissue, "peers": {}}

    def ours() -> Figures:
        runs = {name: driven(sys.executable, "ours", large, model) for name, model in models.items()}
        last = list(models)[-1]
        return runs | {f"{last} float32": driven(sys.executable, "ours", large, models[last], "--float32")}

    for name in (name for name in PEERS if there(options, name)):
        run = partial(driven, getattr(options, name), name)
        try:
            found["peers"][name] = beside(run, ours, large, small, weights, options, name)
        except RuntimeError as error:  # one peer that fails must not cost the others' runs
            print(error)
    return found


def beside(
    run: Callable[..., Figures],
    ours: Callable[[], Figures],
    large: Path,
    small: Path,
    weights: Path,
    options: argparse.Namespace,
    name: str,
) -> Figures:
    """One peer: finding tissue on the large slide, then rounds of its whole run between two of ours."""
    more = ("--workers", str(options.workers))
    peer: Figures = {"ahead": run(large, weights, *more, "--prepare-only"), "rounds": []}
    for _ in range(options.repeats):
        one = {"ours_before": ours(), "small": run(small, weights, *more), "ours_after": ours()}
        peer["rounds"].append(one)
        show(name, one)
    if name in options.full:
        peer["full"] = {"ours_before": ours(), "large": run(large, weights, *more), "ours_after": ours()}
    return peer


def there(options: argparse.Namespace, name: str) -> bool:
    """Tell whether a peer has an environment here; say so if not."""
    python = getattr(options, name)
    if python is None or not Path(python).exists():
        print(f"{name}: left out, no interpreter given; the top of {Path(__file__).name} says how to make one")
    return python is not None and Path(python).exists()


def main() -> None:
    """The command line."""
    parser = options_parser(__doc__, "peers", repeats=2)
    for name in PEERS:
        parser.add_argument(f"--{name}", help=f"python of {name}'s environment")
    parser.add_argument("--size", type=int, default=40_000)
    parser.add_argument("--small", type=int, default=10_240, help="side of the slide that peers run on whole")
    parser.add_argument("--full", nargs="*", choices=PEERS, default=[], help="peers to run on the large slide too")
    parser.add_argument("--budgets", type=int, nargs="+", default=[64, 256], help="tiles that ours reads")
    parser.add_argument("--workers", type=int, default=2, help="processes in which peers load tiles")
    parser.add_argument("--work", type=Path, help="keeps the slides here for the next run")
    options = parser.parse_args()
    began = machine()
    with TemporaryDirectory() as folder:
        found = rounds(options, options.work or Path(folder))
    report(found, options)
    for name in PEERS:
        delattr(options, name)
    save(options.json, options, found, began)


if __name__ == "__main__":
    main()
