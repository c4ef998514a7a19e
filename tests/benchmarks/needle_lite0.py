"""A better encoder for the needle benchmark: EfficientNet-lite0 from its published weights, taught tile labels.

    wsi-attention encoders fetch efficientnet-lite0
    python tests/benchmarks/needle_lite0.py OUT.safetensors [--epochs 30]

Several stages pooled (`wsi_attention/encoders/efficientnet_lite.py`), all weights fine-tuned on 90 % of the encoder's
third of the tiles, with flips, turns, shifts and stain changes; what is kept is the moving average of the weights. The
other 10 % and the tiles of the training slides say how well it tells tumour apart. The file goes into a recipe as
`encoder_start`, beside `encoder = "efficientnet-lite0"`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from needle_tiles import Tiles, load
from skimage.color import rgb_from_hed
from torch import Generator, Tensor, nn
from torch.nn import functional

from wsi_attention.encoders.encoder_weights import fill_encoder, save_encoder
from wsi_attention.nn.known_encoder import KnownEncoder, known_encoder
from wsi_attention.nn.preprocess import Normalise
from wsi_attention.statistics.curves import area_under_roc

NAME = "efficientnet-lite0"
SHIFT, STAIN, LIGHT = 8, 0.3, 0.1
"""Changes of a tile: pixels, share of each stain's strength, share of the light."""
STILL = ("conv_stem", "bn1", "blocks.0", "blocks.1")
"""Layers that keep their published weights: they see edges and colours, and cost half of a step."""
SHARPNESS = 10.0
"""Features have length 1; scores are this times larger."""


@dataclass(frozen=True)
class Teaching:
    """How the encoder is taught.

    Attributes:
        epochs: passes over the tiles.
        batch: tiles a step.
        rate: highest learning rate of the network; ten times that of the head.
        decay: of the weights.
        smoothing: of the labels.
        average: share of the old average that a step keeps.
    """

    epochs: int = 30
    batch: int = 64
    rate: float = 1e-3
    decay: float = 0.05
    smoothing: float = 0.1
    average: float = 0.99


def build() -> KnownEncoder:
    """The network with fresh weights."""
    return known_encoder(NAME)


def make(path: Path, teaching: Teaching | None = None, part: Callable[[str], Tiles] = load) -> None:
    """Teach the encoder on tiles of `part`, as they are or of one stain, and write it with its colours."""
    encoder, head = teach(teaching or Teaching(), part("encoder"))
    save_encoder(path, encoder, mean=encoder.mean, std=encoder.std)
    print(f"encoder: AUROC {judged(encoder, head, part('train')):.3f} on the tiles of the training slides", flush=True)


