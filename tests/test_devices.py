"""Names of devices and precisions as users write them, and what "auto" makes of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from wsi_attention.devices import autocast, device_of, gpus_named, placed, precision_on
from wsi_attention.errors import InputError

CPU = torch.device("cpu")


def test_auto_precision_is_what_the_processor_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (precision_on(CPU, "bf16"), precision_on(CPU, "32")) == ("bf16", "32")
    for able in ({"avx512_bf16": True}, {"amx_bf16": True}, {"avx512_f": True}, {}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able, raising=False)
        expected = "bf16" if {"avx512_bf16", "amx_bf16"} & able.keys() else "32"
        assert precision_on(CPU, "auto") == expected


def test_auto_precision_without_a_word_from_torch_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert precision_on(CPU, "auto") == "32"


def test_auto_is_the_first_gpu_that_has_float64_or_the_cpu() -> None:
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_names_that_mean_nothing() -> None:
    with pytest.raises(InputError, match="no precision '8'; possible: auto, 32, bf16"):
        precision_on(CPU, "8")
    with pytest.raises(InputError, match=r"no device 'abacus' here; found: cpu"):
        device_of("abacus")


def test_autocast_is_on_for_bf16_only() -> None:
    layer, x = nn.Linear(4, 4), torch.ones(1, 4)
    with autocast(CPU, "bf16"):
        assert layer(x).dtype == torch.bfloat16
    with autocast(CPU, "32"):
        assert layer(x).dtype == torch.float32


def test_placed_weights_are_channels_last_and_the_same() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(4, 4))
    before = network[0].weight.detach().clone()  # type: ignore[union-attr]
    assert placed(network, CPU) is network
    after: torch.Tensor = network[0].weight  # type: ignore[assignment]
    assert after.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(before, after)


class Moved(nn.Conv2d):
    """Says when something moves its weights."""

    moves = 0

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self.moves += 1
        return super()._apply(*args, **kwargs)


def test_a_network_that_lies_there_is_not_touched() -> None:
    """Another thread may be computing with it: weights taken away under it gave NaN, or ended the process."""
    network = Moved(3, 4, 3)
    placed(network, torch.device("cpu"))
    assert network.weight.is_contiguous(memory_format=torch.channels_last)
    moves = network.moves
    placed(network, torch.device("cpu"))
    assert network.moves == moves > 0


def test_gpus_are_named_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert gpus_named("all") == ("cuda:0", "cuda:1", "cuda:2")
    assert gpus_named("2,0") == gpus_named("2 0") == gpus_named((2, 0)) == ("cuda:2", "cuda:0")
    for wrong in ("3", "0,0", "", "-1", (1, 1)):
        with pytest.raises(InputError, match="3 GPUs here; name each by its number"):
            gpus_named(wrong)
    with pytest.raises(InputError, match="device 'cpu' were both asked for"):
        gpus_named("all", "cpu")
    with pytest.raises(InputError, match="give numbers such as 0,1 or all"):
        gpus_named("first")
