"""Worker processes: what they are given, what they give back, how their end is told."""

from __future__ import annotations

import logging
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import warm_python
from torch import nn

from wsi_attention.checkpoint import Classifier
from wsi_attention.errors import ClusterError, InputError, ModelError
from wsi_attention.inference.batch.classify import classify
from wsi_attention.inference.isolation import nursery
from wsi_attention.inference.isolation import pool as module
from wsi_attention.inference.isolation.last_words import Ending
from wsi_attention.inference.isolation.pool import Processes
from wsi_attention.inference.results.state import stored_predictions

SCRIPT = """
import sys
from wsi_attention import load_model
from wsi_attention.inference.batch.classify import classify
print(classify([sys.argv[1]], sys.argv[2], load_model(sys.argv[3]), device="cpu").exit_status)
"""
CRASH = """random words
free(): invalid pointer
Fatal Python error: Aborted

Current thread 0x00007f0000000001 (most recent call first):
  File "/lib/readers/tiles.py", line 7 in decode
  File "/lib/readers/tiles.py", line ??? in read
  File "/lib/threading.py", line 3 in run

Thread 0x00007f0000000002 (most recent call first):
  File "/lib/wsi_attention/inference/batch/time_limit.py", line 66 in __call__

Extension modules: numpy.core._multiarray_umath (total: 1)
"""


