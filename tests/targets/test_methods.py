"""Which methods learn other targets, and that losses and spreads of those that do are in the target's terms."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wsi_attention.checkpoint import Classifier
from wsi_attention.errors import InputError, ModelError
from wsi_attention.methods.method import build_model, find_method
from wsi_attention.protocols import AnyTarget
from wsi_attention.targets.find import aim
from wsi_attention.targets.ordinal import Grades, WantedGrade
from wsi_attention.targets.regression import Numbers, WantedNumbers
from wsi_attention.targets.several_labels import SeveralLabels, WantedLabels
from wsi_attention.targets.survival import Survival, WantedSurvival
from wsi_attention.targets.target import Target, Truth
from wsi_attention.tiles.tensors import TensorSource

ABLE = ("ats", "grow", "mil", "rams-trans", "zoom-in")
ORDER = ("G1", "G2", "G3")
TARGETS: tuple[tuple[Target, Truth], ...] = (
    (Grades(ORDER, WantedGrade(ORDER)), (1.0,)),
    (SeveralLabels(("ER", "PR"), WantedLabels(("ER", "PR"), False)), (1.0, 0.0)),
    (Numbers(("age",), (60.0,), (10.0,), WantedNumbers(("age",))), (71.0,)),
    (Survival((10.0, 20.0), WantedSurvival()), (12.0, 1.0)),
)


def source() -> TensorSource:
    pixels = torch.randint(90, 200, (1, 3, 512, 512), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return TensorSource(pixels, mpp=0.5)


def model_for(method: str, target: Target, arguments: dict[str, dict[str, Any]]) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_model(method, target.outputs, **arguments[method])
    aim(model, target)
    return model


def test_methods_say_what_their_models_are(small_arguments: dict[str, dict[str, Any]]) -> None:
    for name, arguments in small_arguments.items():
        model = build_model(name, 2, **arguments)
        assert isinstance(model, AnyTarget) == find_method(name).any_target == (name in ABLE), name
        if name not in ABLE:
            with pytest.raises(InputError, match="can be asked for one label a slide alone"):
                aim(model, TARGETS[0][0])


@pytest.mark.parametrize("method", ABLE)
@pytest.mark.parametrize(("target", "truth"), TARGETS, ids=[target.kind for target, _ in TARGETS])
def test_the_targets_loss_stands_in_place_of_cross_entropy(
    method: str, target: Target, truth: Truth, small_arguments: dict[str, dict[str, Any]]
) -> None:
    model = model_for(method, target, small_arguments).train()
    if method == "zoom-in":
        model.start_epoch(20, 30, [1.0])  # after the warm-up: for one label the contrastive pass begins
    output = model(source(), torch.Generator().manual_seed(1))
    known = target.tensor([truth])
    found = model.loss(output, known)
    if method == "mil":
        assert found.item() == pytest.approx(target.loss(output.logits, known).item(), abs=1e-6)
    found.backward()
    assert any(one.grad is not None and bool(one.grad.abs().sum() > 0) for one in model.parameters())
    assert output.tile_evidence is None


@pytest.mark.parametrize(("target", "truth"), TARGETS, ids=[target.kind for target, _ in TARGETS])
def test_what_a_tile_brings_is_counted_in_the_targets_loss(
    target: Target, truth: Truth, small_arguments: dict[str, dict[str, Any]]
) -> None:
    both = []
    for gradient in ("centred", "leave-one-out"):
        own = small_arguments["grow"] | {"gradient": gradient, "learn_weight": 0.0, "overview_weight": 0.0}
        model = model_for("grow", target, {"grow": own}).train()
        loss = model.loss(model(source(), torch.Generator().manual_seed(1)), target.tensor([truth]))
        loss.backward()
        both.append((loss.item(), {name: one.grad for name, one in model.named_parameters() if one.grad is not None}))
    (plain, centred), (same, left_out) = both
    assert plain == pytest.approx(same, abs=1e-6)
    assert torch.equal(centred["classifier.linear.weight"], left_out["classifier.linear.weight"])
    differ = [name for name, one in left_out.items() if not torch.allclose(one, centred[name], rtol=1e-3, atol=1e-9)]
    assert differ and all(name.startswith("attention.") for name in differ), differ


@pytest.mark.parametrize("method", ["ats", "zoom-in"])
def test_the_spread_of_a_number_is_in_its_unit(method: str, small_arguments: dict[str, dict[str, Any]]) -> None:
    spreads = []
    for deviation in (1.0, 10.0):
        target = Numbers(("age",), (60.0,), (deviation,), WantedNumbers(("age",)))
        model = model_for(method, target, small_arguments).eval()
        spreads.append(float(model(source(), torch.Generator().manual_seed(1)).spread))
    assert spreads[0] > 0
    assert spreads[1] == pytest.approx(10 * spreads[0], rel=1e-3)


def test_what_takes_one_class_a_slide_refuses_other_models() -> None:
    config: Any = {"target": Survival((10.0, 20.0), WantedSurvival()).as_dict()}
    model = Classifier(torch.nn.Identity(), ("10", "20"), config, "0" * 64, "months")
    with pytest.raises(
        ModelError, match="model months was asked for 'survival', and TIAToolbox takes one class a slide"
    ):
        model.check_one_class("TIAToolbox")
    Classifier(torch.nn.Identity(), ("a", "b"), {}, "0" * 64, "plain").check_one_class("TIAToolbox")  # type: ignore[typeddict-item]
