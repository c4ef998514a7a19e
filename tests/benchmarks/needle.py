"""Six methods, exact sampling, exhaustive attention MIL and random tiles on needles in real tissue.

    python tests/benchmarks/needle.py all --work FOLDER [--processes 2]

Makes slides of real PatchCamelyon tiles (`needle_slides.py`), teaches one encoder on tiles that are in none of them
(`needle_encoder.py`), trains every row by the command `wsi-attention train` with the shipped recipe needle-<method>,
classifies the test slides and prints a table; each step is skipped where its result lies in the folder. Steps can be
called alone: slides, encoder, train ROW, measure ROW, report.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FRACTIONS = (0.05, 0.01, 0.002)
TRAINING = {"part": "train", "count": 240, "seed": 100_000, "fraction": (0.005, 0.5)}
TEST = {"part": "test", "count": 100, "seed": 200_000}
DRAWS = 48
OVERVIEW_MPP = 11.64


@dataclass(frozen=True)
class Plan:
    """How a row comes about.

    Attributes:
        recipe: shipped recipe, empty for a baseline.
        trained: the row whose model it uses; its own where empty.
        scratch: whether the encoder starts from nothing and learns along.
        exact: whether prediction evaluates every cell.
        draws: of a baseline, tiles a slide; 0 for all of them.
        fractions: of the tumour, on which it is measured.
    """

    recipe: str = ""
    trained: str = ""
    scratch: bool = False
    exact: bool = False
    draws: int = 0
    fractions: tuple[float, ...] = FRACTIONS


ROWS = {
    "ats": Plan("needle-ats"),
    "zoom-in": Plan("needle-zoom-in"),
    "tnet": Plan("needle-tnet"),
    "rams-trans": Plan("needle-rams-trans"),
    "oaa": Plan("needle-oaa"),
    "oaa-plus": Plan("needle-oaa-plus"),
    "trt": Plan("needle-trt"),
    "ats-exact": Plan("needle-ats", trained="ats", exact=True, fractions=(0.01,)),
    "ats-scratch": Plan("needle-ats", scratch=True),
    "exhaustive": Plan(fractions=(0.01,)),
    "random": Plan(draws=DRAWS),
}


def make_slides(work: Path, processes: int) -> None:
    """Training and test slides; positives of all fractions share their negatives' tiles, not their seeds' layouts."""
    from needle_slides import specs, write_set

    sets = [("train", TRAINING)] + [(f"test-{share:g}", TEST | {"fraction": (share,)}) for share in FRACTIONS]
    for name, given in sets:
        if not (work / "slides" / name / "labels.csv").is_file():
            write_set(work / "slides" / name, specs(**given), processes)  # type: ignore[arg-type]


def make_encoder(work: Path) -> Path:
    """The shared encoder as a .safetensors file."""
    from needle_encoder import pretrain

    from wsi_attention.encoders.encoder_weights import save_encoder

    path = work / "encoder.safetensors"
    if not path.is_file():
        encoder, auroc = pretrain()
        save_encoder(path, encoder)
        print(f"encoder: AUROC {auroc:.3f} on tiles it has not seen")
    return path


def train(work: Path, row: str, seed: int = 0) -> None:
    """Train a row, unless its model is there; write how long it took."""
    plan, folder = ROWS[row], work / "models" / row
    if plan.trained or (folder / "seconds.json").is_file():
        return
    start = time.perf_counter()
    if plan.recipe:
        _train_method(work, plan, folder, seed)
    else:
        _train_baseline(work, plan, folder, seed)
    (folder / "seconds.json").write_text(json.dumps(time.perf_counter() - start))


def _train_method(work: Path, plan: Plan, folder: Path, seed: int) -> None:
    from wsi_attention.config import RECIPES

    command = [sys.executable, "-m", "wsi_attention.cli", "train", "--config", str(RECIPES / f"{plan.recipe}.toml")]
    command += ["-l", str(work / "slides/train/labels.csv"), "-i", str(work / "slides/train"), "-o", str(folder)]
    command += ["--seed", str(seed)]
    if plan.recipe == "needle-oaa-plus":
        command += ["--maps", str(work / "models" / "oaa")]
    if plan.scratch:
        command[command.index("--config") + 1] = str(_scratch_recipe(folder))
    elif "encoder = " in (RECIPES / f"{plan.recipe}.toml").read_text(encoding="utf-8"):
        command += ["--encoder-start", str(work / "encoder.safetensors")]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)


def _scratch_recipe(folder: Path) -> Path:
    from wsi_attention.config import RECIPES

    text = (RECIPES / "needle-ats.toml").read_text(encoding="utf-8").replace("encoder_frozen = true", "")
    path = folder.parent / f"{folder.name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _baseline(work: Path, plan: Plan, seed: int) -> Any:
    import torch
    from needle_baselines import AttentionMIL
    from needle_encoder import fresh
    from needle_tiles import MPP, SIDE

    from wsi_attention.encoders.encoder_weights import fill_encoder, read_encoder
    from wsi_attention.nn.encoders import Frozen

    path = str(work / "encoder.safetensors")
    torch.manual_seed(seed)
    encoder = Frozen(fresh())
    fill_encoder(encoder, read_encoder(path).tensors, path)
    return AttentionMIL(encoder, SIDE, MPP, OVERVIEW_MPP, plan.draws)


def _train_baseline(work: Path, plan: Plan, folder: Path, seed: int) -> None:
    import torch
    from needle_baselines import fit, remember
    from needle_measure import truth_of
    from safetensors.torch import save_file

    model = _baseline(work, plan, seed)
    slides, features = sorted((work / "slides/train").glob("*.tiff")), work / "features.pt"
    if not features.is_file():
        torch.save(remember(model, slides), features)
    bags = torch.load(features, weights_only=True)
    fit(model, bags, [truth_of(path).label for path in slides], seed)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "baseline.safetensors")


def classifier_of(work: Path, row: str) -> Any:
    """The row's model as `load_model` gives it."""
    from needle_slides import CLASSES
    from safetensors.torch import load_file

    from wsi_attention.checkpoint import Classifier, load_model

    plan = ROWS[row]
    folder = work / "models" / (plan.trained or row)
    if plan.recipe:
        return load_model(folder)
    model = _baseline(work, plan, 0)
    model.load_state_dict(load_file(folder / "baseline.safetensors"))
    return Classifier(model.eval(), CLASSES, {}, row, row)


