"""Workers that are killed, slides that kill them, schedulers that vanish, Ctrl-C: bounded, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import warm_python

from wsi_attention.checkpoint import Classifier
from wsi_attention.errors import ClusterError
from wsi_attention.files import PREFIX
from wsi_attention.inference.batch.classify import classify
from wsi_attention.inference.cluster.open import open_cluster
from wsi_attention.inference.cluster.runner import KEPT, Cluster

pytest.importorskip("distributed")
psutil = pytest.importorskip("psutil")

WHAT = ("geojson", "heatmap-zarr")


@pytest.fixture
def slides(tmp_path: Path, write_slide) -> Path:
    for number, name in enumerate("abcd"):
        write_slide(tmp_path / f"slides/{name}.tif", seed=number, side=1536)
    return tmp_path / "slides"


@contextmanager
def killing(cluster: Cluster, name: str, times: int) -> Iterator[list[int]]:
    """Kills (SIGKILL) the worker process that does the slide of that name, so many times."""
    killed: list[int] = []
    over = threading.Event()
    there = cluster._client.cluster

    def watch() -> None:
        while len(killed) < times and not over.wait(0.002):
            for worker in list(there.scheduler.workers.values()):
                if any(str(task.key).startswith(f"classify-{name}-") for task in list(worker.processing)):
                    pid = there.workers[worker.name].pid
                    if pid and pid not in killed:
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield killed
    over.set()
    thread.join()


@pytest.fixture(scope="module")
def forked_workers() -> Iterator[None]:
    """Workers that are killed have soon a successor: dask forks it from a process that has imported what it needs."""
    import dask
    from distributed.utils import get_mp_context

    method = "forkserver" if os.name == "posix" else "spawn"
    with dask.config.set({"distributed.worker.multiprocessing-method": method}):
        get_mp_context().set_forkserver_preload(["distributed", "wsi_attention.inference.isolation.worker"])
        yield


@pytest.fixture(scope="module")
def two(forked_workers: None) -> Iterator[Cluster]:
    with open_cluster(local=2, device="cpu") as cluster:
        assert cluster is not None
        yield cluster


@pytest.mark.slow
def test_the_slide_of_a_killed_worker_is_done_elsewhere(
    two: Cluster, slides: Path, tmp_path: Path, tiny: Classifier
) -> None:
    expected = classify([slides], tmp_path / "alone", tiny, device="cpu", what=WHAT)
    with killing(two, "b", 1) as killed:
        report = classify([slides], tmp_path / "out", tiny, device="cpu", what=WHAT, executor=two)
    assert (len(killed), report.statuses) == (1, expected.statuses), report.failures
    for name in "abcd":
        files = [folder / f"geojson/{name}.geojson" for folder in (tmp_path / "alone", tmp_path / "out")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_slide_that_kills_its_workers_fails_alone(
    two: Cluster, slides: Path, tmp_path: Path, tiny: Classifier
) -> None:
    with killing(two, "c", 100) as killed:
        report = classify([slides], tmp_path / "out", tiny, device="cpu", what=WHAT, executor=two)
    assert dict(report.statuses) == {"done": 3, "failed": 1}
    ((name, reason),) = report.failures
    assert name == "c" and "its worker died 4 times" in reason and len(killed) == 4
    assert not (tmp_path / "out/geojson/c.geojson").exists()
    assert not list(tmp_path.rglob(".tmp-*"))


def test_ctrl_c_keeps_what_is_finished_and_leaves_no_process(slides: Path, tmp_path: Path, write_slide) -> None:
    write_slide(slides / "more00.tif", seed=0)
    for number in range(1, 48):
        shutil.copyfile(slides / "more00.tif", slides / f"more{number:02}.tif")
    command = [
        sys.executable,
        "-c",
        "from wsi_attention.cli import main; main()",
        "classify",
        "-m",
        "demo",
        "--device",
        "cpu",
    ]
    command += ["-i", str(slides), "-o", str(tmp_path / "out"), "--local-cluster", "2", "--what", "geojson"]
    run = warm_python.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 60
    while not list((tmp_path / "out").glob("states/*.json")) and time.monotonic() < end:
        assert run.poll() is None
        time.sleep(0.02)
    family = psutil.Process(run.pid).children(recursive=True)
    os.killpg(run.pid, signal.SIGINT)
    shown, errors = run.communicate(timeout=30)
    assert run.returncode == 130
    assert errors.splitlines() == ["wsi-attention: demonstration model: the label means nothing on real tissue"]
    finished = len(list((tmp_path / "out").glob("states/*.json")))
    assert 0 < finished < 20
    told = int(shown.rpartition("interrupted: ")[2].split()[0])
    assert finished - 1 <= told <= finished  # Ctrl-C may come between a state and its count
    written = [one for one in (tmp_path / "out").glob("geojson/*.geojson") if not one.name.startswith(PREFIX)]
    assert len(written) == finished
    psutil.wait_procs(family, timeout=5)
    assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def process(*arguments: str, until: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """A command of dask, with everything it starts."""
    command = [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]]
    run = warm_python.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        end = time.monotonic() + 30
        while not until() and time.monotonic() < end:
            assert run.poll() is None
            time.sleep(0.05)
        yield run
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()


@contextmanager
def scheduler(file: Path) -> Iterator[subprocess.Popen[bytes]]:
    arguments = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    with process("dask_scheduler", *arguments, until=file.is_file) as run:
        yield run


@pytest.mark.slow
def test_a_scheduler_without_workers_and_one_that_vanishes(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    file = tmp_path / "scheduler.json"
    with scheduler(file) as run, open_cluster(str(file)) as cluster:
        assert cluster is not None
        cluster._patience = 0.5
        with pytest.raises(ClusterError, match=r"has no workers after 0.5 s; start some with"):
            classify([slides], tmp_path / "out", tiny, device="cpu", executor=cluster)
        cluster._patience = 20
        arguments = ("--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", "--no-nanny")
        with process("dask_worker", *arguments, "--local-directory", str(tmp_path), until=lambda: True):

            def vanish(name: str, done: int, total: int) -> None:
                if done == 1:
                    run.kill()

            start = time.monotonic()
            with pytest.raises(ClusterError, match=KEPT):
                classify([slides], tmp_path / "out", tiny, device="cpu", what=WHAT, executor=cluster, watch=vanish)
            assert time.monotonic() - start < 60
    report = classify([slides], tmp_path / "out", tiny, device="cpu", what=WHAT)
    assert report.kept >= 1 and dict(report.statuses) == {"done": 4}
