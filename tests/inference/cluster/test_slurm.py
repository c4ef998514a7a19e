"""Jobs of Slurm: what the file may say, and what Slurm would be given; no Slurm is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("dask_jobqueue")

from wsi_attention.errors import ClusterError, InputError
from wsi_attention.inference.batch.classify import classify
from wsi_attention.inference.cluster.open import open_cluster
from wsi_attention.inference.cluster.slurm import read_config, slurm_cluster

WHOLE = """
jobs = 4
wait = 600
[job]
cores = 1
memory = "8GB"
queue = "gpu"
account = "pathology"
walltime = "02:00:00"
interface = "lo"
job_extra_directives = ["--gres=gpu:1"]
worker_extra_args = ["--resources", "GPU=1"]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "slurm.toml"
    path.write_text(text)
    return path


def test_the_job_says_what_the_file_says(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, WHOLE))
    assert (config.jobs, config.wait) == (4, 600)
    with slurm_cluster(config) as cluster:
        script = cluster.job_script()
    for part in ("#SBATCH -p gpu", "#SBATCH -A pathology", "#SBATCH -t 02:00:00", "#SBATCH --gres=gpu:1", "--mem=8G"):
        assert part in script
    (command,) = [line for line in script.splitlines() if "dask_worker" in line or "dask worker" in line]
    assert "--nthreads 1" in command and "--resources GPU=1" in command
    (export,) = [line for line in script.splitlines() if line.startswith("export DASK")]
    code = "from distributed import nanny; print(nanny._get_env_variables('distributed.nanny.pre-spawn-environ'))"
    told = subprocess.check_output(["bash", "-c", f'{export}; "{sys.executable}" -c "{code}"'], text=True)
    assert "OMP_NUM_THREADS" in told and "MALLOC_TRIM_THRESHOLD_" not in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("jobs = ", "no TOML"),
        ("job = 4", r"\[job\] must be a table"),
        ("walltime = '1'", "unknown 'walltime'; known: jobs, wait"),
        ("[job]\ncores = 1", "needs 'memory'"),
        ("[job]\ncores = 1\nmemory = '8GB'\npartition = 'gpu'", "no 'partition'; it takes: account"),
        ("jobs = 0\n[job]\ncores = 1\nmemory = '8GB'", "jobs must be a number above 0, got 0"),
        ("jobs = true\n[job]\ncores = 1\nmemory = '8GB'", "jobs must be a number above 0, got True"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=f"slurm.toml: .*{told}"):
        read_config(written(tmp_path, text))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path / "none.toml")


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, sbatch: str) -> None:
    """Commands of Slurm's names: sbatch starts a job's script here, scancel ends it."""
    folder.mkdir()
    for name, text in (("sbatch", sbatch), ("scancel", 'kill -- "-$1"')):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_jobs_do_the_slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny, write_slide) -> None:
    copy = tmp_path / "script"  # as sbatch does, for the one it is given is removed at once
    run = f'setsid sh {copy} >/dev/null 2>&1 & echo "Submitted batch job $!"'
    start = f'[ "$1" = --test-only ] && exit 0\ncp "$1" {copy}\n{run}'
    stand_in(tmp_path / "bin", monkeypatch, start)
    write_slide(tmp_path / "slides/a.tif")
    job = f"jobs = 1\n[job]\ncores = 1\nmemory = '6GB'\ninterface = 'lo'\nlocal_directory = '{tmp_path}'"
    with open_cluster(slurm=written(tmp_path, job)) as cluster:
        report = classify([tmp_path / "slides"], tmp_path / "out", tiny, executor=cluster, what=())
    assert dict(report.statuses) == {"done": 1}


def test_a_slurm_that_refuses_or_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "[job]\ncores = 1\nmemory = '1GB'\ninterface = 'lo'")
    with pytest.raises(ClusterError, match="no sbatch here"), open_cluster(slurm=path):
        pass
    stand_in(tmp_path / "bin", monkeypatch, "echo 'invalid partition' >&2; exit 1")
    with (
        pytest.raises(ClusterError, match=r"Slurm would refuse the jobs: invalid partition"),
        open_cluster(slurm=path),
    ):
        pass
