"""Methods, exhaustive attention MIL, colour alone and random tiles on needles in real or stain-matched tissue.

    python tests/benchmarks/needle.py all --work FOLDER [--variant matched] [--encoder lite0] [--seeds 0 1 2]

Makes slides of real PatchCamelyon tiles (`needle_slides.py`), teaches one encoder on tiles that are in none of them
(`needle_encoder.py`; `needle_lite0.py` from published weights), remembers features and overviews
(`needle_remembered.py`), trains every row with every seed, methods by the command `wsi-attention train` with the
shipped recipe needle-<method>, baselines on what is remembered (`needle_baselines.py`), classifies validation and test
slides, and prints a table (`needle_report.py`). Each step is skipped where its result lies in the folder, and can be
called alone: slides, encoder, remember, train ROW, measure ROW, report, curve.

Test slides of the names from "final" on (`TESTS`) have seeds of their own and are for figures after the last choice:
--sets held-0.01 turned-0.01.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from needle_slides import VARIANTS

FRACTIONS = (0.05, 0.01, 0.005, 0.002)
TRAINING = {"part": "train", "count": 240, "seed": 100_000, "fraction": (0.005, 0.5)}
TESTS = {
    "valid": {"part": "train", "count": 100, "seed": 150_000},
    "test": {"part": "test", "count": 100, "seed": 200_000},
    "final": {"part": "test", "count": 100, "seed": 300_000},
    "held": {"part": "held", "count": 100, "seed": 350_000},
    "fresh": {"part": "fresh", "count": 200, "seed": 500_000},
    "last": {"part": "fresh", "count": 200, "seed": 700_000},
    "newest": {"part": "fresh", "count": 200, "seed": 900_000},
    "unseen": {"part": "fresh", "count": 200, "seed": 1_100_000},
    "sealed": {"part": "fresh", "count": 200, "seed": 1_300_000},
    "closing": {"part": "fresh", "count": 200, "seed": 1_500_000},
    "turned": {"part": "fresh", "count": 200, "seed": 1_700_000},
}
"""For choices, of the tiles of the training slides; for a look at other tiles; for the last figures. "held" for a
threshold on tiles that nothing has learnt, and "fresh" for the last figures beside it, share no tile. The six after it
are other slides of the tiles of "fresh", each for what was chosen since the ones before were looked at."""
SETS: dict[str, dict[str, Any]] = {"train": TRAINING} | {
    f"{name}-{share:g}": given | {"fraction": (share,)} for name, given in TESTS.items() for share in FRACTIONS
}
MADE = [name for name in SETS if name.startswith(("train", "valid", "test"))]
TURNS = 8
"""In how many turns prediction encodes a tile, where stains are alike and the encoder is a good one."""
OTHER_STAINS = 0.3
"""How far the stains of training overviews are made to vary, where those of slides do and attention sees pixels."""
ENCODERS = ("small", "lite0")
SEEDS = (0, 1, 2)
CURVES = ("exhaustive", "context", "colour", "random", "ats", "grow")


@dataclass(frozen=True)
class Place:
    """Where things lie: slides and features by variant, models and results by variant and encoder.

    Attributes:
        work: the folder of the whole benchmark.
        variant: of the slides.
        encoder: of the tiles.
        epochs: passes over the training slides in place of the recipes'; theirs where 0.
    """

    work: Path
    variant: str = VARIANTS[0]
    encoder: str = ENCODERS[0]
    epochs: int = 0

    @property
    def weights(self) -> Path:
        """The encoder's file: one of its own for each variant, since an encoder knows the stain it was taught on."""
        name = [
            "encoder",
            *([self.encoder] * (self.encoder != "small")),
            *([self.variant] * (self.variant != "stained")),
        ]
        return self.work / f"{'-'.join(name)}.safetensors"

    @property
    def features(self) -> Path:
        """What is remembered."""
        return self.work / self.variant / "features"

    def slides(self, name: str) -> Path:
        """The folder of a set."""
        return self.work / self.variant / "slides" / name

    def model(self, row: str, seed: int) -> Path:
        """The folder of a trained row."""
        return self.work / self.variant / self.encoder / "models" / f"{row}-{seed}"

    def result(self, row: str, seed: int) -> Path:
        """The figures of a row."""
        return self.work / self.variant / self.encoder / "results" / f"{row}-{seed}.json"


@dataclass(frozen=True)
class Plan:
    """How a row comes about.

    Attributes:
        recipe: shipped recipe, empty for a baseline.
        trained: the row whose model it uses; its own where empty.
        scratch: whether the encoder starts from nothing and learns along.
        exact: whether prediction evaluates every cell.
    """

    recipe: str = ""
    trained: str = ""
    scratch: bool = False
    exact: bool = False


