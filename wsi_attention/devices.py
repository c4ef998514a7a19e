"""Which device computes, in which precision, and the processes of a training."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from threading import Lock
from typing import TYPE_CHECKING, Literal, TypeVar, cast, get_args

import torch
from torch import nn

from wsi_attention.errors import InputError
from wsi_attention.extras import how_to_install

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Precision = Literal["auto", "32", "bf16", "openvino", "int8"]
Used = Literal["32", "bf16", "openvino", "int8"]
Network = TypeVar("Network", bound=nn.Module)
_PLACING = Lock()


def device_of(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first CUDA GPU, else the CPU.

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


def gpus_named(asked: str | Sequence[int], device: str = "auto") -> tuple[str, ...]:
    """Return the devices that were asked for by number.

    Args:
        asked: "all", numbers with commas between such as "0,1", or numbers.
        device: what was asked for beside them; only "auto" goes together with GPUs.

    Raises:
        InputError: there is no such GPU here, it was named twice, a number is none, or a device was named too.
    """
    if device != "auto":
        raise InputError(f"gpus {asked!r} and device {device!r} were both asked for; give one of them")
    count = torch.cuda.device_count()
    there = f"{count} GPU{'' if count == 1 else 's'} here"
    try:
        numbers = [*range(count)] if asked == "all" else [int(one) for one in _listed(asked)]
    except ValueError:
        raise InputError(f"gpus {asked!r}: give numbers such as 0,1 or all; {there}") from None
    if not numbers or len({*numbers}) < len(numbers) or not all(0 <= number < count for number in numbers):
        raise InputError(f"gpus {asked!r}: {there}; name each by its number, from 0 on, once")
    return tuple(f"cuda:{number}" for number in numbers)


def _listed(asked: str | Sequence[int]) -> Sequence[str | int]:
    return asked.replace(",", " ").split() if isinstance(asked, str) else asked


def precision_named(text: str) -> Precision:
    """Return a text as a precision.

    Raises:
        InputError: there is no such precision.
    """
    if text not in get_args(Precision):
        raise InputError(f"no precision {text!r}; possible: {', '.join(get_args(Precision))}")
    return cast(Precision, text)


def precision_on(device: torch.device, wanted: str) -> Used:
    """Return the precision used on a device: "auto" is "bf16" where the hardware multiplies in bfloat16, else "32".

    On CPUs that is AVX-512 BF16 or AMX. Emulated bfloat16 is slower than float32 and does not count. "openvino" is
    float32, the tile encoder compiled by OpenVINO for the CPU; "int8" the same with the model's quantised encoder.

    Raises:
        InputError: there is no such precision, or one of OpenVINO was asked for a GPU or without it installed.
    """
    named = precision_named(wanted)
    if named in ("openvino", "int8"):
        _check_openvino(device, named)
    if named == "auto":
        return "bf16" if _multiplies_in_bfloat16(device) else "32"
    return named


def openvino_version() -> str:
    """Return the version of OpenVINO, without importing it; empty where it is not installed."""
    try:
        return version("openvino")
    except PackageNotFoundError:
        return ""


def _check_openvino(device: torch.device, named: str) -> None:
    if device.type != "cpu":
        raise InputError(f"precision {named} computes on the CPU, and the device is {device}; give --device cpu, or 32")
    if not openvino_version():
        raise InputError(f"precision {named} needs the package openvino; {how_to_install('openvino')}")


def autocast(device: torch.device, precision: Used) -> AbstractContextManager[object]:
    """Return the context of a forward pass; parts that decide something leave it again (`in_float32`)."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def placed(network: Network, device: torch.device) -> Network:
    """Place a network on the device, its weights channels-last like its input, and return the same network.

    A network that lies there already is not touched, for another thread may be computing with it.
    """
    with _PLACING:
        if not all(_lies(tensor, device) for tensor in (*network.parameters(), *network.buffers())):
            move: Callable[..., object] = network.to(device).to
            move(memory_format=torch.channels_last)
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


PRECISIONS: dict[str, Literal["32-true", "bf16-mixed"]] = {"32": "32-true", "bf16": "bf16-mixed"}
"""Our names -> those of Fabric."""


def fabric_on(device: str, processes: int, precision: str) -> Fabric:
    """Return a launched Fabric that starts its processes itself, whatever job scheduler it runs under.

    The environment is given, not guessed: in a Slurm job of several tasks, or where `srun` is on the PATH, a guess
    takes the job's tasks for the processes of the training.

    Args:
        device: "auto", "cpu", "cuda", "cuda:1", "mps"; or several such as "cuda:0,cuda:1", a process on each.
        processes: how many of them work together; above 1 with "cpu" or "cuda" only. Not looked at for several devices.
        precision: "32" or "bf16".

    Raises:
        InputError: there is no such device here, or this process is one of several that `srun` started.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    _only_task()
    kind, chosen = _chosen(device, processes)
    fabric = Fabric(
        accelerator=kind,
        devices=chosen,
        precision=PRECISIONS[precision],
        plugins=[LightningEnvironment()],
    )
    fabric.launch()
    return fabric


def _chosen(device: str, processes: int) -> tuple[str, list[int] | int]:
    """Return a kind of device, and which or how many of it."""
    if "," in device:
        kinds, numbers = zip(*(_named(one).split(":") for one in device.split(",")), strict=True)
        return str(kinds[0]), [*map(int, numbers)]
    kind, _, number = _named(device).partition(":")
    if processes < 1 or (number and processes > 1) or (kind == "mps" and processes > 1):
        raise InputError(f"{processes} processes do not fit device {device!r}; name the kind alone, such as cuda")
    return kind, [int(number)] if number else processes


def _only_task() -> None:
    """Refuse to be the second training of a folder, because `srun` starts a command once for each task.

    Raises:
        InputError: another task does the training.
    """
    task = os.environ.get("SLURM_PROCID", "0")
    if task not in ("", "0"):
        raise InputError(
            f"srun started this training as task {task} of {os.environ.get('SLURM_NTASKS', 'several')}, beside task 0; "
            "start it once (without srun, or srun --ntasks=1) and give the number of devices with --devices"
        )


def _named(device: str) -> str:
    """Return the name of a device that exists here; the kind alone for "auto", so that it fits several processes."""
    found = device_of(device)
    return found.type if device == "auto" else str(found)
