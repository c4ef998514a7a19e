"""The calibration error of a model on fresh slides, with and without what training fits at its end.

    python tests/benchmarks/calibration.py [--train 60] [--validation 100] [--fresh 1000] [--epochs 25]

Generates slides as features of their tiles, of which a few tell the class and never surely, trains an attention MIL
head in memory until it has learnt its slides by heart, and fits on the validation slides as `train` does. Prints for
fresh slides, before and after calibration: ECE in ten bins, Brier score, log loss; and for the conformal sets their
share that holds the right class, and how many labels are withheld.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FRESH, TILES, WIDTH, HIDDEN = 200_000, 16, 24, 32


def slides(seeds: range) -> tuple[Tensor, NDArray[np.int64]]:
    """Features (n, tiles, width) of length 1, and classes (n,), the parity of the seeds."""
    every = []
    for seed in seeds:
        random = np.random.default_rng(seed)
        features = random.normal(0, 1, (TILES, WIDTH)).astype(np.float32)
        features[:4, 0] += (2.5 if seed % 2 else -2.5) + random.normal(0, 2.0)
        every.append(features / np.linalg.norm(features, axis=1, keepdims=True))
    return torch.from_numpy(np.stack(every)), np.array([seed % 2 for seed in seeds])


class Head(nn.Module):
    """Gated attention over a slide's tiles, and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(WIDTH, HIDDEN), nn.Linear(WIDTH, HIDDEN)
        self.score, self.classes = nn.Linear(HIDDEN, 1), nn.Linear(WIDTH, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (n, 2) of features (n, tiles, width)."""
        scores = self.score(torch.tanh(self.value(features)) * torch.sigmoid(self.gate(features)))
        return self.classes((scores.softmax(dim=1) * features).sum(dim=1))


def ece(shares: NDArray[np.float64], truth: NDArray[np.int64], bins: int = 10) -> float:
    """The expected calibration error of the highest probability (Guo et al., 2017), in bins of equal width."""
    sure, right = shares.max(axis=1), shares.argmax(axis=1) == truth
    place = np.minimum((sure * bins).astype(int), bins - 1)
    parts = [(place == one) for one in range(bins) if (place == one).any()]
    return float(sum(own.mean() * abs(sure[own].mean() - right[own].mean()) for own in parts))


def figures(shares: NDArray[np.float64], truth: NDArray[np.int64]) -> str:
    """What is printed of probabilities (n, 2)."""
    own = shares[np.arange(len(truth)), truth]
    brier = float(((shares - np.eye(2)[truth]) ** 2).sum(axis=1).mean())
    return f"ECE {ece(shares, truth):.4f}  Brier {brier:.4f}  log loss {-np.log(own.clip(1e-12)).mean():.4f}"


def trained(features: Tensor, classes: NDArray[np.int64], epochs: int) -> Head:
    """A head that knows its slides by heart."""
    torch.manual_seed(0)
    head, truth = Head(), torch.from_numpy(classes)
    optimiser = torch.optim.AdamW(head.parameters(), lr=3e-2, weight_decay=0.0)
    for _ in range(epochs * len(truth) // 4):
        optimiser.zero_grad()
        nn.functional.cross_entropy(head(features), truth).backward()
        optimiser.step()
    return head.eval()


def main() -> None:
    """Generate, train, fit, compare."""
    from wsi_attention.config import Recipe
    from wsi_attention.training.certainty import fitted

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=60)
    parser.add_argument("--validation", type=int, default=100)
    parser.add_argument("--fresh", type=int, default=1_000)
    parser.add_argument("--epochs", type=int, default=25)
    options = parser.parse_args()
    head = trained(*slides(range(options.train)), options.epochs)
    seeds = range(options.train, options.train + options.validation)
    kept, known = slides(seeds)
    fresh, truth = slides(range(FRESH, FRESH + options.fresh))
    with torch.no_grad():
        fits, logits = head(kept).double().numpy(), head(fresh).double().numpy()
    plain = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    print(f"before       {figures(plain, truth)}")
    for kind in ("auto", "temperature", "isotonic"):
        found = fitted(fits, known.tolist(), [str(seed) for seed in seeds], Recipe(calibration=kind), ("a", "b"))
        assert found.calibration is not None and found.conformal is not None
        after = found.calibration.probabilities(logits)
        name = found.calibration.kind
        print(f"{name:<12} {figures(after, truth)}  ECE after / before {ece(after, truth) / ece(plain, truth):.3f}")
    sets = found.conformal.sets(logits)
    told, right = sets.sum(axis=1) == 1, plain.argmax(axis=1) == truth
    inside = sets[np.arange(len(truth)), truth].mean()
    print(f"sets hold the right class {inside:.3f}; {int((~told).sum())} of {len(truth)} labels are withheld;")
    print(f"right labels: {right.mean():.3f} of all, {right[told].mean():.3f} of those that are told")


if __name__ == "__main__":
    main()
