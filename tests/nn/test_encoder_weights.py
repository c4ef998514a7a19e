"""Encoder files: there and back bit for bit, frozen or not, never a pickle, and a misfit names its tensors."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from wsi_attention.encoders.encoder_weights import fill_encoder, read_encoder, save_encoder
from wsi_attention.errors import InputError
from wsi_attention.nn.blocks import Encoder
from wsi_attention.nn.encoders import Frozen, SmallEncoder, TileEncoder


def small(seed: int, frozen: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    encoder: nn.Module = TileEncoder(name="small", widths=(8, 16), features=12, frozen=frozen).build()
    return encoder


@pytest.mark.parametrize("source_frozen", [False, True])
@pytest.mark.parametrize("target_frozen", [False, True])
def test_there_and_back_frozen_or_not(source_frozen: bool, target_frozen: bool, tmp_path: Path) -> None:
    source, target = small(0, source_frozen), small(1, target_frozen)
    save_encoder(tmp_path / "new" / "e.safetensors", source, mean=(0.7, 0.6, 0.5), std=(0.1, 0.2, 0.3))
    weights = read_encoder(tmp_path / "new" / "e.safetensors")
    assert (weights.mean, weights.std) == ((0.7, 0.6, 0.5), (0.1, 0.2, 0.3))
    fill_encoder(target, weights.tensors, "e")
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(source.eval()(x), target.eval()(x))


def test_the_file_has_the_encoders_own_names_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    first, second = (save_encoder(tmp_path / f"{i}.safetensors", small(0, bool(i))) for i in (0, 1))
    assert first == second
    plain = SmallEncoder(widths=(8, 16), dim=12)
    plain.load_state_dict(load_file(tmp_path / "1.safetensors"))


def test_a_frozen_part_keeps_its_names_inside_a_model_and_in_a_copy() -> None:
    def model(frozen: bool) -> nn.ModuleDict:
        return nn.ModuleDict({"encoder": small(0, frozen), "head": nn.Linear(12, 2)})

    frozen, plain = model(True), model(False)
    assert list(frozen.state_dict()) == list(plain.state_dict())
    frozen.load_state_dict(plain.state_dict())
    copied = copy.deepcopy(frozen)
    copied.load_state_dict(plain.state_dict())
    assert torch.equal(copied.state_dict()["encoder.project.bias"], plain.state_dict()["encoder.project.bias"])
    with pytest.raises(RuntimeError, match=r"Missing key.*encoder\.network\.project\.bias"):
        frozen.load_state_dict({k: v for k, v in plain.state_dict().items() if k != "encoder.project.bias"})


def test_a_child_called_network_is_not_mistaken_for_the_wrapper() -> None:
    inner = Encoder()
    inner.dim, inner.network, inner.norm = 3, nn.Linear(2, 3), nn.LayerNorm(3)
    frozen = Frozen(inner)
    assert list(frozen.state_dict()) == ["network.weight", "network.bias", "norm.weight", "norm.bias"]
    frozen.load_state_dict({name: torch.zeros_like(value) for name, value in inner.state_dict().items()})
    assert not inner.state_dict()["network.weight"].any()


def test_misfits_are_named() -> None:
    weights = dict(small(0).state_dict())
    weights["project.bias"] = torch.zeros(5)
    weights["project.weight"] = weights["project.weight"] / 0
    del weights["trunk.0.weight"]
    weights |= {f"head.{i}": torch.zeros(1) for i in range(5)}
    with pytest.raises(InputError) as caught:
        fill_encoder(small(1), weights, "e.safetensors")
    assert str(caught.value) == (
        "the weights of e.safetensors do not fit the encoder: 1 missing: trunk.0.weight; "
        "5 unexpected: head.0, head.1, head.2, ...; 1 of another shape: project.bias (5,) instead of (12,); "
        "1 not finite: project.weight"
    )


def test_a_published_classifier_is_left_out_and_half_precision_is_taken(tmp_path: Path) -> None:
    source, target = TileEncoder(name="resnet18").build(), TileEncoder(name="resnet18", frozen=True).build()
    half = {name: value.half() if value.is_floating_point() else value for name, value in source.state_dict().items()}
    save_file(half | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, tmp_path / "r.safetensors")
    fill_encoder(target, read_encoder(tmp_path / "r.safetensors").tensors, "r")
    assert target.state_dict()["conv1.weight"].dtype == torch.float32
    torch.testing.assert_close(target.state_dict()["conv1.weight"], half["conv1.weight"].float())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_a_pickle_is_refused_with_the_way_out(suffix: str, tmp_path: Path) -> None:
    torch.save(small(0).state_dict(), tmp_path / f"e{suffix}")
    with pytest.raises(
        InputError, match=r"not opened; convert it once: wsi-attention encoders convert .*e\."
    ) as caught:
        read_encoder(tmp_path / f"e{suffix}")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "e.safetensors").write_bytes(b"PK\3\4 no tensors here")
    for name in ("e.safetensors", "nowhere.safetensors"):
        with pytest.raises(InputError, match=f"{name} cannot be read"):
            read_encoder(tmp_path / name)
