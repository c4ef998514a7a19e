"""What the drivers of the peers share; runs in each peer's own environment, so it knows torch and torchvision only.

A driver is called as `python NAME_driver.py SLIDE WEIGHTS OUT [--workers N] [--prepare-only]` and prints one line of
JSON last: seconds to import, to prepare (open, find tissue, place tiles) and to encode, by the clock and of processor
time (its own and its workers'); the tiles; the slide's probabilities.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

TILE, MPP, CLASSES = 256, 0.25, ("benign", "lesion")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def options() -> argparse.Namespace:
    """The arguments of a driver."""
    parser = argparse.ArgumentParser()
    parser.add_argument("slide", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--prepare-only", action="store_true", help="stop before the first tile is encoded")
    return parser.parse_args()


def let_torchvision_load() -> None:
    """Declares two operators of torchvision that its GPU build misses beside a CPU build of torch; else nothing.

    Only their schemas are needed for the import; what computes them is never called here.
    """
    import torch

    if torch.version.cuda is not None:
        return
    global _LIBRARY
    _LIBRARY = torch.library.Library("torchvision", "DEF")  # kept: its schemas go when it goes
    for name in ("nms", "qnms"):
        _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def network(weights: Path) -> Any:
    """ResNet-18 with two classes, torchvision's, with the given weights, in eval mode."""
    import torch
    from torchvision.models import resnet18

    model = resnet18(weights=None, num_classes=len(CLASSES))
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


class Clock:
    """Seconds, and seconds of processor time, from one mark to the next."""

    def __init__(self) -> None:
        self._at = time.perf_counter(), processor_seconds()
        self.marks: dict[str, float] = {}

    def mark(self, name: str) -> None:
        """End the stretch of that name."""
        now = time.perf_counter(), processor_seconds()
        self.marks[f"{name}_seconds"], self.marks[f"{name}_cpu"] = now[0] - self._at[0], now[1] - self._at[1]
        self._at = now


def processor_seconds() -> float:
    """Processor time of this process and of its workers that have ended; unlike the clock it knows no other jobs."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def tell(package: str, clock: Clock, tiles: int, probabilities: list[float]) -> None:
    """Print the figures as one line of JSON."""
    import torch

    used = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    names = (package, "torch", "numpy")
    figures = {"tiles": tiles, "probabilities": probabilities, "threads": torch.get_num_threads()}
    figures |= clock.marks | {"peak_mb": max(used), "python": platform.python_version()}
    print(json.dumps(figures | {"versions": {name: version(name) for name in names}}))