def exact_of(row: str) -> bool:
    """Tell whether the row evaluates every cell."""
    return ROWS[row].exact


def measure(work: Path, row: str) -> None:
    """Classify the test slides of every fraction, and write what came of it."""
    import torch
    from needle_measure import measure as measured

    from wsi_attention.inference.predict import predict

    path = work / "results" / f"{row}.json"
    if path.is_file():
        return
    torch.set_num_threads(1)
    classifier, exact = classifier_of(work, row), exact_of(row)
    found = {}
    for share in ROWS[row].fractions:
        one = measured(
            lambda slide: predict(slide, classifier, device="cpu", exact=exact), work / "slides" / f"test-{share:g}"
        )
        found[f"{share:g}"] = one.as_dict()
        print(row, share, json.dumps(one.as_dict()), flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2))


def everything(work: Path, rows: list[str], processes: int) -> None:
    """All steps; rows side by side, each in processes of its own."""
    make_slides(work, processes)
    make_encoder(work)

    def steps(row: str) -> None:
        for step in ("train", "measure"):
            command = [sys.executable, __file__, step, row, "--work", str(work)]
            subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})

    first = [row for row in rows if not ROWS[row].trained and row != "oaa-plus"]
    for group in (first, [row for row in rows if row not in first]):
        with ThreadPoolExecutor(processes) as pool:
            list(pool.map(steps, group))
    report(work)


def report(work: Path) -> None:
    """Print the table and draw the figure."""
    from needle_report import draw, table

    print(table(work, list(ROWS)))
    draw(work, [row for row in ROWS if (work / "results" / f"{row}.json").is_file()])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("all", "slides", "encoder", "train", "measure", "report"))
    parser.add_argument("row", nargs="*", choices=[*ROWS, []], help="of train and measure, and which ones of all")
    parser.add_argument("--work", type=Path, default=Path("needle-work"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = given.row or list(ROWS)
    if given.step == "all":
        everything(given.work, rows, given.processes)
    elif given.step == "slides":
        make_slides(given.work, given.processes)
    elif given.step == "encoder":
        make_encoder(given.work)
    elif given.step == "report":
        report(given.work)
    for row in rows if given.step in ("train", "measure") else ():
        train(given.work, row, given.seed) if given.step == "train" else measure(given.work, row)


if __name__ == "__main__":
    main()
