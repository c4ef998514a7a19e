"""The package as a step in someone else's loop, loader or graph: the command's numbers, and nothing left behind."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import numpy as np
import pytest
import torch
import warm_python
from torch.utils.data import DataLoader, Dataset

from wsi_attention import Classifier, Prediction, Slide, load_model, open_slide, predict
from wsi_attention.errors import InputError
from wsi_attention.export.record import from_record, to_record

ROOT = Path(__file__).resolve().parent.parent
SLIDES = [str(ROOT / "sample_slides" / name) for name in ("sample_01.svs", "sample_05.ome.zarr")]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Data loaders compute with one thread in each worker, and the last digits depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load_model("demo")


@pytest.fixture(scope="module")
def by_command(tmp_path_factory: pytest.TempPathFactory) -> list[Prediction]:
    """What `wsi-attention classify` recorded of `SLIDES`."""
    results = tmp_path_factory.mktemp("command") / "results"
    program = str(Path(sys.executable).parent / "wsi-attention")
    command = [program, "classify", "-i", *SLIDES, "-o", str(results), "-m", "demo", "--what", "tiles"]
    warm_python.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    states = [json.loads(path.read_text(encoding="utf-8")) for path in (results / "states").rglob("*.json")]
    found = {one.slide: one for one in (from_record(state["record"]) for state in states)}
    return [found[path] for path in SLIDES]


def step(path: str, classifier: Classifier) -> Prediction:
    with open_slide(path) as slide:
        return predict(slide, classifier, device="cpu")


@dataclass
class Slides(Dataset[Prediction]):
    paths: Sequence[str]
    classifier: Classifier

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Prediction:
        return step(self.paths[index], self.classifier)


def facts(prediction: Prediction) -> dict[str, Any]:
    """Everything but the seconds that reading took."""
    record = to_record(prediction)
    return record | {"counters": {k: v for k, v in record["counters"].items() if k != "seconds"}}


def assert_same(found: Sequence[Prediction], expected: Sequence[Prediction]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.probabilities.tolist() == other.probabilities.tolist()
        assert facts(one) == facts(other)


def test_a_plain_loop(classifier: Classifier, by_command: list[Prediction]) -> None:
    assert_same([step(path, classifier) for path in SLIDES], by_command)


def loader_of(context: str, paths: Sequence[str], classifier: Classifier, workers: int = 2) -> DataLoader[Prediction]:
    data = Slides(paths, classifier)
    return DataLoader(data, batch_size=None, num_workers=workers, multiprocessing_context=context, timeout=100)


@pytest.mark.slow
def test_a_data_loader_that_spawns(classifier: Classifier, by_command: list[Prediction]) -> None:
    assert_same(list(loader_of("spawn", SLIDES, classifier, workers=1)), by_command)


FORKED = """
import sys
sys.modules["tensorstore"] = None  # it allows no fork once it has read
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/support"]
import pickle
import torch
import warm_python
from torch.utils.data import DataLoader
from test_python_step import loader_of, step
from wsi_attention import load_model, open_slide, predict

torch.set_num_threads(1)
paths, classifier = sys.argv[2:], load_model("demo")
first = [step(path, classifier) for path in paths]
loaded = list(loader_of("fork", paths, classifier))
with open_slide(paths[0]) as slide:
    options = {"batch_size": None, "num_workers": 2, "multiprocessing_context": "fork", "timeout": 100}
    opened = list(DataLoader([slide] * 3, collate_fn=lambda one: predict(one, classifier, device="cpu"), **options))
    opened.append(predict(slide, classifier, device="cpu"))
sys.stdout.buffer.write(pickle.dumps((first, loaded, opened)))
"""


def test_a_data_loader_that_forks(by_command: list[Prediction]) -> None:
    """After the parent has used readers, dask's threads and the model; and with a slide that the parent has open."""
    command = [sys.executable, "-c", FORKED, str(Path(__file__).parent), *SLIDES]
    ran = warm_python.run(command, check=False, capture_output=True, timeout=200)
    assert ran.returncode == 0, ran.stderr.decode()
    first, loaded, opened = pickle.loads(ran.stdout)
    assert_same(first, by_command)
    assert_same(loaded, by_command)
    assert_same(opened, by_command[:1] * 4)


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_a_dask_graph(scheduler: str, classifier: Classifier, by_command: list[Prediction]) -> None:
    found = dask.compute(*(dask.delayed(step)(path, classifier) for path in SLIDES), scheduler=scheduler, num_workers=2)
    assert_same(found, by_command)


