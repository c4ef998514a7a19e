"""bfloat16 against float32: how much faster, and how far the probabilities move.

Speed: a ResNet-18 and a small vision transformer on 224-px tiles, as `nn.bags.encode` runs them, in four forms.
Change: the sample slides with the demo model, and with random weights of every method; per slide the largest change of
a class's probability, and whether the label stays.

    python tests/benchmarks/precision.py
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Seconds, in_turns, machine, median, options_parser, ratio, ratio_line, save, table
from torch import nn

from wsi_attention import load_model, open_slide, predict
from wsi_attention.checkpoint import Classifier, build_model
from wsi_attention.devices import device_of, placed, precision_on
from wsi_attention.nn.attention_nets import TissueAttentionNet
from wsi_attention.nn.bags import encode
from wsi_attention.nn.preprocess import Normalise
from wsi_attention.nn.resnet import ResNet18
from wsi_attention.nn.vit import VisionTransformer
from wsi_attention.structures import TileBatch

SAMPLES = Path(__file__).resolve().parents[2] / "sample_slides"
METHODS = ("ats", "zoom-in", "tnet", "rams-trans", "oaa", "oaa-plus", "trt")
FORMS = ("float32", "float32 channels-last", "bfloat16", "bfloat16 channels-last")


def main() -> None:
    parser = options_parser(__doc__, "precision")
    parser.add_argument("--tiles", type=int, default=32, help="of 224 px, encoded at once [32]")
    parser.add_argument("--weights", type=int, default=3, help="random weights a method [3]")
    parser.add_argument("--slides", type=Path, default=SAMPLES, help="folder of slides [the sample slides]")
    options, began = parser.parse_args(), machine()
    device = device_of("auto")
    print(f"device {device}, auto is {precision_on(device, 'auto')}\n")
    figures = {"speed": speeds(options), "change": changes(options)}
    save(options.json, options, figures, began)


def speeds(options: argparse.Namespace) -> dict[str, Seconds]:
    """Seconds of the four forms of each network, in turns."""
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (1, options.tiles, 3, 224, 224), dtype=torch.uint8)
    tiles = TileBatch(pixels, torch.ones(1, options.tiles, dtype=torch.bool))
    networks = {
        "ResNet-18": ResNet18,
        "ViT-S/16 of 6 blocks": lambda: VisionTransformer(dim=384, depth=6, heads=6),
    }
    found, rows = {}, []
    for name, build in networks.items():
        seconds = found[name] = in_turns({form: Side(build, form, tiles) for form in FORMS}, options.repeats)
        rows += [(name, form, f"{options.tiles / median(seconds, form):.1f}", _times(seconds, form)) for form in FORMS]
    view = torch.randint(0, 256, (1, 3, 1024, 1024), dtype=torch.uint8)
    sides = {form: Side(TissueAttentionNet, form, view) for form in FORMS}
    seconds = found["attention network"] = in_turns(sides, options.repeats)
    rows += [("attention network", form, f"{1 / median(seconds, form):.1f}", _times(seconds, form)) for form in FORMS]
    print(table(("network", "form", "tiles/s (Mpx/s)", "faster than float32"), rows) + "\n")
    for name in networks:
        print(name, ratio_line(found[name], FORMS[0], FORMS[3]))
    return found


class Side:
    """One form of a network over the same input; built when it is made.

    Args:
        build: gives the network.
        form: one of `FORMS`.
        given: tiles to encode, or pixels for the network itself.
    """

    def __init__(self, build: Any, form: str, given: Any) -> None:
        torch.manual_seed(0)
        network: nn.Module = build().eval()
        self.device = device_of("auto")
        self.network = placed(network, self.device) if "channels-last" in form else network.to(self.device)
        self.preprocess = Normalise().to(self.device)
        self.half, self.given = form.startswith("bfloat16"), given

    @torch.inference_mode()
    def __call__(self) -> object:
        with torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext():
            if isinstance(self.given, TileBatch):
                return encode(self.given, self.preprocess, self.network).sum().item()
            return self.network(self.preprocess(self.given))[0].sum().item()


def changes(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The largest change of a probability, by model and slide."""
    slides = sorted(path for path in options.slides.iterdir() if path.name.startswith("sample_"))
    found = [
        {"model": name, "weights": number} | changed(path, classifier)
        for name, number, classifier in models(options.weights)
        for path in slides
    ]
    rows = []
    for name in dict.fromkeys(one["model"] for one in found):
        mine = [one for one in found if one["model"] == name]
        largest = max(one["change"] for one in mine)
        kept = sum(one["same_label"] for one in mine)
        cells = sum(one["same_tiles"] for one in mine)
        rows.append((name, len(mine), f"{largest:.2g}", f"{kept} of {len(mine)}", f"{cells} of {len(mine)}"))
    print("\n" + table(("model", "runs", "largest change", "same label", "same tiles"), rows) + "\n")
    return found


def models(weights: int) -> Iterator[tuple[str, int, Classifier]]:
    """The demo model, then every method with its usual numbers and random weights."""
    yield "demo", 0, load_model("demo")
    for method in METHODS:
        for number in range(weights):
            torch.manual_seed(number)
            model = build_model(method, 2).eval()
            yield (
                f"{method}, random",
                number,
                Classifier(model, ("benign", "lesion"), {"method": method}, f"{number:064x}", method),
            )


def changed(path: Path, classifier: Classifier) -> dict[str, Any]:
    """One slide in both precisions: how far the probabilities lie apart, and whether labels and tiles are the same."""
    with open_slide(path) as slide:
        exact, rough = (predict(slide, classifier, precision=one) for one in ("32", "bf16"))
    places = [[glimpse.tiles.locations.tobytes() for glimpse in one.glimpses] for one in (exact, rough)]
    return {
        "slide": path.name,
        "change": float(np.abs(exact.probabilities - rough.probabilities).max()),
        "float32": exact.probabilities.tolist(),
        "bfloat16": rough.probabilities.tolist(),
        "same_label": exact.label == rough.label,
        "same_tiles": places[0] == places[1],
        "spread_change": abs(exact.spread - rough.spread),
    }


def _times(seconds: Seconds, form: str) -> str:
    middle, low, high = ratio(seconds, FORMS[0], form)
    return f"{middle:.2f}x ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