ROWS = {
    "exhaustive": Plan(),
    "context": Plan(),
    "colour": Plan(),
    "random": Plan(),
    "ats": Plan("needle-ats"),
    "grow": Plan("needle-grow"),
    "zoom-in": Plan("needle-zoom-in"),
    "tnet": Plan("needle-tnet"),
    "rams-trans": Plan("needle-rams-trans"),
    "oaa": Plan("needle-oaa"),
    "oaa-plus": Plan("needle-oaa-plus"),
    "trt": Plan("needle-trt"),
    "ats-exact": Plan("needle-ats", trained="ats", exact=True),
    "ats-scratch": Plan("needle-ats", scratch=True),
}


def make_slides(place: Place, names: Sequence[str], processes: int) -> None:
    """The slides of those sets; sets of one seed share their negatives."""
    from needle_slides import share_negatives, specs, write_set

    for name in names:
        folder = place.slides(name)
        if (folder / "labels.csv").is_file():
            continue
        wanted = specs(**SETS[name], variant=place.variant)
        for other in SETS:
            if other != name and SETS[other]["seed"] == SETS[name]["seed"]:
                share_negatives(folder, place.slides(other), wanted)
        write_set(folder, wanted, processes)


def make_encoder(place: Place) -> None:
    """The shared encoder as a .safetensors file."""
    if place.weights.is_file():
        return
    from needle_encoder import pretrain
    from needle_lite0 import make
    from needle_stain import load_matched
    from needle_tiles import load

    from wsi_attention.encoders.encoder_weights import save_encoder

    part = load_matched if place.variant == "matched" else load
    if place.encoder == "lite0":
        make(place.weights, part=part)
        return
    encoder, auroc = pretrain(tiles=part("encoder"))
    save_encoder(place.weights, encoder)
    print(f"encoder: AUROC {auroc:.3f} on tiles it has not seen")


def encode_of(place: Place) -> Callable[..., Any]:
    """What turns pixels into features with the encoder as it was written."""
    from needle_encoder import fresh
    from needle_lite0 import build
    from needle_remembered import encode_with

    from wsi_attention.encoders.encoder_weights import fill_encoder, read_encoder
    from wsi_attention.nn.encoders import Frozen
    from wsi_attention.nn.preprocess import Normalise

    weights = read_encoder(place.weights)
    encoder = Frozen(build() if place.encoder == "lite0" else fresh())
    fill_encoder(encoder, weights.tensors, str(place.weights))
    return encode_with(encoder, Normalise(weights.mean, weights.std) if weights.mean else Normalise())


def remember(place: Place, names: Sequence[str]) -> None:
    """Features of all tiles of those sets, overviews and tissue of all their slides."""
    from needle_remembered import remember_slides, remember_tiles
    from needle_slides import NeedleSpec, tiles_of

    for name in names:
        if not (path := place.features / f"{name}.safetensors").is_file():
            remember_slides(path, place.slides(name))
    for part in sorted({str(SETS[name]["part"]) for name in names}):
        tiles = place.features / f"tiles-{part}-{place.encoder}.safetensors"
        if not tiles.is_file():
            remember_tiles(tiles, tiles_of(NeedleSpec(part, 0, 0.0, variant=place.variant)), encode_of(place))


def train(place: Place, row: str, seed: int) -> None:
    """Train a row, unless its model is there; write how long it took."""
    plan, folder = ROWS[row], place.model(row, seed)
    if plan.trained or (folder / "seconds.json").is_file():
        return
    start = time.perf_counter()
    if plan.recipe:
        _train_method(place, plan, folder, seed)
    else:
        _train_baseline(place, row, folder, seed)
    (folder / "seconds.json").write_text(json.dumps(time.perf_counter() - start))


def _train_method(place: Place, plan: Plan, folder: Path, seed: int) -> None:
    slides, recipe = place.slides("train"), _recipe(place, plan, folder)
    command = [sys.executable, "-m", "wsi_attention.cli", "train", "--config", str(recipe)]
    command += ["-l", str(slides / "labels.csv"), "-i", str(slides), "-o", str(folder), "--seed", str(seed)]
    if plan.recipe == "needle-oaa-plus":
        command += ["--maps", str(place.model("oaa", seed))]
    command += ["--epochs", str(place.epochs)] * (place.epochs > 0)
    if not plan.scratch and "encoder = " in recipe.read_text(encoding="utf-8"):
        command += ["--encoder-start", str(place.weights)]
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)


