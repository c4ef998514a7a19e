"""Calibrated probabilities: the fit finds what was planted, the error follows the map, damaged entries are refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from wsi_attention.certainty import Calibration, fit_calibration
from wsi_attention.certainty import calibration as module
from wsi_attention.errors import InputError, ModelError

Arrays = tuple[NDArray[np.float64], NDArray[np.int64], list[str]]


def cohort(
    n: int, scale: float, bias: tuple[float, ...], seed: int = 0, classes: int = 2, slides: int = 1, flat: float = 2.0
) -> Arrays:
    """Logits whose true probabilities are softmax(scale·z + bias), labels drawn from these."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, flat, (n, classes))
    true = np.exp(scale * logits + np.array(bias))
    true /= true.sum(axis=1, keepdims=True)
    labels = (random.random((n, 1)) > true.cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
    return logits.repeat(slides, 0), labels.repeat(slides), [f"p{i}" for i in range(n) for _ in range(slides)]


def log_loss(found: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    return float(-np.log(found[np.arange(len(labels)), labels]).mean())


@pytest.mark.parametrize(
    ("classes", "kind", "bias"),
    [(2, "temperature", (0.0, 0.0)), (2, "platt", (0.5, -0.5)), (4, "platt", (1.0, -0.5, 0.0, -0.5))],
)
def test_finds_the_planted_map(classes: int, kind: str, bias: tuple[float, ...]) -> None:
    found, reason = fit_calibration(*cohort(6_000, 0.3, bias, classes=classes), kind)
    assert found is not None and reason == "" and found.kind == kind
    assert found.affine is not None
    scale, shifts = found.affine
    assert scale == pytest.approx(0.3, abs=0.03)
    assert shifts == pytest.approx(bias, abs=0.15)
    assert shifts.sum() == pytest.approx(0, abs=1e-12)


def test_without_a_prior_platt_is_scikit_learns_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    monkeypatch.setattr(module, "STRETCH", 1e9)
    monkeypatch.setattr(module, "SHIFT", 1e9)
    logits, labels, patients = cohort(60, 0.5, (0.4, -0.4), seed=3)
    found, _ = fit_calibration(logits, labels, patients, "platt")
    assert found is not None
    margin = (logits[:, 1] - logits[:, 0])[:, None]
    theirs = linear.LogisticRegression(C=1e12, tol=1e-10, max_iter=1_000).fit(margin, labels).predict_proba(margin)
    assert found.probabilities(logits) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("scale", [0.4, 1.6])
def test_with_it_no_map_nearby_is_better_by_loss_and_prior(scale: float) -> None:
    logits, labels, patients = cohort(60, scale, (0.4, -0.4), seed=3)
    found, _ = fit_calibration(logits, labels, patients, "platt")
    assert found is not None and (found.scale > 1) == (scale > 1)

    def cost(scale: float, odds: float) -> float:
        said = Calibration("platt", scale, (-odds / 2, odds / 2)).probabilities(logits)[np.arange(60), labels]
        return -math.fsum(np.log(said).tolist()) + max(0.0, scale - 1) ** 2 / (2 * 0.1**2) + odds**2 / 2

    odds = found.bias[1] - found.bias[0]
    nearby = [cost(found.scale + a, odds + b) for a in (-0.01, 0, 0.01) for b in (-0.01, 0, 0.01) if a or b]
    assert min(nearby) > cost(found.scale, odds)


def test_a_few_patients_whom_the_model_has_right_make_it_no_surer_and_many_do() -> None:
    found = {n: fit_calibration(*cohort(n, 2.0, (0.0, 0.0), seed=2), "platt")[0] for n in (24, 6_000)}
    assert found[24] is not None and found[6_000] is not None
    assert found[24].scale < 1.2 and found[6_000].scale > 1.7


def test_isotonic_has_scikit_learns_levels_each_at_its_middle() -> None:
    isotonic = pytest.importorskip("sklearn.isotonic")
    logits, labels, patients = cohort(80, 0.5, (0.0, 0.0), seed=4)
    odds = np.round(logits[:, 1] - logits[:, 0], 1)  # some are equal
    found, _ = fit_calibration(np.stack([0 * odds, odds], 1), labels, patients, "isotonic")
    assert found is not None and found.affine is None
    positives = labels.sum()
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    levels = isotonic.IsotonicRegression().fit(odds, targets).predict(odds)
    middles = [odds[np.isclose(levels, one)].mean() for one in found.curves[0][1]]
    assert found.curves[0][0] == pytest.approx(middles) and len(middles) == len(np.unique(levels.round(9)))


def saturated(n: int, seed: int = 0) -> Arrays:
    """A model whose log-odds never pass 4, however sure it could be."""
    logits, labels, patients = cohort(n, 1.0, (0.0, 0.0), seed=seed, flat=2.5)
    odds = 4 * np.tanh(logits[:, 1] - logits[:, 0])
    return np.stack([0 * odds, odds], 1), labels, patients


def test_auto_bends_the_map_where_many_patients_say_so() -> None:
    for cohorts, n, kind in ((saturated, 600, "isotonic"), (saturated, 99, "platt")):
        found, _ = fit_calibration(*cohorts(n))
        assert found is not None and found.kind == kind
    bent, straight = (fit_calibration(*saturated(600), kind)[0] for kind in ("isotonic", "platt"))
    assert bent is not None and straight is not None
    logits, labels, _ = saturated(5_000, seed=1)
    assert log_loss(bent.probabilities(logits), labels) < log_loss(straight.probabilities(logits), labels) - 0.01


def test_auto_leaves_it_straight_where_it_is_and_does_not_depend_on_the_order() -> None:
    kinds = [found.kind for i in range(20) if (found := fit_calibration(*cohort(400, 0.5, (0.3, -0.3), seed=i))[0])]
    assert len(kinds) == 20 and kinds.count("platt") >= 18
    logits, labels, patients = saturated(300, seed=7)
    turn = np.random.default_rng(1).permutation(300)
    one, other = (
        fit_calibration(logits, labels, patients)[0],
        fit_calibration(logits[turn], labels[turn], [patients[i] for i in turn])[0],
    )
    assert one is not None and other is not None and one.kind == other.kind
    assert one.probabilities(logits) == pytest.approx(other.probabilities(logits), abs=1e-7)


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration("platt", 0.5, (0.2, -0.2)),
        Calibration("isotonic", curves=(((-1.0, 0.5, 2.0), (0.2, 0.4, 0.9)),)),
        Calibration("isotonic", curves=(((-1.0, 0.0, 1.0, 2.0), (0.2, 0.5, 0.5, 0.9)),)),
    ],
)
def test_the_label_is_that_of_the_deciding_logits(calibration: Calibration) -> None:
    logits = np.random.default_rng(3).normal(0, 2, (2_000, 2))
    assert calibration.deciding is not None
    scale, bias = calibration.deciding
    assert np.array_equal((scale * logits + bias).argmax(1), calibration.probabilities(logits).argmax(1))


