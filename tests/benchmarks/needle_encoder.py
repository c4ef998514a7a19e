"""The one encoder that all rows of the needle benchmark share, taught tile labels on a third of the tiles."""

from __future__ import annotations

import time

import numpy as np
import torch
from needle_tiles import Tiles, load
from torch import Tensor, nn
from torch.nn import functional

from wsi_attention.config import Augmentation
from wsi_attention.nn.encoders import SmallEncoder
from wsi_attention.nn.preprocess import Normalise
from wsi_attention.statistics.curves import area_under_roc
from wsi_attention.training.augment import draw_change

WIDTHS = (32, 64, 128, 160)
FEATURES = 128


def fresh() -> SmallEncoder:
    """The encoder with fresh weights."""
    return SmallEncoder(3, WIDTHS, FEATURES, "mean+max")


def pretrain(
    epochs: int = 40, seed: int = 0, say: bool = True, tiles: Tiles | None = None
) -> tuple[SmallEncoder, float]:
    """Train on 90 % of the encoder's tiles; AUROC on the others says how well it tells tumour apart."""
    torch.manual_seed(seed)
    tiles = tiles or load("encoder")
    pixels = torch.from_numpy(tiles.pixels).permute(0, 3, 1, 2)
    labels = torch.from_numpy(tiles.labels)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(labels)))
    held, rest = order[: len(order) // 10], order[len(order) // 10 :]
    encoder, preprocess = fresh(), Normalise()
    head = nn.Linear(FEATURES, 2)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, 2e-3, weight_decay=0.05)
    batch = 64
    steps = epochs * (len(rest) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps)
    noise = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    for epoch in range(epochs):
        encoder.train()
        shuffled = rest[torch.randperm(len(rest), generator=noise)]
        for i in range(len(rest) // batch):
            index = shuffled[i * batch : (i + 1) * batch]
            scores = 10 * head(encoder(preprocess(augmented(pixels[index], noise))))
            loss = functional.cross_entropy(scores, labels[index], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        if say and (epoch % 5 == 4 or epoch == epochs - 1):
            print(
                f"epoch {epoch + 1}: AUROC {judged(encoder, head, pixels[held], labels[held]):.3f}, "
                f"{time.perf_counter() - start:.0f} s",
                flush=True,
            )
    return encoder, judged(encoder, head, pixels[held], labels[held])


def augmented(pixels: Tensor, noise: torch.Generator) -> Tensor:
    """Each tile flipped, turned and stained on its own; a shift of up to 8 pixels."""
    out = []
    for tile in pixels:
        change = draw_change(Augmentation(symmetry="dihedral", stain=0.25, brightness=0.08), noise)
        dx, dy = torch.randint(-8, 9, (2,), generator=noise).tolist()
        moved = torch.roll(change.symmetry.image(tile), (dy, dx), (-2, -1))
        out.append(change.colour(moved) if change.colour else moved)
    return torch.stack(out)


@torch.no_grad()
def judged(encoder: nn.Module, head: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    """AUROC of tile labels."""
    encoder.eval()
    features = torch.cat([encoder(Normalise()(part)) for part in pixels.split(256)])
    scores = head(features)
    return area_under_roc((scores[:, 1] - scores[:, 0]).double().cpu().numpy(), labels.cpu().numpy() == 1)
