"""Batches on worker processes: the same bytes as in one process, with little sent and each model loaded once."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import os
import pickle
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from wsi_attention.checkpoint import Classifier, load_model
from wsi_attention.cli import main
from wsi_attention.devices import openvino_version
from wsi_attention.errors import ClusterError, InputError, ModelError
from wsi_attention.export.chosen import exporters_of
from wsi_attention.inference import compiled, engine
from wsi_attention.inference.batch.classify import classify, run_key
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.inference.batch.job import Job, Settings
from wsi_attention.inference.batch.wishes import Wishes
from wsi_attention.inference.cluster import open as module
from wsi_attention.inference.cluster import worker
from wsi_attention.inference.cluster.open import open_cluster, quiet
from wsi_attention.inference.cluster.runner import Cluster, _agreed, _stop
from wsi_attention.inference.cluster.worker import ModelSource, Survey, task_of

pytest.importorskip("distributed")

WHAT = ("geojson", "tiles", "heatmap", "heatmap-zarr")


@pytest.fixture(scope="module")
def two() -> Iterator[Cluster]:
    """Two worker processes."""
    with open_cluster(local=2, device="cpu") as cluster:
        assert cluster is not None
        yield cluster


@pytest.fixture
def slides(tmp_path: Path, write_slide) -> Path:
    folder = tmp_path / "slides"
    for number, name in enumerate(("a.tif", "b/a.tif", "c.tif")):
        write_slide(folder / name, seed=number)
    write_slide(folder / "empty.tif", tissue=False)
    (folder / "broken.tif").write_bytes(b"II*\0" + bytes(100))
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Digests of all that holds no time, and the table without its times."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] != "states"]
    kept = [path for path in files if not path.name.startswith((".lock", "run_")) and path.name != "predictions.csv"]
    found = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    return found | {"predictions.csv": str(rows)}


@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_results_are_those_of_one_process(
    two: Cluster, slides: Path, tmp_path: Path, tiny: Classifier, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        alone = classify([slides], tmp_path / "alone", tiny, device="cpu", what=WHAT)
        spread = classify([slides], tmp_path / "spread", tiny, device="cpu", what=WHAT, executor=two)
    finally:
        torch.set_num_threads(before)
    assert dict(spread.statuses) == dict(alone.statuses) == {"done": 3, "no_tissue": 1, "failed": 1}
    assert spread.counters.tiles == alone.counters.tiles == 24
    expected = contents(tmp_path / "alone")
    assert sum(name.startswith("heatmaps/") for name in expected) > 6
    assert contents(tmp_path / "spread") == expected
    assert not list((tmp_path / "spread").rglob(".tmp-*"))
    again = classify([slides], tmp_path / "spread", tiny, device="cpu", what=WHAT, executor=two)
    assert again.kept == 4


def test_workers_are_seen_while_the_client_refreshes_what_it_knows(two: Cluster) -> None:
    client = two._client

    async def refresh() -> None:
        while True:
            await client._update_scheduler_info()  # as its own timer does: it asks for no workers

    refreshing = asyncio.run_coroutine_threadsafe(refresh(), client.loop.asyncio_loop)
    try:
        assert [len(two._workers()) for _ in range(300)] == [2] * 300
    finally:
        refreshing.cancel()


def test_workers_keep_memory_that_they_need_again(two: Cluster) -> None:
    """dask would have them hand back each freed block, which makes every array new memory."""
    (told,) = {str(found) for found in two._client.run(os.environ.get, "MALLOC_TRIM_THRESHOLD_").values()}
    assert told == "None"


def test_a_task_is_coordinates_and_paths(tiny: Classifier, tmp_path: Path) -> None:
    settings = Settings(tiny, tmp_path, run_key(tiny, "32"), Wishes(exporters_of(WHAT)))
    job = Job(SlideFile("/slides/a.svs", "a.svs"), "a", settings)
    task = task_of(job, ModelSource.of(tiny))
    assert len(pickle.dumps(task)) < 3000


def test_a_worker_never_judges_by_the_rules_of_an_earlier_model(
    tiny: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_loaded", {})
    monkeypatch.setattr(worker, "_carried", {})
    assert tiny.folder is not None
    folder = tmp_path / "model"
    shutil.copytree(tiny.folder, folder)
    first = ModelSource.of(load_model(folder))
    assert first.load().classes == ("benign", "lesion")
    carried = first.files()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"classes": ["lesion", "benign"]}))
    second = ModelSource.of(load_model(folder))
    assert second.load().classes == ("lesion", "benign")
    with pytest.raises(ModelError, match="has changed since"):
        first.load()
    worker.carry(first.key, carried)
    assert (first.load().classes, second.load().classes) == (("benign", "lesion"), ("lesion", "benign"))


@pytest.mark.skipif(not openvino_version(), reason="openvino is not installed")
def test_a_worker_says_what_it_will_compute_in_and_not_what_was_asked(
    tiny: Classifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = ModelSource.of(tiny)
    assert worker.survey(source, "cpu", "openvino", None).precision == "openvino"
    monkeypatch.setattr(engine, "_ENGINES", type(engine._ENGINES)())
    monkeypatch.setattr(compiled, "EQUAL", -1.0)
    found = worker.survey(source, "cpu", "openvino", None)
    assert (found.precision, found.error, found.missing_model) == ("32", "", "")


def test_workers_that_cannot_see_the_model_are_brought_it(
    two: Cluster, slides: Path, tmp_path: Path, tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tiny.folder is not None
    other = replace(tiny, folder=Path("unseen"), weights_sha256=tiny.weights_sha256)
    (tmp_path / "unseen").symlink_to(tiny.folder)
    monkeypatch.chdir(tmp_path)
    two._client.run(_forget)
    report = classify(["slides/a.tif"], "out", other, device="cpu", executor=two)
    assert dict(report.statuses) == {"done": 1}, report.failures


def _forget() -> None:
    from wsi_attention.inference.cluster import worker as remote

    remote._loaded.clear()


def test_the_model_is_loaded_once_a_process(
    two: Cluster, slides: Path, tmp_path: Path, tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    classify([slides], tmp_path / "out", tiny, device="cpu", executor=two)
    assert set(two._client.run(_models).values()) == {1}


def _models() -> int:
    import gc

    gc.collect()
    return sum(type(one).__name__ == "AttentionSampling" for one in gc.get_objects())


def test_a_model_without_a_folder_cannot_go(two: Cluster, slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    with pytest.raises(ModelError, match="save it first"):
        classify([slides], tmp_path / "out", replace(tiny, folder=None), executor=two)


def test_one_kind_of_cluster_at_a_time() -> None:
    with open_cluster() as nothing:
        assert nothing is None
    with pytest.raises(InputError, match="one of --scheduler and --local-cluster"), open_cluster("tcp://a:1", 2):
        pass
    with pytest.raises(InputError, match="at least one worker, got 0"), open_cluster(local=0):
        pass
    with pytest.raises(InputError, match="neither an address like"), open_cluster("nowhere.json"):
        pass


def test_a_scheduler_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 1.0)
    told = r"no scheduler at tcp://127.0.0.1:9 .*is it running"
    with pytest.raises(ClusterError, match=told), open_cluster("tcp://127.0.0.1:9"):
        pass


def test_one_slide_for_each_gpu(slides: Path, tmp_path: Path, tiny: Classifier) -> None:
    from distributed import Client, Scheduler, SpecCluster, Worker

    def worker(**more: object) -> dict[str, object]:
        return {"cls": Worker, "options": {"nthreads": 4, "local_directory": str(tmp_path), **more}}

    listening = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    workers = {"card": worker(resources={"GPU": 1}), "none": worker()}
    with (
        quiet(),
        SpecCluster(workers=workers, scheduler={"cls": Scheduler, "options": listening}) as there,
        Client(there, set_as_default=False) as client,
    ):
        cluster = Cluster(client, "test", expected=2)
        report = classify([slides], tmp_path / "cards", tiny, executor=cluster, what=())
        assert (dict(report.statuses), cluster.window) == ({"done": 3, "no_tissue": 1, "failed": 1}, 1)
        assert not [key for key in there.workers["none"].state.log if "classify-" in str(key)]
        plain = Cluster(client, "test", expected=2)
        classify([slides], tmp_path / "plain", tiny, executor=plain, what=(), device="cpu")
        assert plain.window == 8


def test_results_go_to_a_url(slides: Path, tiny: Classifier, two: Cluster, tmp_path: Path) -> None:
    classify([slides], (tmp_path / "far").as_uri(), tiny, executor=two, what=WHAT, device="cpu")
    classify([slides], tmp_path / "near", tiny, what=WHAT, device="cpu")
    assert contents(tmp_path / "far") == contents(tmp_path / "near")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"error": "no device 'cuda:1' here"}, "worker tcp://b:1 on h cannot work: no device"),
        ({"version": "0.0.1"}, "worker tcp://b:1 on h has wsi-attention 0.0.1, this is .*; install the same"),
        ({"missing_model": "damaged"}, "worker tcp://b:1 on h cannot load the model: damaged"),
        ({"missing_slide": True}, "worker tcp://b:1 on h does not see /s/a.svs; slides must have the same path"),
        ({"precision": "bf16"}, r"would not compute alike \(32 on .*, bf16 on .*\); give --precision 32"),
    ],
)
def test_workers_that_cannot_do_it_are_named(change: dict[str, Any], told: str) -> None:
    able = Survey("h", "/", precision="32")
    with pytest.raises(ClusterError, match=told):
        _agreed({"tcp://a:1": able, "tcp://b:1": replace(able, **change)}, "/s/a.svs")
    assert _agreed({"tcp://a:1": able}, "/s/a.svs") == "32"


def test_the_command_says_in_one_line_that_no_scheduler_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 1.0)
    arguments = ["classify", "-i", str(tmp_path), "-o", str(tmp_path / "out"), "--scheduler", "tcp://127.0.0.1:9"]
    monkeypatch.setattr(sys, "argv", ["wsi-attention", *arguments, "-m", "demo"])
    with pytest.raises(SystemExit) as stopped:
        main()
    warning, line = capsys.readouterr().err.splitlines()
    assert "demonstration model" in warning
    assert stopped.value.code == 2 and line.startswith("wsi-attention: error: no scheduler at tcp://127.0.0.1:9")


def test_a_cluster_that_ends_too_slowly_does_not_spoil_a_finished_run() -> None:
    """A scheduler of a machine that is very busy; distributed raises this error of its own."""

    class Busy:
        def __init__(self) -> None:
            self.workers: dict[str, object] = {}
            self.closed = False

        def sync(self, work: Any) -> None:
            with ThreadPoolExecutor(1) as loop:  # as distributed does; this thread may have a loop of its own
                loop.submit(asyncio.run, work()).result()

        def close(self, timeout: float) -> None:
            self.closed = True
            raise TimeoutError(f"timed out after {timeout:.0f} s.")

    cluster = Busy()
    _stop(cluster)  # type: ignore[arg-type]
    assert cluster.closed
