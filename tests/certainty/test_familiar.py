"""The distance from the slides of the training: shrinkage as in scikit-learn, few false alarms, shifts are told."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from wsi_attention.certainty.familiar import ALARMS, Familiar, fit_familiar, shrunk
from wsi_attention.certainty.traits import GROUPS, detail_traits, octave_energies, overview_traits, spaced, stain_traits

Traits = dict[str, NDArray[np.float64]]


def slides(n: int, seed: int = 0, shift: float = 0.0) -> list[Traits]:
    """Slides with a correlated group "stain" of 6 numbers and a long group "features" of 40."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(6, 6))
    wide = np.random.default_rng(98).normal(size=(5, 40))
    return [
        {"stain": mixing @ random.normal(size=6) + 3 + shift, "features": random.normal(size=5) @ wide}
        for _ in range(n)
    ]


def distance(found: Familiar | None, traits: Traits) -> float:
    """How far a slide is, of which a group is known."""
    known = found.distance(traits) if found else None
    assert known is not None
    return known[0]


def names(n: int) -> list[str]:
    return [f"p{i}" for i in range(n)]


def test_shrinks_as_scikit_learn_does() -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    random = np.random.default_rng(0)
    for n, d in ((30, 6), (10, 8), (200, 3)):
        values = random.normal(size=(n, d)) @ random.normal(size=(d, d))
        values -= values.mean(axis=0)
        theirs, _ = covariance.ledoit_wolf(values, assume_centered=True)
        np.testing.assert_allclose(shrunk(values), theirs + 1e-6 * np.eye(d), rtol=1e-9)


def test_few_fresh_slides_are_called_unlike_and_shifted_ones_are() -> None:
    found, reason = fit_familiar(slides(150), names(150))
    assert found is not None and reason == "" and set(found.groups) == {"stain", "features"}
    fresh, shifted = slides(2_000, 1), slides(200, 2, shift=6.0)
    alarms = np.mean([distance(found, one) > 1 for one in fresh])
    assert alarms < 2.5 * ALARMS
    far = [found.distance(one) for one in shifted]
    assert all(one is not None and one[0] > 1 and one[1] == "stain" for one in far)
    assert far[0] is not None
    (note,) = found.note(*far[0])
    assert "unlike the slides of the training by its colours" in note
    assert found.note(0.99, "stain") == ()


def test_a_patient_is_left_out_as_a_whole() -> None:
    """Ten slides of a patient that are all alike and far from the others do not vouch for each other."""
    own = [{"stain": np.full(3, 50.0) + 1e-3 * np.random.default_rng(i).normal(size=3)} for i in range(10)]
    others = [{"stain": np.random.default_rng(100 + i).normal(size=3)} for i in range(30)]
    one, apart = ["p"] * 10, names(30)
    together, _ = fit_familiar([*own, *others], [*one, *apart])
    alone, _ = fit_familiar([*own, *others], [*[f"q{i}" for i in range(10)], *apart])
    distances = [distance(found, {"stain": np.full(3, 25.0)}) for found in (together, alone)]
    assert distances[0] < 0.7 * distances[1]  # the odd patient is an outlier, so the threshold is wide


def test_features_of_slides_that_were_learnt_by_heart_set_no_threshold() -> None:
    """Features of learnt slides lie close together; by them, every new slide would be called unlike."""
    learnt = [{"features": 0.2 * one["features"]} for one in slides(60)]
    judges, fresh = [{"features": one["features"]} for one in slides(60, 1)], slides(200, 2)
    given = [*learnt, *judges], names(120)
    apart, _ = fit_familiar(*given, [False] * 60 + [True] * 60)
    alike, _ = fit_familiar(*given)
    alarms = [sum(distance(found, {"features": one["features"]}) > 1 for one in fresh) for found in (apart, alike)]
    assert alarms[0] < 0.06 * 200 and alarms[0] < alarms[1]
    few, _ = fit_familiar(*given, [False] * 101 + [True] * 19)
    assert few is not None and alike is not None and few.as_dict() == alike.as_dict()


def test_what_is_not_known_does_not_count() -> None:
    found, _ = fit_familiar(slides(30), names(30))
    assert found is not None
    assert found.distance({}) is None and found.distance({"stain": np.zeros(3)}) is None
    only = found.distance({"features": slides(1, 3)[0]["features"]})
    assert only is not None and only[1] == "features"
    broken = found.distance({"stain": np.full(6, np.nan)})
    assert broken is not None and broken[0] == math.inf
    some = [*slides(30), {"features": np.zeros(40)}]
    fewer, _ = fit_familiar(some, names(31))
    assert fewer is not None and set(fewer.groups) == {"features"}


