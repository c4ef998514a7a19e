"""What a tile can say at most: no feature exceeds the bounds, and some come as close as they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsi_attention.certificate.bounds import CONE, CONE_CLASSES, NORM, Calibration, Head, bounds_of, within_cone
from wsi_attention.nn.encoders import Frozen, MnistEncoder, SmallEncoder, StridedMnistEncoder, TileEncoder
from wsi_attention.nn.resnet import ResNet18


def head(classes: int = 3, dim: int = 5, seed: int = 0) -> Head:
    random = np.random.default_rng(seed)
    return Head(random.normal(size=(classes, dim)), random.normal(size=classes))


def test_features_of_length_one_reach_the_bounds_and_none_exceeds_them() -> None:
    given = head()
    bounds = bounds_of(given)
    assert bounds.source == NORM
    assert (bounds.low == -bounds.high.T).all()
    u = given.weight[0] - given.weight[2]
    for sign, bound in ((1, bounds.high[0, 2]), (-1, bounds.low[0, 2])):
        (scores,) = given.scores((sign * u / np.linalg.norm(u))[None])
        assert scores[0] - scores[2] == pytest.approx(bound, rel=1e-5)
    features = np.random.default_rng(1).normal(size=(2000, 5))
    scores = given.scores(features / np.linalg.norm(features, axis=1, keepdims=True))
    pairs = scores[:, :, None] - scores[:, None]
    assert (pairs <= bounds.high).all()
    assert (pairs >= bounds.low).all()


@pytest.mark.parametrize("generators", [3, 5, 9])
def test_in_a_cone_bounds_are_those_of_its_best_direction(generators: int) -> None:
    random = np.random.default_rng(generators)
    directions = np.abs(random.normal(size=(generators, 5)))
    given = head()
    bounds = bounds_of(given, directions)
    assert bounds.source == CONE
    free = bounds_of(given)
    assert (bounds.high <= free.high + 1e-12).all()
    assert (bounds.high < free.high - 0.05).sum() >= 3
    features = random.dirichlet(np.full(generators, 0.3), size=50_000) @ directions
    scores = given.scores(features / np.linalg.norm(features, axis=1, keepdims=True))
    pairs = scores[:, :, None] - scores[:, None]
    best = pairs.max(axis=0)
    bias = given.bias[:, None] - given.bias
    assert (best <= bounds.high).all()
    reachable = (bounds.high - bias > 0.05) & ~np.eye(3, dtype=bool)  # where it is not, the cone's tip is nearest
    assert reachable.any()
    assert (best[reachable] > bounds.high[reachable] - 0.12).all()


def test_the_cone_of_what_is_not_negative_has_a_closed_form() -> None:
    u = np.array([3.0, -2.0, 4.0])
    assert within_cone(u, np.eye(3)) == pytest.approx(5.0)
    assert within_cone(-u, np.eye(3)) == pytest.approx(2.0)
    assert within_cone(-np.abs(u), np.eye(3)) == 0.0
    assert within_cone(u, np.concatenate([np.eye(3), -np.eye(3)])) == pytest.approx(np.linalg.norm(u))
    assert within_cone(u, np.zeros((2, 3))) == pytest.approx(np.linalg.norm(u))


def test_many_classes_take_the_norm() -> None:
    assert bounds_of(head(CONE_CLASSES + 1), np.eye(5)).source == NORM


def test_calibration_is_part_of_the_classifier() -> None:
    given, features = head(), np.random.default_rng(2).normal(size=(4, 5))
    known = Calibration(np.array([0.5, 2.0, 1.0]), np.array([0.1, 0.0, -3.0]))
    np.testing.assert_allclose(
        given.calibrated(known).scores(features), known.scale * given.scores(features) + known.shift
    )
    assert given.calibrated(None) is given


@pytest.mark.parametrize(
    "encoder",
    [
        SmallEncoder(widths=(8, 16), dim=40),
        SmallEncoder(widths=(8, 16), dim=40, pool="max"),
        MnistEncoder(3),
        StridedMnistEncoder(3),
        ResNet18(),
    ],
    ids=["mean+max", "max", "mnist", "strided", "resnet18"],
)
def test_features_lie_in_the_cone_that_the_encoder_names(encoder: torch.nn.Module) -> None:
    torch.manual_seed(0)
    for weight in encoder.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    encoder.eval()
    with torch.no_grad():
        features = encoder(torch.randn(6, 3, 64, 64) * torch.logspace(-1, 1, 6)[:, None, None, None]).double().numpy()
    directions = encoder.directions().double().numpy()  # type: ignore[operator]
    for feature in features:
        assert within_cone(feature, directions) == pytest.approx(1.0, abs=1e-5)  # its own projection is itself
    rest = np.random.default_rng(0).normal(size=(20, features.shape[1]))
    lengths = np.linalg.norm(rest, axis=1)
    inside = np.array([within_cone(one, directions) for one in rest])
    assert (inside < 0.99 * lengths).any()


def test_frozen_encoders_pass_theirs_on_and_others_name_none() -> None:
    small = SmallEncoder(widths=(8, 16), dim=6)
    assert Frozen(small).directions() is not None
    assert TileEncoder.named("vit").build().directions() is None
