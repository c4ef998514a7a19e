"""Between which two numbers the score of a tile that nobody has read must lie (docs/certificate.md, "Bounds").

A tile with feature f says c rather than k by u·f + d, with u the difference of the two rows of a linear classifier and
d that of their biases. All features are at most 1 long, so the score lies in d ± |u|; where they lie in a convex cone,
such as that of numbers that are not negative, it lies between the parts of u and −u that point into the cone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Solver = Callable[[Floats, Floats], tuple[Floats, float]]

CONE_CLASSES = 6
"""Up to so many classes the cone is used: two least-squares problems for each pair, milliseconds each."""
SPARE = 1e-6
"""Share by which bounds are widened, for features that rounding makes a little longer than 1."""
NORM, CONE = "the classifier's norm", "the classifier within the encoder's range"


class Calibration(NamedTuple):
    """What is done to logits before the label is read off: class k's becomes scale_k·z_k + shift_k.

    Attributes:
        scale: (classes,), above 0.
        shift: (classes,).
    """

    scale: Floats
    shift: Floats


class Head(NamedTuple):
    """A linear classifier: logits = weight·f + bias.

    Attributes:
        weight: (classes, d).
        bias: (classes,).
    """

    weight: Floats
    bias: Floats

    def calibrated(self, calibration: Calibration | None) -> Head:
        """Return the classifier whose logits are the calibrated ones; itself where None."""
        if calibration is None:
            return self
        scale, shift = calibration
        return Head(scale[:, None] * self.weight, scale * self.bias + shift)

    def scores(self, features: Floats) -> Floats:
        """Return the logits (n, classes) of features (n, d)."""
        return np.asarray(features @ self.weight.T + self.bias, np.float64)


class Bounds(NamedTuple):
    """What a tile can say of each pair of classes: low[c, k] ≤ score of c − score of k ≤ high[c, k].

    Attributes:
        low: (classes, classes).
        high: (classes, classes), −low transposed.
        source: where they come from, in words.
    """

    low: Floats
    high: Floats
    source: str

    @property
    def size(self) -> Floats:
        """(classes, classes), the largest that a score of a pair can be without its sign."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


def bounds_of(head: Head, directions: Floats | None = None) -> Bounds:
    """Return the bounds of all pairs for features that are at most 1 long.

    Args:
        head: the classifier, calibrated.
        directions: (g, d), features are sums of these with factors of 0 or more; None where they may point anywhere.
    """
    classes = len(head.bias)
    cone = directions is not None and classes <= CONE_CLASSES
    high = np.zeros((classes, classes))
    for c in range(classes):
        for k in range(classes):
            if c != k:
                u = head.weight[c] - head.weight[k]
                reach = within_cone(u, directions) if cone and directions is not None else float(np.linalg.norm(u))
                high[c, k] = head.bias[c] - head.bias[k] + reach * (1 + SPARE)
    return Bounds(-high.T, high, CONE if cone else NORM)


def within_cone(u: Floats, directions: Floats) -> float:
    """Return the most that u·f can be for f in the cone and at most 1 long: the length of u's projection on the cone.

    By Moreau u = p + q with p in the cone, q·f ≤ 0 for all f in it and p·q = 0; so u·f ≤ p·f ≤ |p|. Where the
    least-squares problem is not solved to rounding, it is |u|, which always holds.

    Args:
        u: (d,).
        directions: (g, d).
    """
    length = float(np.linalg.norm(u))
    lengths = np.linalg.norm(directions, axis=1)
    g = directions[lengths > 0] / lengths[lengths > 0, None]
    projected = _projection(u, g)
    if projected is None or not len(g) or float((g @ (u - projected)).max()) > 1e-9 * max(length, 1.0):
        return length
    return min(length, float(np.linalg.norm(projected)))


def _projection(u: Floats, g: Floats) -> Floats | None:
    """Return the point of the cone of rows g (n, d), each 1 long, that is nearest to u; None where none was found."""
    if _orthogonal(g):
        return np.asarray(np.maximum(g @ u, 0.0) @ g, np.float64)
    from scipy.optimize import nnls

    solve: Solver = nnls
    try:
        return np.asarray(solve(g.T, u)[0] @ g, np.float64)
    except RuntimeError:  # it did not converge
        return None


def _orthogonal(g: Floats) -> bool:
    if len(g) > g.shape[1]:
        return False
    products = g @ g.T
    return bool((np.abs(products - np.diag(np.diag(products))) == 0).all())
