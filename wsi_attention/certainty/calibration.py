"""Probabilities that mean what they say: temperature, Platt and isotonic scaling, fitted on slides with known labels.

Guo et al., "On calibration of modern neural networks", 2017 (temperature and vector scaling); Platt, "Probabilistic
outputs for support vector machines", 1999 (the affine map of log-odds, and targets that are never 0 or 1, which here
isotonic has); Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability estimates", 2002
(isotonic, one class against the rest); Oron and Flournoy, "Centered isotonic regression", 2017 (its curve without
steps). See docs/uncertainty.md, "Calibration".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsi_attention.certainty.logits import checked, log_odds, log_softmax, patient_weights, too_few
from wsi_attention.certainty.stored import entry, listed, numbers, whole
from wsi_attention.errors import InputError, ModelError

Kind: TypeAlias = Literal["auto", "temperature", "platt", "isotonic", "none"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FITTED = ("temperature", "platt", "isotonic")
PLATT_PATIENTS = 10
"""Patients that each class needs for "auto" to fit a bias too; with fewer, the bias would be guessed."""
ISOTONIC_PATIENTS, FOLDS, MARGIN = 100, 10, 0.5
"""Patients that "auto" needs to try isotonic too, into how many parts it then divides them to choose, and by how many
standard errors of the difference its log loss must be lower."""
STRETCH, SHIFT = 0.1, 1.0
"""Standard deviations of what is thought beforehand: of a factor above 1, and of a bias of log-odds around 0."""
FLAT = 1e-6
"""Logits of less size say nothing that a factor could bring out."""
TINY = 1e-12
LARGEST = 1e6
"""No scale, no bias and no log-odds of a curve in a model folder are larger; beyond it numbers would overflow, and no
fit comes near it."""

CALLED = {"temperature": "temperature scaling", "platt": "Platt scaling", "isotonic": "isotonic regression"}
"""What people read."""

Curve: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Log-odds in ascending order, and the calibrated probability at each; straight between them, constant beyond."""
Fit: TypeAlias = tuple[float, tuple[float, ...], tuple[Curve, ...]]
"""Scale, bias and curves of a `Calibration`."""


