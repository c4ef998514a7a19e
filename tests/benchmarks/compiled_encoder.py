"""Tiles a second of encoders in torch and compiled by OpenVINO, in turns, with as many threads as are given.

    python tests/benchmarks/compiled_encoder.py [--threads 1] [--encoders demo resnet18 efficientnet-lite0]

"demo" is the encoder of the shipped model, with its own tiles of 128 px; the others have random weights and tiles of
224 px, channels last as in a prediction. Both sides take what the model's preprocessing gives and return features. Also
shown: the largest difference of a feature, relative to the largest feature; seconds of the first use on a machine
(conversion, compiling, writing) and of the first use in a later process (loading), imports apart.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import torch
from common import in_turns, median, options_parser, ratio_line, run_and_save, table
from torch import nn

from wsi_attention import load_model
from wsi_attention.devices import openvino_version, placed
from wsi_attention.errors import WsiAttentionError
from wsi_attention.inference.compiled import CompiledEncoder
from wsi_attention.nn.encoders import TileEncoder
from wsi_attention.protocols import contract_of

CPU = torch.device("cpu")


def encoder_of(name: str) -> tuple[nn.Module, int]:
    """An encoder in eval mode, and the side of its tiles."""
    if name == "demo":
        encoder = contract_of(load_model("demo").model).encoder
        assert encoder is not None
        return placed(encoder, CPU), 128
    torch.manual_seed(0)
    return placed(TileEncoder(name=name).build().eval(), CPU), 224


def first_use(encoder: nn.Module, shape: tuple[int, ...]) -> float:
    """Seconds until an engine that was just made can compute."""
    start = time.perf_counter()
    CompiledEncoder(encoder).model(shape)
    return time.perf_counter() - start


def compare(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one encoder; prints them."""
    encoder, side = encoder_of(name)
    shape = (3, side, side)
    tiles = torch.rand(options.tiles, *shape).contiguous(memory_format=torch.channels_last)
    try:
        cold, warm = first_use(encoder, shape), first_use(encoder, shape)
    except WsiAttentionError as error:
        print(f"\n{name}: {error}")
        return {"error": str(error)}
    engine, processor = CompiledEncoder(encoder), dict[str, list[float]]()
    with torch.inference_mode():
        expected, found = encoder(tiles), engine(encoder, tiles)
        difference = float((found - expected).abs().max() / expected.abs().max())
        sides = {"torch": lambda: encoder(tiles), "openvino": lambda: engine(encoder, tiles)}
        seconds = in_turns(sides, options.repeats, processor=processor)
    print(f"\n{name}, {side} px, {options.threads} threads: relative difference {difference:.1g}")
    print(f"first use {cold:.1f} s, in a later process {warm:.2f} s")
    rows = [[one, *(f"{options.tiles / median(taken, one):.1f}" for taken in (seconds, processor))] for one in seconds]
    print(table(("side", "tiles/s", "tiles/cpu s"), rows))
    print("by the clock", ratio_line(seconds, "torch", "openvino"))
    print("of processor time", ratio_line(processor, "torch", "openvino"))
    uses = {"first_use": cold, "later_process": warm}
    return {"difference": difference, "clock": seconds, "processor": processor} | uses


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All encoders; compiled ones go to a folder of the run."""
    os.environ["XDG_CACHE_HOME"] = str(folder)
    torch.set_num_threads(options.threads)
    print("openvino", openvino_version(), "torch", torch.__version__)
    return {name: compare(name, options) for name in options.encoders} | {"openvino": openvino_version()}


def main() -> None:
    """The command line."""
    parser = options_parser(__doc__, "compiled_encoder", repeats=7)
    parser.add_argument("--encoders", nargs="+", default=["demo", "resnet18", "efficientnet-lite0"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tiles", type=int, default=16)
    parser.add_argument("--work", type=Path, help="keeps the compiled encoders here for the next run")
    run_and_save(parser, run)


if __name__ == "__main__":
    main()
