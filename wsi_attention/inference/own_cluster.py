"""A cluster of our own: worker processes on this machine, and how a scheduler that we start behaves."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from wsi_attention.errors import ClusterError, InputError
from wsi_attention.inference.cluster_runner import GPU

TIMEOUT = 10.0
"""Seconds to reach a scheduler."""
DEATHS = 1
"""Workers that may die of a slide before it is set aside, in clusters that are ours; dask's own default is 3."""


KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": None}
"""What dask shall not tell workers: to hand back every freed block at once makes an overview three times dearer."""


@contextmanager
def own_scheduler() -> Iterator[None]:
    """Within it, a new scheduler gives up on a slide after few deaths, no worker is given up that starts slowly, and
    workers keep memory that they will need again."""
    import dask

    wishes = {
        "distributed.scheduler.allowed-failures": DEATHS,
        "distributed.deploy.lost-worker-timeout": "10 minutes",
        **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in KEEP_MEMORY.items()},
    }
    with dask.config.set(wishes):
        yield


@contextmanager
def local_workers(number: int, device: str = "auto") -> Iterator[Any]:
    """A `distributed` cluster of processes on this machine, one slide at a time each.

    Raises:
        InputError: fewer than one, or more than there are GPUs.
    """
    from distributed import Nanny, Scheduler, SpecCluster

    options = {name: _worker_options(name, visible) for name, visible in enumerate(_visible(number, device))}
    listening = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    with TemporaryDirectory(prefix="wsi-attention-", ignore_cleanup_errors=True) as folder, own_scheduler():
        workers = {name: {"cls": Nanny, "options": one | {"local_directory": folder}} for name, one in options.items()}
        try:
            cluster = SpecCluster(workers=workers, scheduler={"cls": Scheduler, "options": listening})
        except RuntimeError as error:
            raise ClusterError(
                "the worker processes did not start; a script that starts them needs the line"
                f" if __name__ == '__main__': ({error})"
            ) from error
        try:
            yield cluster
        finally:
            _stop(cluster)


def _stop(cluster: Any) -> None:
    """Ends a cluster soon: what its workers still do is of no use to anybody."""

    async def stop() -> None:
        await asyncio.gather(*(nanny.close(timeout=1) for nanny in cluster.workers.values()), return_exceptions=True)

    cluster.sync(stop)
    cluster.close(timeout=TIMEOUT)


def _worker_options(name: int, visible: str | None) -> dict[str, Any]:
    """Options of a `Nanny`; no limit on memory, for a slide here needs no more than in one process."""
    options: dict[str, Any] = {"name": name, "nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    options["preload"] = ["wsi_attention.inference.worker_plugin"]
    if visible is not None:
        options |= {"resources": {GPU: 1}, "env": {"CUDA_VISIBLE_DEVICES": visible}}
    return options


def _visible(number: int, device: str) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of each worker; None without GPUs."""
    import torch

    if number < 1:
        raise InputError(f"--local-cluster needs at least one worker, got {number}")
    cards = 0 if device.startswith("cpu") else torch.cuda.device_count()
    if not cards:
        return [None] * number
    if number > cards:
        raise InputError(
            f"--local-cluster {number}: {cards} GPU here, a worker needs its own; give {cards}, or --device cpu"
        )
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [*(named.split(",") if named else map(str, range(cards)))][:number]
