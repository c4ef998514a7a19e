"""Attention sampling straight from the equations: one draw, one loop, no vectors. Checked against a worked example."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def ordered_draws(a: Array, n: int) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every ordered draw without replacement, with its probability Π_j a_j / (1 − Σ_{k<j} a_k)."""
    for draw in permutations(range(len(a)), n):
        left, probability = 1.0, 1.0
        for i in draw:
            probability *= a[i] / left
            left -= a[i]
        yield draw, probability


def independent_draws(a: Array, n: int) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every ordered draw with replacement, with its probability."""
    for draw in product(range(len(a)), repeat=n):
        yield draw, float(np.prod([a[i] for i in draw]))


def steps(a: Array, f: Array, draw: tuple[int, ...]) -> list[Array]:
    """E_j = Σ_{k<j} a_k f_k + pm_j f_j of the sequential mean."""
    out = []
    for j, i in enumerate(draw):
        before = draw[:j]
        left = 1.0 - sum(a[k] for k in before)
        out.append(sum((a[k] * f[k] for k in before), np.zeros_like(f[0])) + left * f[i])
    return out


def sequential(a: Array, f: Array, draw: tuple[int, ...]) -> Array:
    """The mean of the steps."""
    return np.mean(steps(a, f, draw), axis=0)


def released_gradient(a: Array, f: Array, draw: tuple[int, ...], g: Array) -> Array:
    """The official code's gradient on a, (K,)."""
    out, n = np.zeros_like(a), len(draw)
    for j, (i, step) in enumerate(zip(draw, steps(a, f, draw), strict=True)):
        left = 1.0 - sum(a[k] for k in draw[:j])
        seen = sum((f[k] for k in draw[:j]), np.zeros_like(f[0]))
        out[i] += g @ (step * left / a[i] + seen - j * f[i]) / n
    return out


def through_softmax(a: Array, gradient: Array) -> Array:
    """∂L/∂z from ∂L/∂a for a = softmax(z)."""
    return a * (gradient - a @ gradient)