def test_no_logits_decide_where_one_class_always_wins_or_there_are_three() -> None:
    low, curve = ((-1.0, 1.0), (0.1, 0.4)), ((-1.0, 1.0), (0.2, 0.9))
    for curves in ((low,), (((-1.0, 1.0), (0.6, 0.9)),), (curve, curve, curve)):
        assert Calibration("isotonic", curves=curves).deciding is None


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
@pytest.mark.parametrize("classes", [2, 3])
def test_an_overconfident_model_says_less_and_loses_less_on_fresh_slides(kind: str, classes: int) -> None:
    planted = (0.25, tuple(np.linspace(-0.3, 0.3, classes)))
    found, _ = fit_calibration(*cohort(300, *planted, classes=classes, flat=6.0), kind)
    assert found is not None
    logits, labels, _ = cohort(2_000, *planted, seed=1, classes=classes, flat=6.0)
    plain = Calibration("platt", 1.0, (0.0,) * classes).probabilities(logits)
    mended = found.probabilities(logits)
    assert mended.sum(axis=1) == pytest.approx(np.ones(len(logits)), abs=1e-12)
    assert log_loss(mended, labels) < log_loss(plain, labels) - 0.2
    confidence = [values.max(axis=1).mean() - (values.argmax(axis=1) == labels).mean() for values in (plain, mended)]
    assert abs(confidence[1]) < 0.03 < confidence[0]


