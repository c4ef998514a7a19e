"""Where training computes, and how exactly: names a user writes, turned into a `Fabric`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from wsi_attention.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}
"""Our names -> Fabric's."""


def fabric_on(device: str, processes: int, precision: str) -> Fabric:
    """A launched Fabric.

    Args:
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        processes: how many of them work together; above 1 with "cpu" or "cuda" only.
        precision: "32" or "bf16".

    Raises:
        InputError: there is no such device here.
    """
    from lightning_fabric import Fabric

    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    kind, _, number = _resolved(device).partition(":")
    if processes < 1 or (number and processes > 1) or (kind == "mps" and processes > 1):
        raise InputError(f"{processes} processes do not fit device {device!r}; name the kind alone, such as cuda")
    chosen: Any = [int(number)] if number else processes
    fabric = Fabric(accelerator=kind, devices=chosen, precision=PRECISIONS[precision])  # type: ignore[arg-type]
    fabric.launch()
    return fabric


def precision_on(device: str, wanted: str) -> str:
    """What "auto" means on a device: "bf16" where the hardware multiplies in it, else "32"; others as they are."""
    if wanted != "auto":
        return wanted
    kind = _resolved(device).partition(":")[0]
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    if kind == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        able = torch.cpu.get_capabilities()
        return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "32"
    return "32"


def _resolved(device: str) -> str:
    """The device's own name; "auto" is the first accelerator, else the CPU."""
    cards = torch.cuda.device_count()
    apple = torch.backends.mps.is_available()
    if device == "auto":
        return "cuda" if cards else "mps" if apple else "cpu"
    there = ["cpu", *(["cuda"] if cards else []), *(f"cuda:{i}" for i in range(cards)), *(["mps"] if apple else [])]
    if device not in there:
        raise InputError(f"no device {device!r} here; found: {', '.join(there)}")
    return device
