"""Terms that shape an attention map."""

from __future__ import annotations

from torch import Tensor

ENTROPY_EPSILON = 1e-6
"""Inside the logarithm, so that cells without attention count 0."""


def negative_entropy(attention: Tensor) -> Tensor:
    """(1/b) Σ_b Σ_i a_i·log(a_i + 1e-6), a scalar: minus the mean entropy of the maps.

    Added to a loss with a positive factor it pushes attention towards uniform and so prevents an early collapse
    (ATS, ICML 2019, §3.4 and the released code). About −log K for a uniform map, about 0 for a one-hot one.

    Args:
        attention: (b, K), rows sum to 1.
    """
    return (attention * (attention + ENTROPY_EPSILON).log()).sum(dim=-1).mean()
