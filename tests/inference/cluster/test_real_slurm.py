"""A real Slurm on this machine alone: Debian's packages in a temporary folder, started on loopback, used, removed.

Behind `tox run -e slurm`, which sets WSI_ATTENTION_REAL_SLURM: it needs apt and a network that has Debian's packages.
The system stays as it is: no `srun` on the PATH of others, and no root. Keys, sockets, logs and states lie there too.
"""

from __future__ import annotations

import csv
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from wsi_attention.testing.slides import SlideSpec, write_slide

pytestmark = pytest.mark.skipif(
    "WSI_ATTENTION_REAL_SLURM" not in os.environ, reason="brings a Slurm of its own: run by tox run -e slurm"
)
PACKAGES = ("slurm-wlm", "munge")
CONFIG = """ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
PluginDir={plugins}
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmctldPort={controller}
SlurmdPort={daemon}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=3000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=60 State=UP
"""
JOBS = """jobs = 2
wait = 300
[job]
cores = 1
memory = "1GB"
walltime = "00:20:00"
interface = "lo"
local_directory = "{folder}"
log_directory = "{folder}"
"""


def apt(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["apt-get", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Debian's Slurm, with what it needs and this machine has not, unpacked; gone again at the end."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip("no apt-get and dpkg here, which bring Debian's Slurm")
    planned = apt("-s", "--no-install-recommends", "install", *PACKAGES)
    if planned.returncode:
        pytest.skip(f"apt has no {' or '.join(PACKAGES)} here: {planned.stderr.strip()[-200:]}")
    names = [line.split()[1] for line in planned.stdout.splitlines() if line.startswith("Inst ")]
    if not names:
        pytest.skip(f"{' and '.join(PACKAGES)} are installed here already, and this Slurm would not be the test's own")
    folder = tmp_path_factory.mktemp("debian")
    fetched = apt("download", *names, folder=folder)
    if fetched.returncode:
        pytest.skip(f"apt cannot fetch {', '.join(names)}: {fetched.stderr.strip()[-300:]}")
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(folder / "root")], check=True)
    yield folder / "root"
    shutil.rmtree(folder)
    assert shutil.which("srun") is None


def found(root: Path, name: str) -> str:
    """The program of that name: Debian calls some of Slurm's `NAME-wlm`."""
    places = (root / "usr" / part / f"{name}{ending}" for part in ("sbin", "bin") for ending in ("", "-wlm"))
    return str(next(place for place in places if place.is_file()))


def environment_of(root: Path, config: Path) -> dict[str, str]:
    libraries = {str(one.parent) for one in root.rglob("*.so*")}
    paths = (root / "usr" / part for part in ("bin", "sbin"))
    return {
        **os.environ,
        "SLURM_CONF": str(config),
        "PATH": os.pathsep.join([*map(str, paths), os.environ["PATH"]]),
        "LD_LIBRARY_PATH": os.pathsep.join(sorted(libraries)),
    }


@pytest.fixture
def slurm(packages: Path, tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """A controller and one node on loopback; the environment in which Slurm's commands find them."""
    folder, host = tmp_path / "slurm", socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    config, key = folder / "slurm.conf", folder / "munge.key"
    plugins = next(packages.rglob("auth_munge.so")).parent
    facts = {"host": host, "folder": folder, "user": getpass.getuser(), "plugins": plugins}
    config.write_text(CONFIG.format(**facts, controller=free_port(), daemon=free_port()))
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    environment = environment_of(packages, config)
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    commands = {
        "munged": ["--foreground", "--force", *(f"--{one}={folder}/munge.{name}" for one, name in files.items())],
        "slurmctld": ["-D", "-f", str(config)],
        "slurmd": ["-D", "-f", str(config), "-N", host, "-d", found(packages, "slurmstepd")],
    }
    started: list[subprocess.Popen[bytes]] = []
    try:
        for name, options in commands.items():
            with (folder / f"{name}.out.log").open("wb") as out:
                program = [found(packages, name), *options]
                started.append(subprocess.Popen(program, env=environment, stdout=out, stderr=out))
            assert name != "munged" or wait_for((folder / "munge.socket").exists, 30), logs(folder)
        assert wait_for(lambda: "idle" in asked(environment, "sinfo", "-h", "-o", "%T")), logs(folder)
        yield environment
    finally:
        asked(environment, "scancel", f"--user={getpass.getuser()}")
        for process in reversed(started):
            process.terminate()
            process.wait(30)


def wait_for(condition: Callable[[], object], seconds: float = 90) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.2)
    return bool(condition())


def asked(environment: Mapping[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def logs(folder: Path) -> str:
    return "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(folder.glob("*.log")))


def classified(slides: Path, out: Path, environment: Mapping[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wsi_attention.cli", "classify", "-i", str(slides), "-o", str(out), "-m", "demo"]
    return subprocess.run(
        [*command, "--what", "tiles,geojson", "--device", "cpu", "--precision", "32", *more],
        env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


def test_jobs_of_slurm_give_the_results_of_this_process(slurm: Mapping[str, str], tmp_path: Path) -> None:
    slides, jobs = tmp_path / "slides", tmp_path / "jobs.toml"
    for seed in range(3):
        write_slide(slides / f"{seed}.svs", SlideSpec((1024, 1000), seed=seed, label="lesion", lesion_scale=8))
    jobs.write_text(JOBS.format(folder=tmp_path))
    ran = classified(slides, tmp_path / "slurm-out", slurm, "--slurm", str(jobs))
    assert ran.returncode == 0, ran.stderr + logs(tmp_path / "slurm")
    assert ran.stderr.splitlines()[0].startswith("wsi-attention: "), ran.stderr  # and not a library's own warning
    alone = classified(slides, tmp_path / "out", slurm, "--in-process")
    assert alone.returncode == 0 and alone.stderr.splitlines()[0].startswith("wsi-attention: "), alone.stderr
    for path in sorted((tmp_path / "out").rglob("*.geojson")) + sorted((tmp_path / "out").rglob("tiles/*.csv")):
        assert (tmp_path / "slurm-out" / path.relative_to(tmp_path / "out")).read_bytes() == path.read_bytes(), path
    with (tmp_path / "slurm-out" / "predictions.csv").open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done"] * 3
    assert wait_for(lambda: not asked(slurm, "squeue", "-h"))  # no job is left behind
