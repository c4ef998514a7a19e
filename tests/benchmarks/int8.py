"""What int8 saves a tile encoder and what it costs the model: tiles a second, and AUROC on slides, beside float32.

    python tests/benchmarks/int8.py --model MODEL --train SLIDES --slides SLIDES [--labels labels.csv] [--most 60]

The model is copied, its encoder quantised from some slides of its training set as `wsi-attention quantise` does it,
and slides that it has not learnt from are classified twice, in float32 and in int8, with the same draws. Shown are the
AUROC of both and their difference with a 95 % interval over patients, labels that changed, and the largest change of a
probability. Tiles a second are those of torch, of OpenVINO in float32 and of int8, in turns, on the tiles of one slide.
labels.csv has the columns slide and label, by default beside the slides. The second part needs no slides to be labelled
and is done alone with `--encoders`: published networks with random weights, quantised from noise.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import in_turns, median, options_parser, ratio_line, run_and_save, table
from torch import Tensor

from wsi_attention import load_model, open_slide
from wsi_attention.checkpoint import Classifier, build_model, save_model
from wsi_attention.csv_table import read_table
from wsi_attention.devices import openvino_version, placed
from wsi_attention.inference import find_slides
from wsi_attention.inference.compiled import CompiledEncoder
from wsi_attention.inference.predict import predict
from wsi_attention.inference.quantise import quantise, quantised_from
from wsi_attention.inference.quantised import Quantised, quantised
from wsi_attention.model_card import ModelCard
from wsi_attention.protocols import contract_of
from wsi_attention.statistics.comparison import auroc_difference
from wsi_attention.tiles.source import SlideSource

CPU = torch.device("cpu")


def speed(model: Classifier, made: Quantised, pixels: Tensor, repeats: int) -> dict[str, Any]:
    """Tiles a second of the three sides, of processor time and by the clock; prints them."""
    contract = contract_of(placed(model.model, CPU))
    encoder = contract.encoder
    assert encoder is not None
    tiles = contract.preprocess(pixels)
    plain, int8 = CompiledEncoder(encoder), CompiledEncoder(encoder, compiling=made.compiled)
    sides = {
        "torch": lambda: encoder(tiles),
        "openvino": lambda: plain(encoder, tiles),
        "int8": lambda: int8(encoder, tiles),
    }
    processor: dict[str, list[float]] = {}
    with torch.inference_mode():
        seconds = in_turns(sides, repeats, processor=processor)
    rows = [[one, *(f"{len(tiles) / median(taken, one):.1f}" for taken in (seconds, processor))] for one in seconds]
    print(f"\n{model.name}, {tiles.shape[-1]} px, {torch.get_num_threads()} threads; {made.why}")
    print(table(("side", "tiles/s", "tiles/cpu s"), rows))
    for slow in ("torch", "openvino"):
        print("of processor time", ratio_line(processor, slow, "int8"))
    return {"clock": seconds, "processor": processor, "likeness": made.likeness}


def loss(model: Classifier, options: argparse.Namespace) -> dict[str, Any]:
    """AUROC in float32 and in int8 on the same slides with the same draws; prints them."""
    rows = [row for _, row in read_table(options.labels or options.slides / "labels.csv").rows]
    by_label = [[row for row in rows if row["label"] == name] for name in model.classes]
    chosen = [row for of_class in by_label for row in of_class[: options.most // len(by_label)]]
    truth = np.array([model.classes.index(row["label"]) for row in chosen])
    plain, int8 = (
        np.array(
            [predict(options.slides / row["slide"], model, device="cpu", precision=how).probabilities for row in chosen]
        )
        for how in ("32", "int8")
    )
    found = auroc_difference(int8, plain, truth)
    changed = int((plain.argmax(1) != int8.argmax(1)).sum())
    print(f"\n{len(chosen)} slides, AUROC in float32 {found.second:.4f}, in int8 {found.first:.4f}")
    print(f"difference {found.value:+.4f} ({found.interval[0]:+.4f} to {found.interval[1]:+.4f})")
    print(f"labels that changed: {changed}; largest change of a probability {np.abs(plain - int8).max():.4f}")
    return {"truth": truth.tolist(), "32": plain.tolist(), "int8": int8.tolist()}


def of_model(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Speed and loss of a trained model."""
    copy = Path(shutil.copytree(options.model, folder / options.model.name, dirs_exist_ok=True))
    model = load_model(copy)
    train = [slide.path for slide in find_slides([options.train]).slides]
    used = train[:: max(1, len(train) // options.calibrate)][: options.calibrate]
    quantise(model, used)
    with open_slide(used[0]) as slide:
        seen = predict(slide, model, device="cpu", precision="32").glimpses[-1].tiles
        pixels = SlideSource(slide).read(seen.select(slice(0, 32))).pixels[0]
    return {"speed": speed(model, quantised(model), pixels, options.repeats), "loss": loss(model, options)}


def of_encoder(name: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Speed of a network with random weights."""
    arguments = {"encoder": name, "tile_size": 224, "tile_mpp": 0.5}
    torch.manual_seed(0)
    save_model(
        folder / name,
        build_model("ats", 2, **arguments),
        ModelCard(method="ats", classes=("a", "b"), arguments=arguments),
    )
    model = load_model(folder / name)
    noise = torch.randint(0, 256, (20, 3, 224, 224), dtype=torch.uint8)
    return speed(model, quantised_from(model, noise, 0), noise[:8], options.repeats)


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What was asked for."""
    torch.set_num_threads(options.threads)
    print("openvino", openvino_version(), "torch", torch.__version__)
    found = {name: of_encoder(name, options, folder) for name in options.encoders}
    return found | ({"model": of_model(options, folder)} if options.model else {})


def main() -> None:
    """The command line."""
    parser = options_parser(__doc__, "int8", repeats=7)
    for name in ("model", "train", "slides", "labels", "work"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--encoders", nargs="*", default=[])
    parser.add_argument("--calibrate", type=int, default=12, help="slides of the training set")
    parser.add_argument("--most", type=int, default=60, help="slides to classify, as many of each class")
    parser.add_argument("--threads", type=int, default=1)
    run_and_save(parser, run)


if __name__ == "__main__":
    main()
