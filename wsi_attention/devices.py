"""Where a model computes and how exactly: names a user writes, and what "auto" means; for predictions and training."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any, Literal, TypeVar, cast, get_args

import torch
from torch import nn

from wsi_attention.errors import InputError

Precision = Literal["auto", "32", "bf16"]
Used = Literal["32", "bf16"]
Network = TypeVar("Network", bound=nn.Module)
_PLACING = Lock()


def device_of(name: str) -> torch.device:
    """The device of that name; "auto" is the first CUDA GPU, else the CPU.

    "auto" is never Apple's "mps": draws and estimates are in float64, which it has not.

    Raises:
        InputError: there is no such device here; the text lists those there are.
    """
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        found += ["mps"] if torch.backends.mps.is_available() else []
        raise InputError(f"no device {name!r} here; found: {', '.join(found)}") from error
    return device


def precision_on(device: torch.device, wanted: str) -> Used:
    """What is computed in on a device: "auto" is "bf16" where the hardware multiplies in bfloat16, else "32".

    On CPUs that is AVX-512 BF16 or AMX. Emulated bfloat16 is slower than float32 and does not count.

    Raises:
        InputError: there is no such precision.
    """
    if wanted == "auto":
        return "bf16" if _multiplies_in_bfloat16(device) else "32"
    if wanted not in get_args(Used):
        raise InputError(f"no precision {wanted!r}; possible: auto, 32, bf16")
    return cast("Used", wanted)


def autocast(device: torch.device, precision: Used) -> AbstractContextManager[Any]:
    """What a forward pass runs in; parts that decide something leave it again (`nn.precision.in_float32`)."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def placed(network: Network, device: torch.device) -> Network:
    """The network itself, on the device and with channels-last weights, as its input is: nothing is turned round.

    A network that lies there already is not touched, for another thread may be computing with it.
    """
    with _PLACING:
        if not all(_lies(tensor, device) for tensor in (*network.parameters(), *network.buffers())):
            network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _lies(tensor: torch.Tensor, device: torch.device) -> bool:
    there = tensor.device.type == device.type and device.index in (None, tensor.device.index)
    return there and (tensor.dim() != 4 or tensor.is_contiguous(memory_format=torch.channels_last))


def _multiplies_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return False
