"""Real `train` processes with one feature store: killed at any moment, and two of them at once."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import warm_python
from safetensors.torch import load_file

from wsi_attention.testing.slides import SlideSpec, write_slide

KILLS = int(os.environ.get("WSI_ATTENTION_TEST_KILLS", "1"))
"""How often a training is killed; `WSI_ATTENTION_TEST_KILLS=20` is what a release is tried with."""
CLOSE = 1e-5
MAIN = "from wsi_attention.cli import main; main()"
RECIPE = """
method = "ats"
epochs = 4
patience = 100
batch = 2
precision = "32"
validation_share = 0.5
[augmentation]
symmetry = "none"
stain = 0.0
brightness = 0.0
[model]
encoder_frozen = true
encoder_widths = [8, 16]
features = 16
attention_widths = [8, 8]
tile_size = 32
tile_mpp = 0.5
overview_mpp = 8.0
draws = 6
"""


class Trainings:
    """Starts trainings of one plan as processes, which `warm_python` forks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rows = ["slide,label"]
        for seed in range(4):
            label = ("benign", "lesion")[seed % 2]
            spec = SlideSpec(size=(640, 512), seed=seed, label=label, lesion_scale=8)
            write_slide(folder / "slides" / f"s{seed}.svs", spec)
            rows.append(f"s{seed},{label}")
        (folder / "labels.csv").write_text("\n".join(rows) + "\n")
        (folder / "recipe.toml").write_text(RECIPE)

    def start(self, name: str, store: str, gigabytes: float = 1.0) -> subprocess.Popen[bytes]:
        """Starts the training whose model folder has that name."""
        arguments = ["train", "-l", str(self.folder / "labels.csv"), "-i", str(self.folder / "slides")]
        arguments += ["--config", str(self.folder / "recipe.toml"), "-o", str(self.folder / name), "--device", "cpu"]
        arguments += ["--feature-store", str(self.folder / store), "--feature-store-gb", str(gigabytes)]
        with (self.folder / f"{name}.txt").open("w") as said:
            return warm_python.Popen([sys.executable, "-c", MAIN, *arguments], stdout=said, stderr=said)

    def end(self, name: str, process: subprocess.Popen[bytes]) -> str:
        """What a training has said that must succeed."""
        status = process.wait(120)
        said = (self.folder / f"{name}.txt").read_text()
        assert status == 0, said
        return said

    def run(self, name: str, store: str, gigabytes: float = 1.0) -> str:
        """Runs a training to its end."""
        return self.end(name, self.start(name, store, gigabytes))

    def losses(self, name: str) -> list[float]:
        with (self.folder / name / "training" / "metrics.csv").open(newline="", encoding="utf-8") as file:
            return [float(row[column]) for row in csv.DictReader(file) for column in ("train_loss", "val_loss")]

    def check_as(self, name: str, other: str) -> None:
        """Both ended with the same weights and losses, but for the last bits: tiles are encoded in other batches."""
        models = [load_file(self.folder / one / "model.safetensors") for one in (name, other)]
        assert models[0].keys() == models[1].keys()
        for part, weights in models[0].items():
            assert (weights - models[1][part]).abs().max() <= CLOSE, part
        assert self.losses(name) == pytest.approx(self.losses(other), abs=CLOSE)

    def epochs(self, name: str) -> int:
        try:
            return len(self.losses(name)) // 2
        except OSError:
            return 0

    def kept(self, store: str) -> dict[str, int]:
        """Bytes of features that each process has kept, by its id."""
        found: dict[str, int] = {}
        for file in (self.folder / store).rglob("*.zarr.zip"):
            pid = file.name.partition("-")[0]
            found[pid] = found.get(pid, 0) + file.stat().st_size
        return found


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    """Trainings, of which "plain" has ended without a store."""
    folder = tmp_path_factory.mktemp("trainings")
    (folder / "slides").mkdir()
    made = Trainings(folder)
    made.run("plain", "none", 0.0)
    return made


@pytest.fixture(scope="module")
def whole(trainings: Trainings) -> Trainings:
    """And "whole" with a store."""
    trainings.run("whole", "whole-store")
    return trainings


@pytest.mark.slow
def test_a_store_changes_no_model(whole: Trainings) -> None:
    assert whole.kept("whole-store") and not (whole.folder / "none").exists()
    whole.check_as("whole", "plain")


def test_killed_at_random_moments_it_ends_as_if_nobody_had(trainings: Trainings) -> None:
    """Each kill meets the store that all kills before have left."""
    rng, landed, tried = random.Random(0), 0, 0
    while landed < KILLS:
        name, moment, tried = f"killed{tried}", rng.uniform(0, 4), tried + 1
        process = trainings.start(name, "killed-store")
        while process.poll() is None and trainings.epochs(name) < int(moment):
            time.sleep(0.005)
        with suppress(subprocess.TimeoutExpired):
            process.wait(moment % 1 * (1.0 if moment < 1 else 0.2))
        process.kill()
        if process.wait() != -signal.SIGKILL:  # it was faster
            assert tried < 5 * KILLS
            continue
        landed += 1
        assert "not used" not in trainings.run(name, "killed-store")
        trainings.check_as(name, "plain")


@pytest.mark.slow
def test_two_at_once_share_a_store_and_end_as_each_alone(whole: Trainings) -> None:
    first = whole.start("first", "shared-store")
    while whole.epochs("first") == 0:
        assert not first.poll(), whole.end("first", first)
        time.sleep(0.01)
    second = whole.start("second", "shared-store")
    kept_at_the_end = sum(whole.kept("whole-store").values())
    for name, process in (("first", first), ("second", second)):
        whole.end(name, process)
        whole.check_as(name, "plain")
    kept = whole.kept("shared-store")
    assert kept.get(str(second.pid), 0) < 0.8 * kept_at_the_end, "the second has encoded what the first had kept"