def test_too_little_is_said_and_skipped() -> None:
    assert fit_familiar(slides(38), names(19) * 2) == (None, "19 patients have slides, at least 20 are needed")
    assert fit_familiar([{} for _ in range(20)], names(20))[1] == "nothing is known of what the slides look like"
    same = fit_familiar([{"stain": np.ones(6)}] * 20, names(20))[0]
    assert same is not None
    assert same.distance({"stain": np.ones(6)}) == (0.0, "stain")


def test_goes_into_a_folder_and_back() -> None:
    found, _ = fit_familiar(slides(40), names(40))
    assert found is not None
    again = Familiar.from_dict(json.loads(json.dumps(found.as_dict())))
    assert again.as_dict() == found.as_dict() and again.patients == 40
    at = slides(1, 7)[0]
    assert distance(again, at) == pytest.approx(distance(found, at), rel=1e-4)
    assert "40 patients" in found.sentence


GROUP = {"centre": [0.0, 0.0], "axes": [[1.0, 0.0]]}
GOOD = {"groups": {"stain": GROUP}, "patients": 20, "slides": 20}


@pytest.mark.parametrize(
    "broken",
    [
        "x",
        GOOD | {"groups": {}},
        GOOD | {"groups": {"smell": GROUP}},
        GOOD | {"groups": {"stain": GROUP | {"axes": [[1.0]]}}},
        GOOD | {"groups": {"stain": GROUP | {"axes": []}}},
        GOOD | {"groups": {"stain": GROUP | {"centre": [math.nan, 0.0]}}},
        GOOD | {"groups": {"stain": 1}},
        GOOD | {"slides": 1.5},
    ],
)
def test_damaged_entries_are_refused(broken: object) -> None:
    assert Familiar.from_dict(GOOD).distance({"stain": np.array([0.5, 9.0])}) == (0.5, "stain")
    with pytest.raises(ValueError, match=r"\w"):
        Familiar.from_dict(broken)


def test_octaves_tell_focus_and_scale() -> None:
    random = np.random.default_rng(0)
    whole = np.ones((64, 64), bool)
    coarse = random.random((16, 16)).repeat(4, 0).repeat(4, 1)
    energies = octave_energies(coarse, whole, 4)
    assert energies is not None
    assert energies[0] < -13 and energies[1] < -13 < energies[2]  # nothing below four pixels
    stripes = np.tile([0.0, 1.0], (64, 32))
    first = octave_energies(stripes, whole, 4)
    assert first is not None
    assert first[0] == pytest.approx(math.log(0.25), abs=1e-4) and first[1] < -13
    doubled = octave_energies(stripes.repeat(2, 0).repeat(2, 1), np.ones((128, 128), bool), 4)
    assert doubled is not None and doubled[1] == pytest.approx(first[0])
    half = whole.copy()
    half[:, 32:] = False
    assert octave_energies(np.where(half, 0.5, random.random((64, 64))), half, 2) == pytest.approx([math.log(1e-6)] * 2)
    assert octave_energies(stripes, ~whole, 2) is None and octave_energies(stripes[:8, :8], whole[:8, :8], 4) is None


def test_traits_of_pixels() -> None:
    random = np.random.default_rng(0)
    tissue = np.zeros((40, 40), bool)
    tissue[8:32, 8:32] = True
    pixels = random.integers(0, 256, (40, 40, 3)).astype(np.uint8)
    pixels[~tissue] = 255
    found = overview_traits(pixels, tissue)
    assert set(found) == {"stain", "structure"} and set(found) < set(GROUPS)
    density = -np.log((pixels[tissue].astype(float) + 1) / 256)
    np.testing.assert_allclose(found["stain"][:3], density.mean(axis=0))
    assert stain_traits(pixels[0, :9]) is None
    tiles = random.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    every = detail_traits(tiles)
    assert every is not None and every.shape == (4,)
    assert detail_traits(tiles[:0]) is None and detail_traits(tiles[:, :8, :8]) is None
    assert spaced(3).tolist() == [0, 1, 2] and spaced(0).size == 0
    assert spaced(100).tolist()[0] == 0 and spaced(100).tolist()[-1] == 99 and len(spaced(100)) == 16
