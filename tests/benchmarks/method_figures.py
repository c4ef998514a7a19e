"""What TNet, RAMS-Trans and TRT reach where 20, 5 and 1 % of the tissue are tumour, part by part; a picture a method.

    python tests/benchmarks/method_figures.py all --work FOLDER [--slides FOLDER] [--count 60]
    python tests/benchmarks/method_figures.py pictures --work FOLDER [--slide FILE] [--models NAME=FOLDER ...]

`all` makes slides of real PatchCamelyon tiles (`needle_slides.py`), unless they lie in --slides, trains each method by
the command `wsi-attention train` with the shipped recipe needle-<method>, large clusters first, and writes
`figures.json` and a table: AUROC of the slide label with intervals over slides, for the whole model and for each part
that answers by itself. Each step is skipped where its result lies in the folder. Steps can be called alone: slides,
train METHOD, measure METHOD, pictures, table.

`pictures` writes one picture a method of the same slide, as `classify` would draw it, the tumour outlined in white.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

METHODS = ("tnet", "rams-trans", "trt")
FRACTIONS = (0.2, 0.05, 0.01)
TRAIN_SEED, TEST_SEED = 100_000, 200_000


def make_slides(slides: Path, count: int) -> None:
    """The training slides and a test set a fraction; positives of all fractions share one set of negatives."""
    from needle_slides import specs, write_set

    if not (slides / "train" / "labels.csv").is_file():
        write_set(slides / "train", specs("train", 240, TRAIN_SEED, (0.005, 0.5)))
    for share in FRACTIONS:
        folder = slides / f"test-{share:g}"
        wanted = specs("test", count, TEST_SEED, (share,))
        if not (folder / "labels.csv").is_file():
            write_set(folder, [one for one in wanted if one.fraction])
    negatives = slides / "test-0"
    if not (negatives / "labels.csv").is_file():
        write_set(negatives, [one for one in specs("test", count, TEST_SEED, (0.2,)) if not one.fraction])


def sized_labels(slides: Path, path: Path) -> Path:
    """labels.csv of the training slides with the column size, from their layouts where it is missing."""
    from needle_measure import truth_of

    with (slides / "train" / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        truth = truth_of(slides / "train" / row["slide"])
        row["size"] = row.get("size") or f"{truth.tumour.sum() / truth.tissue.sum():.5g}"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def train(work: Path, slides: Path, method: str) -> None:
    """Train by the command line, unless the model is there; write how long it took in all, over kills."""
    folder = work / "models" / method
    if (folder / "training" / "finished.json").is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    labels = work / "labels.csv"
    if not labels.is_file():
        sized_labels(slides, labels)
    command = [sys.executable, "-m", "wsi_attention.cli", "train", "--config", f"needle-{method}"]
    command += ["-l", str(labels), "-i", str(slides / "train"), "-o", str(folder)]
    if method == "trt":
        command += ["--encoder-start", str(encoder(work))]
    start, times = time.perf_counter(), work / "models" / f"{method}.seconds.json"
    before = json.loads(times.read_text()) if times.is_file() else []
    with (folder.parent / f"{method}.log").open("a") as log:
        done = subprocess.run(command, check=False, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    times.write_text(json.dumps([*before, time.perf_counter() - start]))
    done.check_returncode()


def encoder(work: Path) -> Path:
    """The shared tile encoder of the needle benchmark as a .safetensors file."""
    from needle_encoder import pretrain

    from wsi_attention.encoders.encoder_weights import save_encoder

    path = work / "encoder.safetensors"
    if not path.is_file():
        save_encoder(path, pretrain()[0])
    return path


def measure(work: Path, slides: Path, method: str, count: int) -> None:
    """Look at the test slides of every fraction, and add what came of it to figures.json."""
    import torch

    from wsi_attention.checkpoint import load_model

    path = work / "figures.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    if method in found:
        return
    torch.set_num_threads(1)
    model = load_model(work / "models" / method).model
    negatives = _logits(model, _test_slides(slides, 0.0, count))
    found[method] = {
        f"{share:g}": _aurocs(model, negatives, _logits(model, _test_slides(slides, share, count)))
        for share in FRACTIONS
    }
    path.write_text(json.dumps(found, indent=2))


def _test_slides(slides: Path, share: float, count: int) -> list[Path]:
    """Half of `count` slides with a share of tumour, or of those without."""
    from needle_measure import truth_of

    for name in [f"test-{share:g}", *(f"test-{other:g}" for other in FRACTIONS if not share)]:
        found = [path for path in sorted((slides / name).glob("*.tiff")) if bool(truth_of(path).label) == (share > 0)]
        if found:
            return found[: count // 2]
    raise SystemExit(f"no test slides with a share of {share:g} in {slides}")


def _logits(model: Any, paths: Sequence[Path]) -> NDArray[np.float64]:
    """Probability of tumour (slides, 1 + parts): of the whole model, then of each part; NaN where there is none."""
    import torch

    from wsi_attention.slide.slide import open_slide
    from wsi_attention.tiles.source import SlideSource

    rows = []
    for path in paths:
        with open_slide(str(path)) as slide, torch.no_grad():
            output = model(SlideSource(slide))
        parts = [] if output.parts is None else list(output.parts[0])
        rows.append([float(one.double().softmax(-1)[1]) for one in (output.logits[0], *parts)])
    return np.array(rows)


def _aurocs(model: Any, negative: NDArray[np.float64], positive: NDArray[np.float64]) -> dict[str, Any]:
    """AUROC and its 95 % interval over slides, by part."""
    from wsi_attention.statistics.curves import area_under_roc
    from wsi_attention.statistics.intervals import auroc_interval

    values = np.concatenate([negative, positive])
    labels = np.arange(len(values)) >= len(negative)
    found: dict[str, Any] = {"slides": len(values)}
    for name, column in zip(("whole", *getattr(model, "part_names", ())), values.T, strict=False):
        if np.isfinite(column).all():
            pairs = np.stack([1 - column, column], axis=1)
            found[name] = [area_under_roc(column, labels), *auroc_interval(pairs, labels.astype(np.int64))]
    return found


def table(work: Path) -> str:
    """Markdown of figures.json and the training times."""
    found = json.loads((work / "figures.json").read_text())
    lines = ["| method | answer | 20 % | 5 % | 1 % | training |", "|---|---|---|---|---|---|"]
    for method, own in found.items():
        times = work / "models" / f"{method}.seconds.json"
        minutes = f"{sum(json.loads(times.read_text())) / 60:.0f} min" if times.is_file() else "–"
        for part in (name for name in own["0.2"] if name != "slides"):
            cells = [_cell(own[f"{share:g}"].get(part)) for share in FRACTIONS]
            lines.append(f"| {method} | {part} | {' | '.join(cells)} | {minutes if part == 'whole' else ''} |")
    return "\n".join(lines)


def _cell(value: Sequence[float] | None) -> str:
    return "–" if value is None else f"{value[0]:.3f} ({value[1]:.3f}-{value[2]:.3f})"


def pictures(work: Path, slide: Path, models: dict[str, Path]) -> list[Path]:
    """One picture a method of the same slide, named after the method."""
    from PIL import ImageDraw

    from wsi_attention import load_model, open_slide, predict
    from wsi_attention.export.heatmap import draw
    from wsi_attention.export.legend import Frame
    from wsi_attention.slide.view import View

    made = []
    for name, folder in models.items():
        with open_slide(str(slide)) as opened:
            prediction = predict(opened, load_model(folder), device="cpu")
            overview = View(opened, max(1.0, max(prediction.extent) / 1400)).read_whole()
        image = draw(prediction, overview)
        _outline(ImageDraw.Draw(image), slide, Frame.around(prediction.extent))
        made.append(work / "pictures" / f"{name}.png")
        made[-1].parent.mkdir(parents=True, exist_ok=True)
        image.save(made[-1], optimize=True)
        print(f"{made[-1]}: {prediction.label} {prediction.probabilities.max():.3f}")
    return made


def _outline(pen: Any, slide: Path, frame: Any) -> None:
    """Outline the tumour cells of a slide of the benchmark; nothing on another slide."""
    if not (slide.parent / "layout" / f"{slide.stem}.json").is_file():
        return
    from needle_measure import truth_of
    from needle_tiles import SIDE

    tumour = np.pad(truth_of(slide).tumour, 1)
    for row, col in np.argwhere(tumour):
        x0, y0 = (frame.origin[i] + (at - 1) * SIDE * frame.scale[i] for i, at in enumerate((col, row)))
        x1, y1 = x0 + SIDE * frame.scale[0], y0 + SIDE * frame.scale[1]
        edges = {
            (-1, 0): (x0, y0, x1, y0),
            (1, 0): (x0, y1, x1, y1),
            (0, -1): (x0, y0, x0, y1),
            (0, 1): (x1, y0, x1, y1),
        }
        for (down, right), line in edges.items():
            if not tumour[row + down, col + right]:
                pen.line(line, (255, 255, 255), 3)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("all", "slides", "train", "measure", "table", "pictures"))
    parser.add_argument("methods", nargs="*", help=f"of train and measure; {', '.join(METHODS)} where none is named")
    parser.add_argument("--work", type=Path, default=Path("method-work"))
    parser.add_argument("--slides", type=Path, help="folder with train/ and test-…/; FOLDER/slides where not given")
    parser.add_argument("--count", type=int, default=60, help="test slides a fraction, half of them without tumour")
    parser.add_argument("--slide", type=Path, help="of the pictures; the first test slide with 5 %% tumour")
    parser.add_argument("--models", nargs="*", default=[], metavar="NAME=FOLDER", help="of the pictures")
    given = parser.parse_args()
    slides, chosen = given.slides or given.work / "slides", given.methods or list(METHODS)
    given.work.mkdir(parents=True, exist_ok=True)
    if given.step in ("all", "slides") and given.slides is None:
        make_slides(slides, given.count)
    for method in chosen:
        if given.step in ("all", "train"):
            train(given.work, slides, method)
        if given.step in ("all", "measure"):
            measure(given.work, slides, method, given.count)
    if given.step in ("all", "pictures"):
        named = dict(one.split("=", 1) for one in given.models)
        models = {name: Path(folder) for name, folder in named.items()} or {
            path.name: path for path in sorted((given.work / "models").iterdir()) if (path / "config.json").is_file()
        }
        pictures(given.work, given.slide or _test_slides(slides, 0.05, 2)[0], models)
    if given.step in ("all", "measure", "table"):
        print(table(given.work))


if __name__ == "__main__":
    main()