def test_separable_labels_end_at_no_certainty() -> None:
    logits = np.array([[-3.0, 3.0], [3.0, -3.0]] * 15)
    for kind, said in (("temperature", 0.9975), ("platt", 0.9975), ("isotonic", 16 / 17)):  # Platt's target of 15
        found, _ = fit_calibration(logits, [1, 0] * 15, [f"p{i}" for i in range(30)], kind)
        assert found is not None
        assert found.probabilities(logits)[0, 1] == pytest.approx(said, abs=1e-4)


def test_a_patient_counts_once_however_many_slides() -> None:
    logits, labels, patients = cohort(50, 0.5, (0.0, 0.0), seed=5)
    once, _ = fit_calibration(logits, labels, patients, "platt")
    more = (
        np.concatenate([logits, logits[:1].repeat(200, 0)]),
        [*labels, *[labels[0]] * 200],
        [*patients, *["p0"] * 200],
    )
    often, _ = fit_calibration(*more, "platt")
    assert once is not None and often is not None
    assert often.scale == pytest.approx(once.scale, rel=1e-5)
    assert (often.patients, often.slides) == (50, 250)


def test_too_little_is_said_and_skipped() -> None:
    logits, labels, patients = cohort(19, 1.0, (0.0, 0.0), slides=3)
    assert fit_calibration(logits, labels, patients) == (
        None,
        "19 patients with a label were kept for it, at least 20 are needed",
    )
    logits, labels, patients = cohort(30, 1.0, (0.0, 0.0))
    assert fit_calibration(logits, np.zeros(30, int), patients)[1].startswith("all slides that were kept")
    assert fit_calibration(logits, labels, patients, "none") == (None, 'the recipe says calibration = "none"')


def test_auto_fits_a_bias_where_each_class_has_patients_enough() -> None:
    logits, _, patients = cohort(40, 1.0, (0.0, 0.0))
    kinds = [fit_calibration(logits, [1] * few + [0] * (40 - few), patients)[0] for few in (9, 10)]
    assert [one.kind for one in kinds if one] == ["temperature", "platt"]


def test_nonsense_is_refused() -> None:
    logits, labels, patients = cohort(30, 1.0, (0.0, 0.0))
    for wrong in (
        (logits, labels, patients, "beta"),
        (logits[:, :1], labels, patients),
        (logits, labels[:9], patients),
    ):
        with pytest.raises(InputError):
            fit_calibration(*wrong)
    with pytest.raises(InputError, match="finite"):
        fit_calibration(np.full_like(logits, np.nan), labels, patients)
    with pytest.raises(InputError, match="0 to 1"):
        fit_calibration(logits, labels + 1, patients)


@pytest.mark.parametrize(
    "calibration", [Calibration("platt", 0.4, (0.3, 0.2, -0.5)), Calibration("platt", 1.7, (0.0, 0.0))]
)
def test_the_error_is_that_of_the_shown_probability(calibration: Calibration) -> None:
    """Draw many logits with a known error of the winning probability, and measure the calibrated one's."""
    random = np.random.default_rng(0)
    logits = np.array([1.3, 0.2, -0.4][: calibration.classes])
    moved = np.repeat(logits[None], 50_000, 0)
    moved[:, 0] += random.normal(0, 0.02, len(moved))
    plain = Calibration("platt", 1.0, (0.0,) * calibration.classes)
    spread = plain.probabilities(moved)[:, 0].std()
    win = int(calibration.probabilities(logits).argmax())
    measured = calibration.probabilities(moved)[:, win].std()
    assert calibration.spread(logits, spread) == pytest.approx(measured, rel=0.02)
    assert plain.spread(logits, spread) == pytest.approx(spread, rel=1e-12)


