"""Class maps: the pooling identity and the normalisation, by the OAA page."""

from __future__ import annotations

import torch
from torch import nn

from wsi_attention.attention import cam


def random_tensor(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def test_a_head_after_pooling_equals_pooled_class_maps() -> None:
    features = random_tensor(2, 5, 3, 4)
    head = nn.Linear(5, 3).double()
    maps = cam.class_maps(features, head.weight, head.bias)
    torch.testing.assert_close(cam.class_scores(maps), head(features.mean(dim=(2, 3))))


def test_class_maps_equal_a_pointwise_convolution() -> None:
    features = random_tensor(2, 5, 3, 4)
    layer = nn.Conv2d(5, 3, 1, bias=False).double()
    torch.testing.assert_close(cam.class_maps(features, layer.weight[:, :, 0, 0]), layer(features))


def test_a_constant_on_the_map_adds_to_the_score() -> None:
    maps = random_tensor(2, 3, 4, 4)
    torch.testing.assert_close(cam.class_scores(maps), maps.flatten(2).mean(-1))
    torch.testing.assert_close(cam.class_scores(maps + 2.5), cam.class_scores(maps) + 2.5)


def test_scores_over_tissue_are_the_mean_of_its_positions() -> None:
    maps, tissue = random_tensor(2, 3, 4, 4), random_tensor(2, 4, 4) > 0
    expected = torch.stack([one[:, where].mean(-1) for one, where in zip(maps, tissue, strict=True)])
    torch.testing.assert_close(cam.class_scores(maps.masked_fill(~tissue[:, None], torch.nan), tissue), expected)
    torch.testing.assert_close(cam.class_scores(maps, torch.ones_like(tissue)), cam.class_scores(maps))


def test_attention_maps_reach_one_and_leave_their_input_alone() -> None:
    maps = random_tensor(2, 3, 4, 4)
    before = maps.clone()
    found = cam.attention_maps(maps)
    assert torch.equal(maps, before)
    assert (found >= 0).all()
    torch.testing.assert_close(found.amax((2, 3)), torch.ones(2, 3, dtype=torch.float64), atol=1e-7, rtol=0)
    assert torch.equal(found == 0, maps <= 0)


def test_all_negative_maps_give_zero_not_nan() -> None:
    assert torch.equal(cam.attention_maps(-random_tensor(1, 2, 3, 3).abs()), torch.zeros(1, 2, 3, 3).double())


def half() -> torch.Tensor:
    tissue = torch.zeros(2, 4, 4, dtype=torch.bool)
    tissue[0, :2], tissue[1, 0, :3] = True, True
    return tissue


def test_scores_count_tissue_only() -> None:
    maps, tissue = random_tensor(2, 3, 4, 4), half()
    expected = torch.stack([maps[i][:, tissue[i]].mean(-1) for i in range(2)])
    torch.testing.assert_close(cam.class_scores(maps, tissue), expected)
    outside = maps.masked_fill(~tissue[:, None], torch.nan)
    torch.testing.assert_close(cam.class_scores(outside, tissue), expected)
    torch.testing.assert_close(cam.class_scores(maps + 2.5, tissue), expected + 2.5)


def test_soft_maximum_lies_between_mean_and_maximum() -> None:
    maps, tissue = random_tensor(2, 3, 4, 4), half()
    highest = torch.stack([maps[i][:, tissue[i]].amax(-1) for i in range(2)])
    torch.testing.assert_close(
        cam.soft_maximum_scores(maps, tissue, 1e-4), cam.class_scores(maps, tissue), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(cam.soft_maximum_scores(maps, tissue, 1e4), highest, atol=1e-3, rtol=0)
    two = torch.tensor([0.0, 1.0]).double().log1p().reshape(1, 1, 1, 2)
    found = cam.soft_maximum_scores(two, torch.ones(1, 1, 2, dtype=torch.bool), 1.0)
    torch.testing.assert_close(found, torch.tensor([[1.5]]).double().log())


def test_top_is_the_mean_of_the_highest_tissue_cells() -> None:
    maps, tissue = random_tensor(2, 3, 4, 4), half()
    ranked = [maps[i][:, tissue[i]].sort(-1, descending=True).values for i in range(2)]
    expected = torch.stack([ranked[0][:, :2].mean(-1), ranked[1][:, :1].mean(-1)])
    torch.testing.assert_close(cam.top_scores(maps, tissue, 0.25), expected)
    torch.testing.assert_close(cam.top_scores(maps, tissue, 1.0), cam.class_scores(maps, tissue))