def test_a_script_needs_no_guard(tmp_path: Path, write_slide: Any, tiny: Classifier) -> None:
    write_slide(tmp_path / "a.tif")
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "a.tif"), str(tmp_path / "out")]
    ran = warm_python.run([*command, str(tiny.folder)], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("0\n", "")


def test_a_model_that_no_folder_holds_is_handed_over(tmp_path: Path, write_slide: Any, tiny: Classifier) -> None:
    write_slide(tmp_path / "a.tif")
    classify([tmp_path / "a.tif"], tmp_path / "folder", tiny)
    classify([tmp_path / "a.tif"], tmp_path / "handed", replace(tiny, folder=None))
    classify([tmp_path / "a.tif"], tmp_path / "renamed", replace(tiny, config={**tiny.config, "mpp": 0.5001}))
    ((_, expected),) = stored_predictions(tmp_path / "folder")
    for folder in ("handed", "renamed"):
        ((_, found),) = stored_predictions(tmp_path / folder)
        assert found.probabilities.tolist() == expected.probabilities.tolist()


def test_a_model_that_cannot_be_handed_over_is_one_line(tmp_path: Path, write_slide: Any, tiny: Classifier) -> None:
    class Local(nn.Module):
        tile_mpp = overview_mpp = 1.0
        overview_pixels, map_stride, encoder, preprocess = 1000, 1, None, nn.Identity()

    write_slide(tmp_path / "a.tif")
    with pytest.raises(ModelError, match=r"no folder and cannot be handed .*; save it first, or .*in_process=True"):
        classify([tmp_path / "a.tif"], tmp_path / "out", replace(tiny, folder=None, model=Local()))


def test_what_the_workers_refuse_is_raised_here(tmp_path: Path, write_slide: Any, tiny: Classifier) -> None:
    write_slide(tmp_path / "a.tif")
    with pytest.raises(InputError, match="no device 'abacus' here; found: cpu"):
        classify([tmp_path / "a.tif"], tmp_path / "out", tiny, device="abacus")


def test_without_processes_the_way_out_is_told(
    tmp_path: Path, write_slide: Any, tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slide(tmp_path / "a.tif")
    monkeypatch.setattr(sys, "executable", "")
    monkeypatch.setattr(nursery._Home, "nursery", None)
    with pytest.raises(ClusterError, match=r"no worker process can be started here .*--in-process"):
        classify([tmp_path / "a.tif"], tmp_path / "out", tiny)


@pytest.mark.slow
def test_a_fresh_interpreter_works_as_a_forked_one(
    tmp_path: Path, write_slide: Any, tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slide(tmp_path / "a.tif")
    classify([tmp_path / "a.tif"], tmp_path / "forked", tiny, what=["tiles"])
    monkeypatch.setattr(nursery, "FORKS", False)
    classify([tmp_path / "a.tif"], tmp_path / "fresh", tiny, what=["tiles"])
    assert (tmp_path / "fresh/tiles/a.csv").read_bytes() == (tmp_path / "forked/tiles/a.csv").read_bytes()


def test_workers_say_what_this_package_logs(caplog: pytest.LogCaptureFixture) -> None:
    runner = Processes(1)
    with caplog.at_level(logging.INFO, "wsi_attention.download"):
        runner._hear(module._Worker(None, "cpu"), module.Log("wsi_attention.download", logging.INFO, "a.svs: 5 %"))  # type: ignore[arg-type]
    assert caplog.messages == ["a.svs: 5 %"]


def test_turns_are_given_in_order_and_taken_back_from_the_dead() -> None:
    class Channel:
        def __init__(self) -> None:
            self.sent: list[object] = []

        def send(self, value: object) -> None:
            self.sent.append(value)

    runner = Processes(1)
    first, second = (module._Worker(type("Process", (), {"channel": Channel()})(), "cpu") for _ in range(2))  # type: ignore[arg-type]
    runner._workers = [first, second]
    for worker in (first, second):
        runner._hear(worker, module.Ask())
    assert (first.computing, second.computing, second.asked is not None) == (True, False, True)
    runner._lose(first, Ending(-9))
    assert (second.computing, runner._workers) == (True, [second])
    runner._hear(second, module.Over())
    assert runner._computing["cpu"] == 0


def test_an_ending_is_told_in_one_line() -> None:
    told = Ending(-signal.SIGABRT, 0, CRASH).describe()
    assert told == (
        "its worker process crashed with SIGABRT (Aborted) in decode (tiles.py:7) < read (tiles.py:???) < run"
        " (threading.py:3), last words: free(): invalid pointer"
    )
    assert "SIGKILL) (it used 7.5 GB), most likely because memory" in Ending(-signal.SIGKILL, 7_500_000_000).describe()
    assert Ending(3, 0, "").describe() == "a library ended its worker process with exit status 3"
    assert Ending(None).describe() == "its worker process was lost"


def test_nothing_is_left_when_nobody_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nursery._Home, "nursery", None)
    monkeypatch.setattr(nursery._Home, "holders", 0)
    with nursery.prepared():
        home = nursery._Home.nursery
        assert home is not None and home.alive
        with nursery.kept():
            pass
        assert home.alive
    assert not home.alive and nursery._Home.nursery is None


def test_workers_compute_with_this_process_s_threads_and_variables(
    tmp_path: Path, write_slide: Any, tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSI_ATTENTION_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_slide(tmp_path / "a.tif")
    report = classify(["a.tif"], "out", tiny, what=["tiles"])
    assert report.exit_status == 0 and (tmp_path / "out/tiles/a.csv").is_file()
    with Processes(1) as runner:
        runner.prepare(tiny, Path("out"), "cpu", "auto")
        assert runner._setup is not None
        assert runner._setup.environment["WSI_ATTENTION_CACHE"] == os.environ["WSI_ATTENTION_CACHE"]
        assert (runner._setup.threads, runner._setup.folder) == (torch.get_num_threads(), str(tmp_path))


def test_a_library_that_wants_to_exit_fails_its_slide_in_this_process_too(
    tmp_path: Path, write_slide: Any, tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsi_attention.inference.batch import subjects

    def leave(*given: Any, **more: Any) -> Any:
        raise SystemExit(3)

    monkeypatch.setattr(subjects, "look", leave)
    write_slide(tmp_path / "a.tif")
    report = classify([tmp_path / "a.tif"], tmp_path / "out", tiny, in_process=True)
    assert report.failures == [("a", "a library wanted to end the program (SystemExit(3))")]


@pytest.mark.slow
def test_each_of_several_devices_has_processes_of_its_own(tmp_path: Path, write_slide: Any, tiny: Classifier) -> None:
    for name in "abcdef":
        write_slide(tmp_path / f"s/{name}.tif")
    classify([tmp_path / "s"], tmp_path / "one", tiny)
    with Processes(1, ("cpu", "cpu:0")) as both:
        assert both.window == 4
        seen: set[tuple[str, ...]] = set()
        watch = lambda *_: seen.add(tuple(sorted(worker.device for worker in both._workers)))  # noqa: E731
        report = classify([tmp_path / "s"], tmp_path / "two", tiny, executor=both, watch=watch)
    assert report.statuses["done"] == 6
    assert seen and all(set(devices) == {"cpu", "cpu:0"} for devices in seen)
    same = [dict(stored_predictions(tmp_path / out)) for out in ("one", "two")]
    probabilities = [[found[name].probabilities.tolist() for name in sorted(found)] for found in same]
    assert len(probabilities[0]) == 6 and probabilities[0] == probabilities[1]


def test_gpus_are_for_worker_processes_alone(tmp_path: Path, write_slide: Any, tiny: Classifier) -> None:
    write_slide(tmp_path / "a.tif")
    with pytest.raises(InputError, match="gpus are for worker processes of this machine"):
        classify([tmp_path / "a.tif"], tmp_path / "out", tiny, gpus="all", in_process=True)
    with pytest.raises(InputError, match="0 GPUs here"):
        classify([tmp_path / "a.tif"], tmp_path / "out", tiny, gpus=(0, 1))
