"""Steps one after the other, of which each may be the last: the likelihood behind grades and survival in intervals.

A slide stops at step j with probability h_j, its hazard, where it has passed all earlier ones (Tutz, "Sequential models
in categorical regression", 1991; Gensheimer & Narasimhan, "A scalable discrete-time survival model for neural
networks", PeerJ 2019, equation 1). All probabilities are between 0 and 1 and fall in order, whatever the logits are.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def log_passed(hazards: Tensor) -> Tensor:
    """Return log Π_{i≤j} (1 − h_i), (..., J), of hazards as logits (..., J): step j and all before are passed."""
    return functional.logsigmoid(-hazards).cumsum(dim=-1)


def log_shares(hazards: Tensor) -> Tensor:
    """Return the log-probability to stop at each of J steps, and to pass all, (..., J + 1); the sum of shares is 1.

    Args:
        hazards: (..., J) logits.
    """
    passed = functional.pad(log_passed(hazards), (1, 0))
    return passed + functional.pad(functional.logsigmoid(hazards), (0, 1))


def stopping_loss(hazards: Tensor, seen: Tensor, stopped: Tensor) -> Tensor:
    """Return −Σ_j seen_j·(stopped_j·log h_j + (1 − stopped_j)·log(1 − h_j)), (b,).

    Args:
        hazards: (b, J) logits.
        seen: (b, J), 1 where it is known whether step j was passed, else 0.
        stopped: (b, J), 1 at the step where it ended, else 0.
    """
    went = stopped * functional.logsigmoid(hazards) + (1 - stopped) * functional.logsigmoid(-hazards)
    return -(seen * went).sum(dim=-1)