@dataclass(frozen=True)
class Calibration:
    """A map from a model's logits to probabilities.

    Attributes:
        kind: "temperature", "platt" or "isotonic".
        scale: factor on the logits, 1 / temperature; above 0.
        bias: added to each class's scaled logit; their sum is 0. Empty for isotonic.
        curves: for isotonic one `Curve` a class, of two classes that of the second alone; empty otherwise.
        patients: how many it was fitted on.
        slides: of these.
    """

    kind: str
    scale: float = 1.0
    bias: tuple[float, ...] = ()
    curves: tuple[Curve, ...] = ()
    patients: int = 0
    slides: int = 0

    @property
    def classes(self) -> int:
        """How many classes it is for."""
        return len(self.bias) or max(2, len(self.curves))

    @property
    def affine(self) -> tuple[float, NDArray[np.float64]] | None:
        """(scale, bias (classes,)) of the calibrated logits scale·z + bias; None where the map is not affine."""
        return None if self.curves else (self.scale, np.array(self.bias, np.float64))

    @property
    def deciding(self) -> tuple[float, NDArray[np.float64]] | None:
        """(scale, bias (classes,)) of logits scale·z + bias whose highest is the label; None where none are known.

        A rising curve of two classes calls the second one above the log-odds c where it passes 1/2, as the logits
        z + (c/2, -c/2) do.
        """
        if not self.curves:
            return self.affine
        (odds, shares), *others = self.curves
        above = int(np.searchsorted(shares, 0.5, side="right"))
        if others or not 0 < above < len(shares):
            return None
        part = (0.5 - shares[above - 1]) / (shares[above] - shares[above - 1])
        crossing = odds[above - 1] + part * (odds[above] - odds[above - 1])
        return 1.0, np.array([crossing, -crossing]) / 2

    def probabilities(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Return calibrated probabilities (..., classes) of logits (..., classes), sum 1.

        Raises:
            InputError: another number of classes.
            ModelError: the map makes something of them that is not finite.
        """
        values = np.asarray(logits, np.float64)
        if values.shape[-1] != self.classes:
            raise InputError(f"a calibration of {self.classes} classes cannot take logits of {values.shape[-1]}")
        with np.errstate(over="ignore", invalid="ignore"):
            found = self._mapped(values)
        if not np.isfinite(found).all():
            raise ModelError(
                f"the model's {self.kind} calibration gives probabilities that are not finite; train again"
            )
        return found

    def _mapped(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        if not self.curves:
            return np.exp(log_softmax(self.scale * values + np.array(self.bias)))
        return _on_curves(self.curves, log_odds(values))

    def spread(self, logits: ArrayLike, spread: float) -> float:
        """Return the standard error of the winning calibrated probability, from that of the winning uncalibrated one.

        The error of the uncalibrated probability p is, to first order, an error spread / (p·(1 − p)) of its log-odds.
        An affine map with factor s hands it on as s·q·(1 − q) times that, q being the calibrated probability; if
        another class wins after calibration, s·q·q' with q' of the class that won before. A step of an isotonic map has
        no useful derivative: half the difference between both ends of the error stands for it. No standard error
        of a probability q exceeds sqrt(q·(1 − q)).

        Args:
            logits: (classes,) of one slide.
            spread: standard error of the highest probability of softmax(logits).
        """
        values = np.asarray(logits, np.float64)
        before, after = int(values.argmax()), self.probabilities(values)
        win, odds = int(after.argmax()), log_odds(values)[before]
        slope = math.exp(-abs(odds)) / (1.0 + math.exp(-abs(odds))) ** 2
        if slope < TINY:
            return spread
        shift = spread / slope
        if self.curves:
            ends = [self.probabilities(values + move * np.eye(self.classes)[before])[win] for move in (-shift, shift)]
            found = abs(float(ends[1] - ends[0])) / 2
        else:
            other = 1.0 - after[win] if win == before else after[before]
            found = self.scale * float(after[win] * other) * shift
        return min(found, math.sqrt(float(after[win] * (1.0 - after[win]))))

    def as_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        shape: dict[str, object] = {"scale": self.scale, "bias": list(self.bias)}
        if self.curves:
            shape = {"curves": [[list(odds), list(shares)] for odds, shares in self.curves]}
        return {"kind": self.kind, **shape, "patients": self.patients, "slides": self.slides}

    @classmethod
    def from_dict(cls, found: object, classes: int) -> Self:
        """Return the calibration that `as_dict` gave.

        Args:
            found: parsed JSON.
            classes: of the model.

        Raises:
            ValueError: it is damaged, or for another number of classes; the text says what is wrong.
        """
        found = entry(found)
        if found.get("kind") not in FITTED:
            raise ValueError(f"'kind' must be one of {', '.join(FITTED)}")
        counts = [whole(found, "patients"), whole(found, "slides")]
        if found["kind"] == "isotonic":
            curves = tuple(map(_curve, listed(found.get("curves"), "curves")))
            if len(curves) != (1 if classes == 2 else classes):
                raise ValueError(f"it has {len(curves)} curves, which do not fit {classes} classes")
            return cls("isotonic", 1.0, (), curves, *counts)
        bias = tuple(numbers(found.get("bias"), "bias"))
        (scale,) = numbers([found.get("scale")], "scale")
        if len(bias) != classes or not scale > 0:
            raise ValueError(f"it needs a 'scale' above 0 and a 'bias' of {classes} numbers, one a class")
        if max(scale, *map(abs, bias)) > LARGEST:
            raise ValueError(f"no 'scale' and no 'bias' may be larger than {LARGEST:g}")
        return cls(str(found["kind"]), scale, bias, (), *counts)

    @property
    def sentence(self) -> str:
        """What people should know of it, one sentence."""
        slides = f" ({self.slides} slides)" if self.slides != self.patients else ""
        return f"Probabilities are calibrated by {CALLED[self.kind]} on {self.patients} patients{slides}."


def fit_calibration(
    logits: ArrayLike, labels: ArrayLike, patients: Sequence[str], kind: str = "auto"
) -> tuple[Calibration | None, str]:
    """Fit a calibration on predictions with known labels.

    Each patient counts as one, however many slides there are. The model is believed until its patients say otherwise: a
    factor above 1 and a bias have a prior, so that few patients whom the model has all right make it no surer. Isotonic
    has Platt's targets instead: of N patients with a class, its own probability is taken for (N + 1) / (N + K), K being
    the number of classes, so that no curve ends at 0 or 1.

    Args:
        logits: (n, classes) of slides that trained nothing, such as validation slides or those of other folds.
        labels: (n,) class indices.
        patients: (n,) whose slides they are.
        kind: "temperature", "platt", "isotonic"; "auto" is platt where each class has `PLATT_PATIENTS` patients, else
            temperature, and isotonic where there are `ISOTONIC_PATIENTS` and the log loss of patients that it was
            not fitted on is lower by more than `MARGIN` standard errors; "none" fits nothing.

    Returns:
        The calibration and ""; or None and why there is none.

    Raises:
        InputError: an unknown kind, or arrays that do not fit each other.
    """
    if kind not in KINDS:
        raise InputError(f"calibration is one of {', '.join(KINDS)}; got {kind!r}")
    values, truth = checked(logits, labels, patients)
    if kind == "none":
        return None, 'the recipe says calibration = "none"'
    if reason := too_few(patients):
        return None, reason
    if len(set(truth.tolist())) < 2:
        return None, "all slides that were kept for it have the same label"
    if _centred(values).std() < FLAT:
        return None, "the model's logits hardly differ between slides"
    weights = patient_weights(patients)
    kind = _chosen(values, truth, weights, patients) if kind == "auto" else kind
    return Calibration(kind, *_fit(values, truth, weights, kind), len(set(patients)), len(truth)), ""


def _chosen(
    logits: NDArray[np.float64], truth: NDArray[np.int64], weights: NDArray[np.float64], patients: Sequence[str]
) -> str:
    """Return what "auto" fits; by chance that is the same each time, and whatever the order of the slides."""
    if _counts(truth, weights, logits.shape[1]).min() < PLATT_PATIENTS - 1e-9:
        return "temperature"
    names = sorted(set(patients))
    if len(names) < ISOTONIC_PATIENTS:
        return "platt"
    part = dict(zip(names, np.random.default_rng(0).permutation(len(names)) % FOLDS, strict=True))
    own = np.array([part[one] for one in patients])
    losses = {kind: np.empty(len(truth)) for kind in ("platt", "isotonic")}
    for rest, kept in ((own != fold, own == fold) for fold in range(FOLDS)):
        for kind, loss in losses.items():
            fit = Calibration(kind, *_fit(logits[rest], truth[rest], weights[rest], kind))
            loss[kept] = -np.log(fit.probabilities(logits[kept])[range(kept.sum()), truth[kept]])
    inverse = np.unique(patients, return_inverse=True)[1]
    gain = np.bincount(inverse, weights * (losses["platt"] - losses["isotonic"]))
    return "isotonic" if gain.mean() > MARGIN * gain.std(ddof=1) / math.sqrt(len(gain)) else "platt"


def _fit(logits: NDArray[np.float64], truth: NDArray[np.int64], weights: NDArray[np.float64], kind: str) -> Fit:
    if kind != "isotonic":
        return (*_affine(_centred(logits), truth, weights, kind == "platt"), ())
    targets = _targets(truth, _counts(truth, weights, logits.shape[1]))
    return 1.0, (), _isotonic(logits, targets, weights)


def _centred(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return logits (n, classes) whose sum is 0 on each slide; their probabilities are the same."""
    return np.asarray(logits - logits.mean(axis=1, keepdims=True), np.float64)


def _counts(labels: NDArray[np.int64], weights: NDArray[np.float64], classes: int) -> NDArray[np.float64]:
    """Return (classes,) how many patients there are of each class."""
    return np.array([weights[labels == one].sum() for one in range(classes)])


def _targets(truth: NDArray[np.int64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, classes) targets: one more patient of each class is imagined among those of the own one."""
    classes = len(counts)
    rest = 1.0 / (counts[truth] + classes)
    targets = np.repeat(rest[:, None], classes, axis=1)
    targets[np.arange(len(truth)), truth] = (counts[truth] + 1.0) * rest
    return np.asarray(targets, np.float64)


def _affine(
    logits: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.float64], biased: bool
) -> tuple[float, tuple[float, ...]]:
    """Return scale and bias of the lowest log loss and prior; the problem is convex.

    Args:
        logits: (n, classes), the sum of each slide 0.
        labels: (n,) class indices.
        weights: (n,), those of a patient have the sum 1.
        biased: whether there is a bias.
    """
    from scipy.optimize import minimize

    rows, own = np.arange(len(labels)), np.eye(logits.shape[1])[labels]

    def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        more, bias = max(0.0, at[0] - 1.0) / STRETCH, at[1:] - at[1:].mean() if biased else at[1:]
        logs = log_softmax(at[0] * logits + (bias if biased else 0.0))
        off = weights[:, None] * (np.exp(logs) - own)
        slopes = [(off * logits).sum() + more / STRETCH, *(off.sum(axis=0) + 2.0 * bias / SHIFT**2 if biased else ())]
        value = more**2 / 2.0 + float((bias**2).sum()) / SHIFT**2 - float(weights @ logs[rows, labels])
        return value / len(labels), np.array(slopes) / len(labels)

    start = np.array([1.0, *([0.0] * logits.shape[1] if biased else ())])
    limits = [(TINY, None), *([(None, None)] * (len(start) - 1))]
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=limits, options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000}
    ).x
    bias = found[1:] - found[1:].mean() if biased else np.zeros(logits.shape[1])
    return float(found[0]), tuple(float(one) for one in bias)


def _isotonic(
    logits: NDArray[np.float64], targets: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[Curve, ...]:
    odds, classes = log_odds(logits), logits.shape[1]
    return tuple(_steps(odds[:, k], targets[:, k], weights) for k in (range(1, 2) if classes == 2 else range(classes)))


def _steps(odds: NDArray[np.float64], targets: NDArray[np.float64], weights: NDArray[np.float64]) -> Curve:
    """Return the best rising curve, joined at the middle of each level instead of its ends, so that it has no steps."""
    from scipy.optimize import isotonic_regression

    at, inverse = np.unique(odds.clip(-LARGEST, LARGEST), return_inverse=True)
    total = np.bincount(inverse, weights)
    fitted = isotonic_regression(np.bincount(inverse, weights * targets) / total, weights=total)
    first = fitted.blocks[:-1]
    middles = np.add.reduceat(at * total, first) / np.add.reduceat(total, first)
    return tuple(middles.tolist()), tuple(fitted.x[first].tolist())


def _on_curves(curves: tuple[Curve, ...], odds: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(curves) == 1:
        second = np.interp(odds[..., 1], *curves[0])
        return np.stack([1.0 - second, second], axis=-1)
    shares = np.stack([np.interp(odds[..., k], *curve) for k, curve in enumerate(curves)], axis=-1)
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True), np.float64)


def _curve(found: object) -> Curve:
    if not isinstance(found, list) or len(found) != 2:
        raise ValueError("each of 'curves' must be two lists of numbers")
    odds, shares = (tuple(numbers(one, "curves")) for one in found)
    if not odds or len(odds) != len(shares) or list(odds) != sorted(odds) or list(shares) != sorted(shares):
        raise ValueError("'curves' must be two lists of numbers of equal length, each rising")
    if max(map(abs, odds)) > LARGEST:
        raise ValueError(f"no log-odds of 'curves' may be larger than {LARGEST:g}")
    if not 0 < shares[0] <= shares[-1] < 1:
        raise ValueError("'curves' must hold probabilities between 0 and 1")
    return odds, shares
