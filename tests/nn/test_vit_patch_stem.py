"""The convolutional stem gives one token a patch, wherever the patch can be factored."""

from __future__ import annotations

import pytest
import torch

from wsi_attention.nn.vit import ConvStem, VisionTransformer


@pytest.mark.parametrize(("patch", "layers"), [(2, 1), (12, 3), (16, 4), (24, 4), (7, 1)])
def test_one_token_a_patch(patch: int, layers: int) -> None:
    stem = ConvStem(3, 48, patch)
    assert stem(torch.zeros(2, 3, 3 * patch, 5 * patch)).shape == (2, 48, 3, 5)
    assert sum(isinstance(part, torch.nn.Conv2d) for part in stem) == layers + 1


def test_takes_the_place_of_the_linear_map() -> None:
    vit = VisionTransformer(3, 12, (2, 2), 24, 1, 3, embed_patches=ConvStem(3, 24, 12))
    assert vit(torch.zeros(2, 3, 24, 24)).shape == (2, 24)
    assert any(name.startswith("embed_patches.") for name in vit.state_dict())


def test_a_token_depends_on_its_surroundings_but_not_on_the_other_end() -> None:
    torch.manual_seed(0)
    stem, image = ConvStem(1, 8, 4), torch.zeros(1, 1, 32, 32)
    changed = image.clone()
    changed[..., :4, :4] = 1.0
    difference = (stem(changed) - stem(image)).abs().sum(1)[0] > 1e-6
    assert difference[0, 0]
    assert not difference[2:, 2:].any()


@pytest.mark.parametrize("patch", [2, 3, 4, 7, 12, 16])
def test_the_field_of_a_token_is_centred_on_its_patch(patch: int) -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 1, 9 * patch, 9 * patch, requires_grad=True)
    ConvStem(1, 8, patch)(image)[0, :, 4, 4].square().sum().backward()
    assert image.grad is not None
    for axis in (0, 1):
        seen = image.grad[0, 0].abs().sum(axis).nonzero().flatten()
        assert int(seen[0]) + int(seen[-1]) == 9 * patch - 1


def test_patches_of_one_pixel_are_refused() -> None:
    with pytest.raises(ValueError, match="2 pixels"):
        ConvStem(3, 8, 1)
