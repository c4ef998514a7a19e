"""Opens what runs a batch elsewhere: a scheduler that is there, worker processes on this machine, jobs of Slurm."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from wsi_attention.errors import ClusterError, InputError, MissingExtraError
from wsi_attention.inference.cluster_runner import GPU, Cluster

if TYPE_CHECKING:
    from distributed import Client

TIMEOUT = 10.0
"""Seconds to reach a scheduler."""
DEATHS = 1
"""Workers that may die of a slide before it is set aside, in clusters that are ours; dask's own default is 3."""

LOGS = ("distributed", "dask_jobqueue", "tornado", "asyncio")


@contextmanager
def open_cluster(
    scheduler: str | None = None, local: int | None = None, slurm: str | Path | None = None, device: str = "auto"
) -> Iterator[Cluster | None]:
    """What `batch.classify` takes as `executor`; closed at the end, with all that was started for it.

    A script that starts local workers needs `if __name__ == "__main__":`, for they import it.

    Args:
        scheduler: address of a dask scheduler (tcp://…, tls://…) or path of its scheduler file.
        local: number of worker processes to start on this machine; with GPUs, at most one for each.
        slurm: path of a TOML file, see `slurm.read_config`.
        device: where the models will compute, as in `batch.classify`.

    Yields:
        The cluster; None if nothing was asked for.

    Raises:
        InputError: more than one was asked for, or a value is wrong.
        ClusterError: it cannot be reached or started.
        MissingExtraError: a package is not installed.
    """
    asked = {"scheduler": scheduler, "local-cluster": local, "slurm": slurm}
    given = [f"--{name}" for name, value in asked.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"give one of {' and '.join(given)}")
    if not given:
        yield None
        return
    _check_installed("distributed", "cluster")
    with quiet(), ExitStack() as stack:
        if scheduler is not None:
            client = _connected(stack, **_where(scheduler))
            yield Cluster(client, f"scheduler {scheduler}", patience=3 * TIMEOUT)
        elif local is not None:
            client = _connected(stack, address=stack.enter_context(local_workers(local, device)))
            yield Cluster(client, f"local cluster of {local}", expected=local)
        else:
            assert slurm is not None
            from wsi_attention.inference import slurm as jobs

            _check_installed("dask_jobqueue", "slurm")
            config = jobs.read_config(slurm)
            client = _connected(stack, address=stack.enter_context(jobs.slurm_jobs(config)))
            yield Cluster(client, f"Slurm jobs of {slurm}", patience=config.wait)


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


@contextmanager
def own_scheduler() -> Iterator[None]:
    """Within it, a new scheduler gives up on a slide after few deaths, and no worker is given up that starts slowly."""
    import dask

    wishes = {"distributed.scheduler.allowed-failures": DEATHS, "distributed.deploy.lost-worker-timeout": "10 minutes"}
    with dask.config.set(wishes):
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the logs of a cluster from the terminal; what matters is raised, or in the results."""
    import distributed  # noqa: F401  # sets up its log when it is imported

    before = {logger: logger.level for logger in map(logging.getLogger, LOGS)}
    for logger in before:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


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


def _where(scheduler: str) -> dict[str, Any]:
    if "://" in scheduler:
        return {"address": scheduler}
    if Path(scheduler).is_file():
        return {"scheduler_file": scheduler}
    raise InputError(
        f"--scheduler {scheduler}: neither an address like tcp://host:8786 nor a scheduler file that is there"
    )


def _connected(stack: ExitStack, **where: Any) -> Client:
    from distributed import Client
    from distributed.security import Security

    given = where.get("scheduler_file") or where["address"]
    given = str(getattr(given, "scheduler_address", given))
    if given.startswith("tls:") and Security().get_connection_args("client")["ssl_context"] is None:
        raise ClusterError(f"{given} needs certificates: name them in dask's configuration, distributed.comm.tls")
    try:
        client = Client(timeout=TIMEOUT, set_as_default=False, **where)
    except (OSError, ValueError) as error:
        raise ClusterError(f"no scheduler at {given} ({' '.join(str(error).split())}); is it running?") from error
    stack.callback(_close, client)
    return client


def _close(client: Client) -> None:
    with suppress(OSError):  # the scheduler may be gone, its workers have nothing of ours
        client.close(timeout=TIMEOUT)


def _check_installed(package: str, extra: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise MissingExtraError(
            f"this needs the package {package}; install it with: pip install 'wsi-attention[{extra}]'"
        )