def _recipe(place: Place, plan: Plan, folder: Path) -> Path:
    """The shipped recipe with the encoder of this place, with foresight where that is worth something, and then with
    other stains in overviews where those of slides differ, with tiles in several turns where they are alike."""
    from wsi_attention.config import RECIPES

    worth = place.variant == "matched" or place.encoder == "lite0"
    own = RECIPES / f"{plan.recipe}{'-foresight' * worth}.toml"
    text = (own if own.is_file() else RECIPES / f"{plan.recipe}.toml").read_text(encoding="utf-8")
    if worth and place.variant != "matched":
        text = text.replace("\nstain = 0.0", f"\nstain = 0.0\noverview_stain = {OTHER_STAINS}")
    if plan.scratch:
        text = text.replace("encoder_frozen = true", "")
    elif place.encoder == "lite0" and "encoder = " in text:
        lines = [line for line in text.splitlines() if not line.startswith(("encoder_widths", "features ="))]
        text = "\n".join(lines).replace('encoder = "small"', 'encoder = "efficientnet-lite0"')
        text = text.replace('statistics = "builder"', 'statistics = "encoder"')
        if worth and place.variant == "matched":
            text = text.replace("encoder_frozen = true", f"encoder_frozen = true\nencoder_turns = {TURNS}")
    path = folder.with_name(f"{folder.name}.toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _train_baseline(place: Place, row: str, folder: Path, seed: int) -> None:
    from needle_baselines import BASELINES, fit, save
    from needle_remembered import recall

    slides = recall(place.features, "train", place.encoder if BASELINES[row].reads else "")
    save(fit(BASELINES[row], slides, seed), folder / "head.safetensors")


def looker_of(place: Place, row: str, seed: int, draws: int | None = None) -> Any:
    """What looks at a slide of a set as the trained row does (`needle_measure.Looker`).

    Args:
        place: where things lie.
        row: its name.
        seed: of its training.
        draws: tiles read a slide, in place of the row's own number.
    """
    from needle_measure import baseline_looker, method_looker

    from wsi_attention.checkpoint import load_model

    plan = ROWS[row]
    folder = place.model(plan.trained or row, seed)
    if not plan.recipe:
        return baseline_looker(place, row, folder, draws)
    return method_looker(load_model(folder), plan.exact, draws)


def measure(place: Place, row: str, seed: int, names: Sequence[str]) -> None:
    """Classify the slides of those sets that are not measured yet, and write what came of each slide."""
    import torch
    from needle_measure import measured

    torch.set_num_threads(1)
    path = place.result(row, seed)
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    missing = [name for name in names if name != "train" and name not in found]
    if not missing:
        return
    look, negatives = looker_of(place, row, seed), {}
    for name in missing:
        found[name] = measured(look, place.slides(name), negatives)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))


def everything(place: Place, rows: list[str], seeds: list[int], names: list[str], processes: int) -> None:
    """All steps; rows side by side, each in processes of its own."""
    make_slides(place, names, processes)
    make_encoder(place)
    remember(place, names)

    def steps(job: tuple[str, int]) -> None:
        about = ["--work", str(place.work), "--variant", place.variant, "--encoder", place.encoder]
        about += ["--epochs", str(place.epochs), "--seeds", str(job[1]), "--sets", *names]
        for step in ("train", "measure"):
            command = [sys.executable, __file__, step, job[0], *about]
            subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})

    first = [row for row in rows if not ROWS[row].trained and row != "oaa-plus"]
    for group in (first, [row for row in rows if row not in first]):
        with ThreadPoolExecutor(processes) as pool:
            list(pool.map(steps, [(row, seed) for row in group for seed in seeds]))
    report(place, seeds)


def report(place: Place, seeds: Sequence[int]) -> None:
    """Print the table; write its figures as JSON, and draw where each row looked."""
    from needle_picture import draw
    from needle_report import write_figures

    print(write_figures(place, list(ROWS), seeds))
    measured = [row for row in ROWS if place.result(row, 0).is_file()]
    draw(place, measured)


def main() -> None:
    """The command line."""
    steps = ("all", "slides", "encoder", "remember", "train", "measure", "report", "curve")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=steps)
    parser.add_argument(
        "row", nargs="*", choices=[*ROWS, []], help="of train, measure and curve, and which ones of all"
    )
    parser.add_argument("--work", type=Path, default=Path("needle-work"))
    parser.add_argument("--variant", choices=VARIANTS, default=VARIANTS[0])
    parser.add_argument("--encoder", choices=ENCODERS, default=ENCODERS[0])
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=MADE)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--epochs", type=int, default=0, help="in place of the recipes' [theirs]")
    given = parser.parse_args()
    from needle_curve import curve

    place, rows = Place(given.work, given.variant, given.encoder, given.epochs), given.row or list(ROWS)
    if given.step == "all":
        everything(place, rows, given.seeds, given.sets, given.processes)
    elif given.step == "slides":
        make_slides(place, given.sets, given.processes)
    elif given.step == "encoder":
        make_encoder(place)
    elif given.step == "remember":
        remember(place, given.sets)
    elif given.step == "report":
        report(place, given.seeds)
    elif given.step == "curve":
        kind = "final" if any(name.startswith("final") for name in given.sets) else "test"
        print(curve(place, given.row or list(CURVES), given.seeds, kind))
    for row, seed in [(row, seed) for row in rows for seed in given.seeds]:
        if given.step == "train":
            train(place, row, seed)
        elif given.step == "measure":
            measure(place, row, seed, given.sets)


if __name__ == "__main__":
    main()