def test_the_error_follows_a_change_of_the_winner_and_stays_an_error() -> None:
    turned = Calibration("platt", 1.0, (-1.0, 1.0))
    assert turned.probabilities([0.3, 0.0]).argmax() == 1
    p, q = 1 / (1 + math.exp(-0.3)), 1 / (1 + math.exp(1.7))
    assert turned.spread([0.3, 0.0], 0.01) == pytest.approx(0.01 * q * (1 - q) / (p * (1 - p)))
    assert Calibration("platt", 50.0, (0.0, 0.0)).spread([0.01, 0.0], 0.5) <= 0.5
    assert Calibration("platt", 0.1, (0.0, 0.0)).spread([900.0, 0.0], 0.0) == 0.0
    steps = Calibration("isotonic", curves=(((-1.0, 0.0, 1.0), (0.2, 0.5, 0.8)),))
    assert steps.spread([0.0, 0.2], 0.01) == pytest.approx(0.3 * 0.01 / (0.5498 * 0.4502), rel=1e-3)


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
@pytest.mark.parametrize("classes", [2, 3])
def test_goes_into_a_folder_and_back(kind: str, classes: int) -> None:
    logits, labels, patients = cohort(60, 0.5, (0.0,) * classes, classes=classes)
    found, _ = fit_calibration(logits, labels, patients, kind)
    assert found is not None
    again = Calibration.from_dict(json.loads(json.dumps(found.as_dict())), classes)
    assert again == found
    assert np.array_equal(again.probabilities(logits), found.probabilities(logits))
    assert "60 patients" in found.sentence
    with pytest.raises(InputError, match="classes cannot take"):
        found.probabilities(np.zeros((1, classes + 1)))


GOOD = {"kind": "platt", "scale": 1.0, "bias": [0.0, 0.0], "patients": 20, "slides": 20}
STEPS = {"kind": "isotonic", "curves": [[[0.0, 1.0], [0.2, 0.8]]], "patients": 20, "slides": 20}


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        {},
        GOOD | {"kind": "beta"},
        GOOD | {"scale": 0},
        GOOD | {"scale": "1"},
        GOOD | {"scale": math.nan},
        GOOD | {"bias": [0.0]},
        GOOD | {"bias": [0.0, True]},
        GOOD | {"patients": -1},
        STEPS | {"curves": []},
        STEPS | {"curves": [[[1.0, 0.0], [0.2, 0.8]]]},
        STEPS | {"curves": [[[0.0, 1.0], [0.0, 0.8]]]},
        STEPS | {"curves": [[[0.0], [0.2, 0.8]]]},
        STEPS | {"curves": [3]},
        STEPS | {"curves": [[[-1e308, 1e308], [0.2, 0.8]]]},
    ],
)
def test_damaged_entries_are_refused(broken: object) -> None:
    Calibration.from_dict(GOOD, 2), Calibration.from_dict(STEPS, 2)
    with pytest.raises(ValueError, match=r"\w"):
        Calibration.from_dict(broken, 2)


def test_numbers_that_overflow_are_refused_and_are_no_label() -> None:
    with pytest.raises(ValueError, match="may be larger than 1e\\+06"):
        Calibration.from_dict({"kind": "platt", "scale": 1.0, "bias": [2e6, -2e6], "patients": 20, "slides": 20}, 2)
    with pytest.raises(ModelError, match="not finite"):
        Calibration("platt", 1e308, (0.0, 0.0), (), 20, 20).probabilities([1e3, -1e3])
    logits, labels, patients = cohort(30, 1.0, (0.0, 0.0))
    assert fit_calibration(logits * 1e-9, labels, patients)[1] == "the model's logits hardly differ between slides"
