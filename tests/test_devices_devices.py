"""Names of devices as users write them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import warm_python

from wsi_attention.devices import fabric_on
from wsi_attention.errors import InputError


def test_devices_that_are_not_there() -> None:
    with pytest.raises(InputError, match=r"no device 'tpu' here; found: cpu"):
        fabric_on("tpu", 1, "32")
    with pytest.raises(InputError, match="0 processes do not fit device 'cpu'"):
        fabric_on("cpu", 0, "32")


def test_the_fabric_is_quiet_and_where_it_should_be(capfd: pytest.CaptureFixture[str]) -> None:
    fabric = fabric_on("cpu", 1, "bf16")
    assert fabric.device.type == "cpu"
    assert fabric.world_size == 1
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("lightning.fabric").level == logging.WARNING


SLURM = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


@pytest.fixture
def with_srun(tmp_path: Path) -> dict[str, str]:
    """An environment with an executable `srun` on the PATH and nothing of a job."""
    (tmp_path / "srun").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "srun").chmod(0o755)
    own = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return {**own, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}


def launched(environment: dict[str, str], processes: int = 1) -> subprocess.CompletedProcess[str]:
    code = (
        "import os\n"
        "from wsi_attention.devices import fabric_on\n"
        "if __name__ == '__main__':\n"
        f"    fabric = fabric_on('cpu', {processes}, '32')\n"
        "    os.write(1, f'{fabric.global_rank} of {fabric.world_size}\\n'.encode())\n"
        "    fabric.barrier()\n"
    )
    script = Path(environment["PATH"].split(os.pathsep)[0]) / "start.py"
    script.write_text(code)
    return warm_python.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("job", [{}, SLURM, {**SLURM, "SLURM_JOB_NAME": "bash"}])
def test_one_process_in_a_job_of_two_tasks_or_beside_srun(with_srun: dict[str, str], job: dict[str, str]) -> None:
    ran = launched(with_srun | job)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "0 of 1\n", "")


def test_two_processes_in_a_job_of_two_tasks(with_srun: dict[str, str]) -> None:
    ran = launched(with_srun | SLURM, 2)
    assert ran.returncode == 0, ran.stderr
    assert sorted(ran.stdout.split("\n")) == ["", "0 of 2", "1 of 2"]


def test_the_second_task_does_not_train_beside_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.raises(InputError, match=r"srun started this training as task 1 of 2, .* --devices"):
        fabric_on("cpu", 1, "32")
