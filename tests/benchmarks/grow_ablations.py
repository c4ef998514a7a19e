"""What each part of `grow` brings: balanced draws, pooling, context, growing, learning; alone and together.

    python tests/benchmarks/grow_ablations.py --work needle-work [--variant stained] [--seeds 0 1 2] [--judge valid]

Trains the models of the package (`build_model`) on the remembered features of the needle benchmark
(`needle_remembered.py`), attention on means and deviations of overview colours, all with the same number of tiles a
slide, and judges them on slides of other layouts. A run takes a minute; finished ones are kept in WORK/VARIANT/grow and
not repeated. Prints a table, means over the seeds with their range, and writes figures/grow_ablations.json.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import table as common_table
from needle_remembered import CELLS, SIDE, Slides, recall
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn
from torch.nn.functional import avg_pool2d, normalize

from wsi_attention.geometry import Grid
from wsi_attention.methods.method import build_model
from wsi_attention.statistics.curves import area_under_roc
from wsi_attention.structures import Counters, Output, TileBatch, TileSet

TILES, DRAWN, ROUNDS = 91, 43, 4
"""Tiles a slide of every row; of those that grow, how many are drawn, and in how many rounds the others are read."""
BATCH, RATE, DECAY, CLIP, WARM = 4, 3e-3, 1e-2, 1.0, 1.0
FRACTIONS = (0.05, 0.01, 0.002)
COARSE = 4
"""Side in pixels of what attention sees the mean and deviation of, instead of the overview itself."""
SCALES: dict[str, Any] = {"tile_size": SIDE, "tile_mpp": 0.97, "overview_mpp": 11.64 * COARSE, "context": 5}
SCALES |= {"attention_widths": [64], "mean": [0.7, 0.5, 0.7] + [0.1] * 3, "std": [0.2] * 3 + [0.05] * 3}
PLAIN: dict[str, Any] = {"draws": TILES, "growth": 0, "around": False, "pooling": "attention", "learn_weight": 0.0}
PLAIN |= {"balanced": False}
BALANCED: dict[str, Any] = {"balanced": True}
POOLING: dict[str, Any] = {"pooling": "shown"}
CONTEXT: dict[str, Any] = {"around": True}
GROWING: dict[str, Any] = {"draws": DRAWN, "growth": (TILES - DRAWN) // ROUNDS, "rounds": ROUNDS}
LEARNING: dict[str, Any] = {"learn_weight": 0.5}
LEFT_OUT: dict[str, Any] = {"gradient": "leave-one-out"}
ALL = BALANCED | POOLING | CONTEXT | GROWING | LEARNING
ROWS: dict[str, dict[str, Any]] = {
    "none (ats)": {},
    "balance": BALANCED,
    "pooling": POOLING,
    "context": CONTEXT,
    "growing": GROWING,
    "pooling, learning": POOLING | LEARNING,
    "pooling, context": POOLING | CONTEXT,
    "all but balance": POOLING | CONTEXT | GROWING | LEARNING,
    "all but pooling": BALANCED | CONTEXT | GROWING,
    "all but context": BALANCED | POOLING | GROWING | LEARNING,
    "all but growing": BALANCED | POOLING | CONTEXT | LEARNING,
    "all but learning": BALANCED | POOLING | CONTEXT | GROWING,
    "all": ALL,
    "all, leave-one-out": ALL | LEFT_OUT,
}
"""Learning needs what pooling makes of tiles, so that it is not there without it."""


class Recalled:
    """Remembered slides side by side as a `TileSource`, seen in one of eight ways.

    Args:
        slides: the set.
        index: which of them.
        turn: the sum of 1 where x and y change places, 2 where x is mirrored then, 4 where y is.
    """

    extent = (CELLS * SIDE, CELLS * SIDE)

    def __init__(self, slides: Slides, index: Sequence[int], turn: int = 0) -> None:
        self._slides, self.batch, self._turn = slides, len(index), turn
        chosen = np.asarray(index)
        tissue = slides.found[chosen] & (slides.index[chosen] >= 0)
        self._tissue = torch.from_numpy(self._seen(tissue, 1).copy())
        self._tiles = self._seen(slides.index[chosen], 1).reshape(self.batch, -1)
        self._turns = self._seen(slides.turn[chosen], 1).reshape(self.batch, -1)
        view = self._seen(slides.overview[chosen], 1).astype(np.float32)
        self._view = torch.from_numpy(view).permute(0, 3, 1, 2)
        self.counters = Counters()

    def _seen(self, values: NDArray[Any], rows: int) -> NDArray[Any]:
        turned = values.swapaxes(rows, rows + 1) if self._turn & 1 else values
        turned = np.flip(turned, rows + 1) if self._turn & 2 else turned
        return np.flip(turned, rows) if self._turn & 4 else turned

    def downsample(self, mpp: float) -> float:
        """Tiles are seen at level 0."""
        return 1.0

    def overview_downsample(self, mpp: float) -> float:
        """The overview that is remembered."""
        return self.extent[0] / self._view.shape[-1]

    def overview(self, downsample: float) -> Tensor:
        """(b, 6, 112, 112) float32."""
        return self._view

    def tissue(self, grid: Grid) -> Tensor:
        """(b, 56, 56) bool."""
        return self._tissue

    def aligned(self, tiles: TileSet) -> TileSet:
        """A cell is a stored tile."""
        return tiles

    def read(self, tiles: TileSet) -> TileBatch:
        """There are no pixels."""
        raise NotImplementedError

    def remembered(self, tiles: TileSet) -> tuple[Tensor, Tensor]:
        """Features (b, n, 128) of the tiles' cells; all are known."""
        x, y = np.moveaxis(tiles.locations // SIDE, -1, 0)
        cells, images = y * CELLS + x, np.arange(self.batch)[:, None]
        features = self._slides.features[self._tiles[images, cells], self._turns[images, cells]]
        whole = normalize(torch.from_numpy(features.astype(np.float32)), dim=-1)
        return whole, torch.ones(cells.shape, dtype=torch.bool)

    def remember(self, tiles: TileSet, features: Tensor, valid: Tensor) -> None:
        """All is remembered already."""


class InPixels(Recalled):
    """Remembered slides whose overviews are pixels, as slides show them."""

    def __init__(self, slides: Slides, index: Sequence[int], turn: int = 0) -> None:
        super().__init__(slides, index, turn)
        self._view = self._view.to(torch.uint8)


def coarse(folder: Path, name: str, encoder: str) -> Slides:
    """A remembered set whose overview holds mean and deviation of each colour over COARSE² pixels, in [0, 1].

    The shipped networks learn such things from the pixels themselves, at ten times the cost.
    """
    slides = recall(folder / "features", name, encoder)
    return replace(slides, overview=np.concatenate([_colours(one[None]) for one in slides.overview]))


def _colours(view: NDArray[np.uint8]) -> NDArray[Any]:
    pixels = torch.from_numpy(view).permute(0, 3, 1, 2).float() / 255
    mean = avg_pool2d(pixels, COARSE)
    deviation = (avg_pool2d(pixels**2, COARSE) - mean**2).clamp(min=0).sqrt()
    return torch.cat([mean, deviation], dim=1).permute(0, 2, 3, 1).numpy().astype(np.float16)


def model_of(method: str, options: dict[str, Any], dim: int) -> nn.Module:
    """A fresh model that takes features of that length."""
    encoder = {"name": "features:needle", "features": dim, "frozen": True}
    return build_model(method, 2, encoder=encoder, **SCALES, **options)


def train(model: Any, slides: Slides, seed: int, epochs: int) -> None:
    """AdamW with warm-up and cosine as in the shipped recipes; other draws and another turn of a slide each time."""
    noise = Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    steps = math.ceil(len(slides) / BATCH)
    model.train()
    for epoch in range(epochs):
        for number, part in enumerate(torch.randperm(len(slides), generator=noise).split(BATCH)):
            progress = epoch + (number + 0.5) / steps
            late = (progress - WARM) / (epochs - WARM)
            share = progress / WARM if late < 0 else 0.5 * (1 + math.cos(math.pi * late))
            for group in optimiser.param_groups:
                group["lr"] = RATE * share
            source = Recalled(slides, part.tolist(), int(torch.randint(8, (1,), generator=noise)))
            output = model(source, noise)
            loss = model.loss(output, torch.from_numpy(slides.label[part.numpy()]))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimiser.step()
    model.eval()


@dataclass(frozen=True)
class Judged:
    """Of a set: AUROC, share of the found tissue that was read, share of positives whose heaviest tile is tumour."""

    auroc: float
    read: float
    hit: float
    found: float
    """Share of positives of which any tumour tile was read."""


@torch.no_grad()
def judge(
    model: Any, slides: Slides, exact: bool = False, source: type[Recalled] = Recalled
) -> tuple[Judged, list[float]]:
    """What the model makes of a set, and its score of each slide."""
    scores, read, hits, found = [], [], [], []
    for i in range(len(slides)):
        shown = source(slides, [i])
        output: Output = model.exact(shown) if exact else model(shown)
        scores.append(float(output.logits[0, 1] - output.logits[0, 0]))
        glimpse = output.glimpses[0][-1]
        read.append(len(glimpse.weights) / int(slides.tissue[i].sum()))
        if slides.label[i]:
            tumour = slides.tumour[i].ravel()[output.terms["cells"][0].numpy()]
            hits.append(bool(tumour[glimpse.weights.argmax()]))
            found.append(bool(tumour.any()))
    auroc = area_under_roc(np.array(scores), slides.label == 1)
    return Judged(auroc, float(np.mean(read)), float(np.mean(hits)), float(np.mean(found))), scores


def told(rows: Sequence[dict[str, Any]], by: str) -> str:
    """A table of what `judge` said of several models and sets, a row for each value of `by`; range in brackets."""
    lines = []
    for value in dict.fromkeys(row[by] for row in rows):
        own = [row for row in rows if row[by] == value]
        auroc = [row["auroc"] for row in own]
        span = f"{np.mean(auroc):.4f} ({min(auroc):.3f} to {max(auroc):.3f})"
        shares = (f"{np.mean([row[one] for row in own]):.3f}" for one in ("found", "hit"))
        lines.append((f"{value:g}", span, *shares))
    return common_table((by, "AUROC of slides", "found", "heaviest on tumour"), lines)


def trained(folder: Path, row: str, seed: int, given: argparse.Namespace) -> Any:
    """The model of a row with one seed; trained, unless that was done."""
    slides = coarse(folder, "train", given.encoder)
    torch.manual_seed(seed)
    model = model_of("grow", PLAIN | ROWS[row], slides.features.shape[-1])
    path = _file(folder, row, f"{seed} {given.encoder} {given.epochs}.safetensors")
    if path.is_file():
        model.load_state_dict(load_file(path))
        return model.eval()
    train(model, slides, seed, given.epochs)
    path.parent.mkdir(exist_ok=True)
    save_file(model.state_dict(), path)
    return model


def _file(folder: Path, row: str, rest: str) -> Path:
    return folder / "grow" / f"{row} {rest}".replace(" ", "_").replace(",", "").replace("(", "").replace(")", "")


def run(folder: Path, row: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Train and judge one row with one seed, unless that was done."""
    path = _file(folder, row, f"{seed} {given.judge} {given.encoder} {given.epochs}.json")
    if path.is_file():
        return dict(json.loads(path.read_text()))
    start = time.perf_counter()
    model = trained(folder, row, seed, given)
    seconds = time.perf_counter() - start
    sets = {share: coarse(folder, f"{given.judge}-{share:g}", given.encoder) for share in given.fractions}
    found = {f"{share:g}": judge(model, one)[0].__dict__ for share, one in sets.items()}
    path.write_text(json.dumps({"row": row, "seed": seed, "seconds": seconds, **found}, indent=2))
    return dict(json.loads(path.read_text()))


def table(runs: Sequence[dict[str, Any]], fractions: Sequence[float]) -> Iterator[str]:
    """Lines of a Markdown table: means over the seeds, and the range of the AUROC."""
    yield "| parts | " + " | ".join(f"{share:.1%} AUROC | hit | found" for share in fractions) + " | read |"
    yield "|---" * (3 * len(fractions) + 2) + "|"
    for row in ROWS:
        own = [one for one in runs if one["row"] == row]
        if not own:
            continue
        cells = []
        for share in fractions:
            of = {key: [one[f"{share:g}"][key] for one in own] for key in ("auroc", "hit", "found")}
            span = f" ({min(of['auroc']):.3f}-{max(of['auroc']):.3f})" if len(own) > 1 else ""
            cells += [f"{np.mean(of['auroc']):.3f}{span}", f"{np.mean(of['hit']):.2f}", f"{np.mean(of['found']):.2f}"]
        read = np.mean([one["0.01"]["read"] for one in own])
        yield f"| {row} | {' | '.join(cells)} | {read:.1%} |"


def arguments(about: str) -> argparse.ArgumentParser:
    """What this command is told."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("needle-work"))
    parser.add_argument("--variant", default="stained")
    parser.add_argument("--encoder", default="small")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--fractions", nargs="+", type=float, default=FRACTIONS)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--judge", choices=("valid", "test", "final"), default="valid")
    return parser


def main() -> None:
    """The command line."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--figures", type=Path, default=Path(__file__).parent / "figures" / "grow_ablations.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for seed in given.seeds:
        for row in given.rows:
            runs.append(run(given.work / given.variant, row, seed, given))
            print(json.dumps(runs[-1]), flush=True)
    print("\n".join(table(runs, given.fractions)))
    told = {"variant": given.variant, "encoder": given.encoder, "judge": given.judge, "epochs": given.epochs}
    given.figures.write_text(json.dumps({**told, "tiles": TILES, "runs": runs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
