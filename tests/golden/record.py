"""Predictions of the shipped model and of a small model of each method on the six sample slides, as plain values.

`python tests/golden/record.py` compares with `predictions.json` bit for bit and says what differs; `--write` replaces
the file. Bits are those of the machine that wrote it; `test_golden.py` allows for other processors.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import wsi_attention

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
STORED = HERE / "predictions.json"
SLIDES = tuple(
    f"sample_0{number}{kind}"
    for number, kind in enumerate((".svs", ".svs", ".tiff", ".ome.tiff", ".ome.zarr", ".ome.zarr.zip"), start=1)
)
METHODS: dict[str, dict[str, Any]] = json.loads((HERE / "models.json").read_text())


def small_model(method: str, folder: Path) -> Any:
    """A model of the method with random weights that the seed alone decides, saved and loaded again."""
    from wsi_attention.checkpoint import build_model, save_model
    from wsi_attention.model_card import ModelCard

    torch.manual_seed(0)
    card = ModelCard(method=method, classes=("benign", "lesion"), arguments=METHODS[method])
    save_model(folder / method, build_model(method, 2, **METHODS[method]), card)
    return wsi_attention.load_model(folder / method)


def values(prediction: Any) -> dict[str, Any]:
    """What a prediction says, and a hash over every bit of it."""
    bits = hashlib.sha256()
    for glimpse in prediction.glimpses:
        for array in (glimpse.tiles.locations, glimpse.weights, glimpse.attention, glimpse.valid):
            bits.update(np.ascontiguousarray(array).tobytes())
    for one in prediction.maps:
        bits.update(one.name.encode() + np.ascontiguousarray(one.values).tobytes())
    bits.update(prediction.tissue.mask.tobytes() + prediction.probabilities.tobytes())
    tiles = sum(len(glimpse.tiles) for glimpse in prediction.glimpses)
    probabilities = [float(one) for one in prediction.probabilities]
    return {"probabilities": probabilities, "spread": prediction.spread, "tiles": tiles, "bits": bits.hexdigest()}


def found(models: tuple[str, ...], slides: tuple[str, ...] = SLIDES) -> Iterator[tuple[str, dict[str, Any]]]:
    """("model/slide", values) for each pair; the model "demo" is the shipped one."""
    with tempfile.TemporaryDirectory() as folder:
        for name in models:
            model = wsi_attention.load_model("demo") if name == "demo" else small_model(name, Path(folder))
            for slide in slides:
                with wsi_attention.open_slide(ROOT / "sample_slides" / slide) as opened:
                    yield f"{name}/{slide}", values(wsi_attention.predict(opened, model, device="cpu", precision="32"))


def main() -> int:
    """Compare, or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace the stored values")
    write = parser.parse_args().write
    torch.set_num_threads(1)
    now = dict(found(("demo", *METHODS)))
    if write:
        STORED.write_text(json.dumps(now, indent=1) + "\n")
        return 0
    stored = json.loads(STORED.read_text())
    differing = [name for name in stored if stored[name] != now.get(name)]
    print(f"{len(stored) - len(differing)} of {len(stored)} predictions are equal bit for bit")
    print("\n".join(differing), file=sys.stderr)
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
