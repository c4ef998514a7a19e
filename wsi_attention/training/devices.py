"""A `Fabric` from the names that a user writes."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from wsi_attention.errors import InputError
from wsi_attention.inference.devices import device_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed"}
"""Our names -> Fabric's."""


def fabric_on(device: str, processes: int, precision: str) -> Fabric:
    """Return a launched Fabric that starts its processes itself, whatever job scheduler it runs under.

    The environment is given, not guessed: in a Slurm job of several tasks, or where `srun` is on the PATH, a guess
    takes the job's tasks for the processes of the training.

    Args:
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        processes: how many of them work together; above 1 with "cpu" or "cuda" only.
        precision: "32" or "bf16".

    Raises:
        InputError: there is no such device here, or this process is one of several that `srun` started.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    _only_task()
    kind, _, number = _named(device).partition(":")
    if processes < 1 or (number and processes > 1) or (kind == "mps" and processes > 1):
        raise InputError(f"{processes} processes do not fit device {device!r}; name the kind alone, such as cuda")
    chosen: Any = [int(number)] if number else processes
    fabric = Fabric(
        accelerator=kind,
        devices=chosen,
        precision=PRECISIONS[precision],  # type: ignore[arg-type]
        plugins=[LightningEnvironment()],
    )
    fabric.launch()
    return fabric


def _only_task() -> None:
    """Refuse to be the second training of a folder, for `srun` starts a command once for each task.

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
    """The device's own name, once it is known to be there; the kind alone for "auto", so that it fits any processes."""
    found = device_of(device)
    return found.type if device == "auto" else str(found)