def teach(teaching: Teaching, tiles: Tiles, seed: int = 0) -> tuple[KnownEncoder, nn.Linear]:
    """Fine-tune on 90 % of the tiles; returns the averaged network and its head."""
    torch.manual_seed(seed)
    model, averaged = _fresh(), _fresh()
    encoder = model["encoder"]
    fill_encoder(encoder, encoder.published_weights().tensors, NAME)
    averaged.load_state_dict(model.state_dict())
    for name in STILL:
        encoder.network.get_submodule(name).requires_grad_(False)
    order = np.random.default_rng(seed).permutation(len(tiles.labels))
    held, rest = order[: len(order) // 10], torch.from_numpy(order[len(order) // 10 :])
    steps = teaching.epochs * (len(rest) // teaching.batch)
    optimiser = torch.optim.AdamW(_groups(model, teaching), weight_decay=teaching.decay)
    rates = [group["lr"] for group in optimiser.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, steps)
    noise, start = Generator().manual_seed(seed), time.perf_counter()
    for epoch in range(teaching.epochs):
        model.train()
        for name in STILL:
            encoder.network.get_submodule(name).eval()
        for index in rest[torch.randperm(len(rest), generator=noise)].split(teaching.batch)[: steps // teaching.epochs]:
            optimiser.zero_grad()
            _loss(model, tiles, index, teaching, noise).backward()
            optimiser.step()
            schedule.step()
            _follow(averaged, model, teaching.average)
        if epoch % 3 == 2 or epoch == teaching.epochs - 1:
            some = Tiles(tiles.pixels[held], tiles.labels[held], ())
            found = judged(averaged["encoder"], averaged["head"], some)
            print(f"epoch {epoch + 1}: AUROC {found:.3f}, {time.perf_counter() - start:.0f} s", flush=True)
    return averaged["encoder"].eval(), averaged["head"]  # type: ignore[return-value]


def _fresh() -> nn.ModuleDict:
    encoder = build()
    return nn.ModuleDict({"encoder": encoder, "head": nn.Linear(encoder.dim, 2)})


def _groups(model: nn.ModuleDict, teaching: Teaching) -> list[dict[str, object]]:
    """The head learns ten times faster than the network, which knows something already."""
    rates = {"encoder": teaching.rate, "head": 10 * teaching.rate}
    learning = {name: [one for one in model[name].parameters() if one.requires_grad] for name in rates}
    return [{"params": learning[name], "lr": rate} for name, rate in rates.items()]


def _loss(model: nn.ModuleDict, tiles: Tiles, index: Tensor, teaching: Teaching, noise: Generator) -> Tensor:
    pixels = torch.from_numpy(tiles.pixels[index.numpy()]).permute(0, 3, 1, 2)
    scores = SHARPNESS * model["head"](model["encoder"](_preprocess(model["encoder"])(changed(pixels, noise))))
    labels = torch.from_numpy(tiles.labels)[index]
    return functional.cross_entropy(scores, labels, label_smoothing=teaching.smoothing)


def changed(pixels: Tensor, noise: Generator, stain: float = STAIN) -> Tensor:
    """Flip, turn, shift and stain every tile on its own.

    Args:
        pixels: (n, 3, h, h) uint8.
        noise: chance.
        stain: share by which the strength of each stain varies.

    Returns:
        (n, 3, h, h) float of 0 to 1.
    """
    moved = torch.stack([_moved(tile, torch.randint(0, 2 * SHIFT + 1, (5,), generator=noise)) for tile in pixels])
    stains = torch.tensor(np.array(rgb_from_hed), dtype=torch.float32)
    drawn = torch.rand(len(pixels), 4, generator=noise) * 2 - 1
    matrix = torch.linalg.inv(stains) @ torch.diag_embed(1 + stain * drawn[:, :3]) @ stains
    density = -torch.log((moved.flatten(2).float() + 1) / 256)
    grey = (256 * torch.exp(-(matrix.mT @ density)) - 1) / 255 * (1 + LIGHT * drawn[:, 3, None, None])
    return grey.clamp(0, 1).view_as(moved)


def _moved(tile: Tensor, drawn: Tensor) -> Tensor:
    quarters, mirrored, dx, dy = int(drawn[0]) % 4, int(drawn[1]) % 2, int(drawn[2]) - SHIFT, int(drawn[3]) - SHIFT
    turned = torch.rot90(tile, quarters, (-2, -1))
    return torch.roll(turned.flip(-1) if mirrored else turned, (dy, dx), (-2, -1))


def _preprocess(encoder: nn.Module) -> Normalise:
    return Normalise(encoder.mean, encoder.std)  # type: ignore[arg-type]


@torch.no_grad()
def _follow(averaged: nn.Module, model: nn.Module, keep: float) -> None:
    """Move every number of the average a little towards the model's."""
    for old, new in zip(averaged.state_dict().values(), model.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - keep)
        else:
            old.copy_(new)


@torch.no_grad()
def judged(encoder: nn.Module, head: nn.Module, tiles: Tiles) -> float:
    """AUROC of tile labels."""
    encoder.eval()
    parts = torch.from_numpy(tiles.pixels).permute(0, 3, 1, 2).split(256)
    scores = torch.cat([head(encoder(_preprocess(encoder)(part))) for part in parts])
    return area_under_roc((scores[:, 1] - scores[:, 0]).double().numpy(), tiles.labels == 1)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=Teaching.epochs)
    parser.add_argument("--rate", type=float, default=Teaching.rate)
    given = parser.parse_args()
    make(given.out, Teaching(epochs=given.epochs, rate=given.rate))


if __name__ == "__main__":
    main()
