"""Opens what runs a batch elsewhere: a scheduler that is there, worker processes on this machine, jobs of Slurm."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_attention.errors import ClusterError, InputError, MissingExtraError
from wsi_attention.extras import how_to_install
from wsi_attention.inference.cluster.runner import TIMEOUT, Cluster, local_workers

if TYPE_CHECKING:
    from distributed import Client

LOGS = ("distributed", "dask_jobqueue", "tornado", "asyncio")


@contextmanager
def open_cluster(
    scheduler: str | None = None, local: int | None = None, slurm: str | Path | None = None, device: str = "auto"
) -> Iterator[Cluster | None]:
    """Yield what `batch.classify` takes as `executor`; it is closed at the end, with all that was started for it.

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
            from wsi_attention.inference.cluster import slurm as jobs

            _check_installed("dask_jobqueue", "slurm")
            config = jobs.read_config(slurm)
            client = _connected(stack, address=stack.enter_context(jobs.slurm_jobs(config)))
            yield Cluster(client, f"Slurm jobs of {slurm}", patience=config.wait)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the logs of a cluster off the terminal; what matters is raised, or written to the results."""
    import distributed  # noqa: F401  # sets up its log when it is imported

    before = {logger: logger.level for logger in map(logging.getLogger, LOGS)}
    for logger in before:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


def _where(scheduler: str) -> dict[str, str]:
    if "://" in scheduler:
        return {"address": scheduler}
    if Path(scheduler).is_file():
        return {"scheduler_file": scheduler}
    raise InputError(
        f"--scheduler {scheduler}: neither an address like tcp://host:8786 nor a scheduler file that is there"
    )


def _connected(stack: ExitStack, **where: object) -> Client:
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
        raise MissingExtraError(f"this needs the package {package}; {how_to_install(extra)}")