def test_a_dask_cluster(classifier: Classifier, by_command: list[Prediction]) -> None:
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        assert_same(client.gather(client.map(step, SLIDES, classifier=classifier)), by_command)


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_what_travels_is_small_and_arrives_whole(
    pickler: Any, classifier: Classifier, by_command: list[Prediction]
) -> None:
    with open_slide(SLIDES[0], mpp=0.5) as slide:
        sent = pickler.dumps((slide, classifier))
        assert len(sent) < 1000
        again, loaded = pickle.loads(sent)
        with again:
            assert isinstance(again, Slide)
            assert (again.path, again.reader, again.mpp) == (slide.path, slide.reader, slide.mpp)
            assert np.array_equal(again.read((600, 600), 0, (64, 64)), slide.read((600, 600), 0, (64, 64)))
    assert loaded.weights_sha256 == classifier.weights_sha256
    assert_same([step(SLIDES[0], loaded)], by_command[:1])
    assert_same([pickle.loads(pickler.dumps(by_command[0]))], by_command[:1])


def test_a_typed_step_runs_as_it_is_checked(tmp_path: Path, by_command: list[Prediction]) -> None:
    """`typed_step.py` is what tox env `types` gives to mypy --strict."""
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        import typed_step
    finally:
        sys.path.pop(0)
    found = typed_step.step(SLIDES[0], typed_step.classifier())
    assert found is not None
    assert_same([found], by_command[:1])
    assert typed_step.boxes(found).shape == (1, len(found.glimpses[0].weights), 4)
    (tmp_path / "broken.svs").write_bytes(b"II*\0")
    assert typed_step.step(str(tmp_path / "broken.svs"), typed_step.classifier()) is None


UNTOUCHED = """
import logging, multiprocessing, os, random, signal, sys, threading
import numpy as np, PIL.Image, torch

torch.set_num_threads(2)
def state():
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "chance": (torch.random.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()),
        "numbers": (torch.get_default_dtype(), torch.get_float32_matmul_precision(), np.geterr()),
        "modes": (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")),
        "exactness": torch.are_deterministic_algorithms_enabled(),
        "logging": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
        "our loggers": [name for name in logging.root.manager.loggerDict if name.startswith("wsi")],
        "hooks": (sys.excepthook, threading.excepthook),
        "signals": (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)),
        "processes": multiprocessing.get_start_method(),  # which settles the default, as numcodecs does on first use
        "pictures": PIL.Image.MAX_IMAGE_PIXELS,
    }
before = state()
import wsi_attention
for name in wsi_attention.__all__:
    getattr(wsi_attention, name)
assert state() == before, "import"
classifier = wsi_attention.load_model("demo")
assert state() == before, [name for name, value in state().items() if value != before[name]]
for path in sys.argv[1:]:
    with wsi_attention.open_slide(path) as slide:
        wsi_attention.predict(slide, classifier, device="cpu")
after = state()
assert after == before, [name for name, value in after.items() if value != before[name]]
"""


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """No environment, seed, mode, number of threads, logging, hook or file of the caller's changes; nothing is said."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "TMPDIR": str(home)}
    command = [sys.executable, "-W", "error", "-c", UNTOUCHED, *SLIDES]
    ran = subprocess.run(command, cwd=here, env=os.environ | places, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert [*home.rglob("*"), *here.rglob("*")] == []


def test_a_model_of_nowhere_says_that_it_cannot_travel(classifier: Classifier) -> None:
    made = Classifier(classifier.model, classifier.classes, {}, "0" * 64, "mine")
    with pytest.raises(ValueError, match="model mine has no folder, so it cannot go to another process; save it first"):
        pickle.dumps(made)
    with pytest.raises(InputError, match="no device 'gpu' here"), open_slide(SLIDES[0]) as slide:
        predict(slide, classifier, device="gpu")


def test_importing_brings_in_the_standard_library_alone() -> None:
    """Counted in modules, which no busy machine changes; `benchmarks/import_time.py` tells the seconds."""
    code = "import sys; before = set(sys.modules); import wsi_attention; print(*set(sys.modules) - before)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = ran.stdout.split()
    assert {name.split(".")[0] for name in found} <= {*sys.stdlib_module_names, "wsi_attention"}
    assert len(found) < 45
