"""Workers as jobs of Slurm, over dask-jobqueue; a TOML file says what they ask for."""

from __future__ import annotations

import inspect
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from wsi_attention.errors import ClusterError, InputError
from wsi_attention.inference.cluster.runner import KEEP_MEMORY, TIMEOUT, own_scheduler

if TYPE_CHECKING:
    from dask_jobqueue.slurm import SLURMCluster

NEEDED = ("cores", "memory")
KEEPING = f'export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON="{KEEP_MEMORY}"'
"""A line of the job's script, for workers there."""


@dataclass(frozen=True)
class SlurmConfig:
    """What to ask Slurm for.

    Attributes:
        jobs: how many jobs, each with its workers.
        wait: seconds until the first of them must be running.
        job: arguments of `dask_jobqueue.SLURMCluster`: cores, memory, queue, account, walltime …
    """

    jobs: int
    wait: float = 3600.0
    job: dict[str, Any] = field(default_factory=dict)


def read_config(path: str | Path) -> SlurmConfig:
    """Read a TOML file: `jobs = 4`, `wait = 3600`, and under `[job]` arguments of `dask_jobqueue.SLURMCluster`.

    Each job is one worker process and does a slide at a time, unless `processes` under `[job]` says otherwise.

    Raises:
        InputError: no such file, or what it says cannot be; the text names it.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no TOML: {error}") from error
    unknown = values.keys() - SlurmConfig.__dataclass_fields__.keys()
    if unknown:
        raise InputError(f"{path}: unknown {sorted(unknown)[0]!r}; known: jobs, wait, [job]")
    config = SlurmConfig(**{"jobs": 1, **values})
    _check(config, path)
    return config


def _check(config: SlurmConfig, path: str | Path) -> None:
    for name in ("jobs", "wait"):
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise InputError(f"{path}: {name} must be a number above 0, got {value!r}")
    if not isinstance(config.job, dict):
        raise InputError(f"{path}: [job] must be a table, got {config.job!r}")
    known = _arguments()
    for name in config.job:
        if name not in known:
            raise InputError(f"{path}: [job] has no {name!r}; it takes: {', '.join(sorted(known))}")
    for name in NEEDED:
        if name not in config.job:
            raise InputError(f"{path}: [job] needs {name!r}")


def _arguments() -> set[str]:
    from dask_jobqueue.core import Job
    from dask_jobqueue.slurm import SLURMJob

    names = {*inspect.signature(Job.__init__).parameters, *inspect.signature(SLURMJob.__init__).parameters}
    return names - {"self", "scheduler", "name", "base_class_kwargs", "project", "job_extra", "extra", "env_extra"}


def slurm_cluster(config: SlurmConfig) -> SLURMCluster:
    """Return a `dask_jobqueue.SLURMCluster` without jobs yet; its `job_script()` is what Slurm is given for each."""
    from dask_jobqueue.slurm import SLURMCluster

    listening = {"dashboard": False, "dashboard_address": ":0"}
    job = {"processes": 1, **config.job}
    job["job_script_prologue"] = [*(job.get("job_script_prologue") or ()), KEEPING]
    return SLURMCluster(scheduler_options=listening, **job)


@contextmanager
def slurm_jobs(config: SlurmConfig) -> Iterator[SLURMCluster]:
    """Yield a cluster whose jobs are submitted, and cancelled at the end.

    Raises:
        ClusterError: Slurm is not here, or refuses the jobs.
    """
    if which("sbatch") is None:
        raise ClusterError(
            "no sbatch here: --slurm is for a machine that can submit jobs to Slurm, such as a login node"
        )
    with own_scheduler():
        cluster = slurm_cluster(config)
        try:
            _check_accepted(cluster.job_script())
            cluster.scale(jobs=config.jobs)
            yield cluster
        finally:
            cluster.close(timeout=TIMEOUT)


def _check_accepted(script: str) -> None:
    with NamedTemporaryFile("w", suffix=".sh", encoding="utf-8") as file:
        file.write(script)
        file.flush()
        asked = subprocess.run(["sbatch", "--test-only", file.name], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise ClusterError(f"Slurm would refuse the jobs: {' '.join(asked.stderr.split())}")
