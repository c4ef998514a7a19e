"""EfficientNet-lite0: timm's network with timm's names; several stages pooled; tiles of any size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from wsi_attention.encoders.efficientnet_lite import HEAD, STAGES, EfficientNetLite0, timm_names
from wsi_attention.encoders.libraries import timm_package
from wsi_attention.errors import MissingExtraError

PARAMETERS = 4_652_008
"""Of the published network with its classifier of 1000 classes."""


def images(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def shaken(network: nn.Module) -> nn.Module:
    """A network whose running statistics are not those of a fresh one."""
    generator = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.copy_(torch.rand(value.shape, generator=generator) * 0.2 + (0.9 if "var" in name else 0))
    return network.eval()


def test_it_has_the_published_size() -> None:
    network = EfficientNetLite0(stages=(8,))
    assert network.dim == HEAD
    classifier = HEAD * 1000 + 1000
    assert sum(value.numel() for value in network.parameters()) + classifier == PARAMETERS


@pytest.mark.parametrize(("stages", "dim"), [((3, 5, 7), 472), ((1,), 16), ((8, 2), 1304)])
def test_pooled_stages_are_joined_each_with_the_same_weight(stages: tuple[int, ...], dim: int) -> None:
    network = shaken(EfficientNetLite0(stages=stages))
    assert network.dim == dim
    with torch.no_grad():
        for side in ((96, 96), (75, 130)):
            features = network(images(*side))
            assert features.shape == (2, dim)
            torch.testing.assert_close(features.norm(dim=-1), torch.ones(2))
            torch.testing.assert_close(network(images(*side)[1:]), features[1:], atol=1e-6, rtol=1e-4)
            widths = [(*(stage.width for stage in STAGES), HEAD)[stage - 1] for stage in sorted(stages)]
            for part in features.split(widths, dim=-1):
                torch.testing.assert_close(part.norm(dim=-1), torch.full((2,), len(stages) ** -0.5))
    assert network.get_submodule(network.map_layer) is not None


def test_stages_that_it_does_not_have_are_refused() -> None:
    for stages in ((), (0,), (9,)):
        with pytest.raises(ValueError, match="stages of efficientnet-lite0 are 1 to 8, got"):
            EfficientNetLite0(stages=stages)


def test_features_are_those_of_timm() -> None:
    try:
        theirs = shaken(timm_package().create_model("tf_efficientnet_lite0", num_classes=0))
    except MissingExtraError as error:
        pytest.skip(str(error))
    ours = EfficientNetLite0(stages=(8,)).eval()
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        for side in ((96, 96), (75, 130), (224, 224)):
            expected = nn.functional.normalize(theirs(images(*side)), dim=-1)
            assert torch.equal(ours(images(*side)), expected)


def test_names_of_the_package_become_timms() -> None:
    theirs = {
        "_conv_stem.weight": "conv_stem.weight",
        "_bn0.running_mean": "bn1.running_mean",
        "_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight",
        "_blocks.0._project_conv.weight": "blocks.0.0.conv_pw.weight",
        "_blocks.0._bn2.bias": "blocks.0.0.bn2.bias",
        "_blocks.2._expand_conv.weight": "blocks.1.1.conv_pw.weight",
        "_blocks.15._bn2.weight": "blocks.6.0.bn3.weight",
        "_bn1.weight": "bn2.weight",
        "_fc.bias": "classifier.bias",
    }
    values = {name: torch.full((1,), float(index)) for index, name in enumerate(theirs)}
    renamed = timm_names(values)
    assert [*renamed] == [*theirs.values()]
    assert all(renamed[new] is values[old] for old, new in theirs.items())
    for wrong in ("_blocks.16._bn2.weight", "_blocks.0._expand_conv.weight", "blocks.0.weight", "_fc"):
        with pytest.raises(ValueError, match=wrong):
            timm_names({wrong: torch.ones(1)})
