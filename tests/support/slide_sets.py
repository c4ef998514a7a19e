"""Whole sets of synthetic slides from the command line.

    python tests/support/slide_sets.py OUT --count 200 --seed 1000 --size 6144

writes slides, `labels.csv` and `groundtruth/`; `--giant` writes one of 100,000 pixels a side.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from slide_mosaic import write_large_slide

from wsi_attention.testing.slides import (
    CLASSES,
    SUFFIXES,
    SlideSpec,
    SlideTruth,
    truth_name,
    write_slide,
    write_truth,
)


def set_of_slides(
    count: int, seed: int, size: int, formats: Sequence[str], lesion_scales: Sequence[float]
) -> Iterator[tuple[str, SlideSpec]]:
    """(file name, spec) of every slide: classes, formats and lesion scales take turns, every slide has its own seed."""
    for index in range(count):
        name = f"slide_{seed + index:06d}{SUFFIXES[formats[index // 2 % len(formats)]]}"
        scale = lesion_scales[index // 2 % len(lesion_scales)]
        yield name, SlideSpec((size, size), seed=seed + index, label=CLASSES[index % 2], lesion_scale=scale)


def _scales(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _write(job: tuple[Path, str, SlideSpec]) -> tuple[str, SlideTruth]:
    folder, name, spec = job
    truth = write_slide(folder / name, spec)
    write_truth(folder / "groundtruth" / truth_name(name), truth)
    return name, truth


def write_set(folder: Path, slides: Sequence[tuple[str, SlideSpec]], workers: int) -> list[tuple[str, SlideTruth]]:
    """Write the slides side by side, then labels.csv; show progress; return (file name, truth) of each."""
    from rich.progress import track

    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(folder, name, spec) for name, spec in slides]
    if workers > 1:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            done = list(track(pool.map(_write, jobs), "writing slides", total=len(jobs)))
    else:
        done = [_write(job) for job in track(jobs, "writing slides")]
    write_labels(folder, done)
    return done


def write_giant(folder: Path, seed: int, kind: str) -> None:
    """Write one slide of 100,000² pixels with lesions, its label and its ground truth."""
    name = f"giant_{seed:06d}"
    spec = SlideSpec((100_000, 100_000), mpp=0.25, seed=seed, label="lesion")
    truth = write_large_slide(folder / f"{name}{SUFFIXES[kind]}", spec)
    write_truth(folder / "groundtruth" / truth_name(name), truth)
    write_labels(folder, [(f"{name}{SUFFIXES[kind]}", truth)])


def write_labels(folder: Path, done: Sequence[tuple[str, SlideTruth]]) -> None:
    """labels.csv: slide, label, patient, size; every slide is its own patient, size is the lesions' share of tissue."""
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["slide", "label", "patient", "size"])
        for name, truth in done:
            size = f"{truth.lesion_area / truth.tissue_area:.5g}" if truth.tissue_area else ""
            rows.writerow([name, truth.label, f"patient_{name.split('.')[0].split('_')[-1]}", size])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python tests/support/slide_sets.py",
        description="Writes synthetic H&E slides with known lesions.",
        epilog="example: python tests/support/slide_sets.py slides/ --count 200 --seed 1000 --size 6144",
    )
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--count", type=int, default=10, help="how many slides (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first slide; the others count up from it")
    parser.add_argument("--size", type=int, default=6144, help="width and height in pixels at 0.5 µm/px")
    parser.add_argument("--formats", default="svs", help=f"comma-separated, of {', '.join(SUFFIXES)} (default: svs)")
    parser.add_argument("--lesion-scale", type=_scales, default=[1.0], help="factors on lesion area, taking turns")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--giant", action="store_true", help="one slide of 100,000 pixels a side at 0.25 µm/px instead")
    given = parser.parse_args(arguments)
    formats = given.formats.split(",")
    if unknown := [name for name in formats if name not in SUFFIXES]:
        parser.error(f"--formats: unknown {', '.join(unknown)}; possible: {', '.join(SUFFIXES)}")
    if given.giant:
        write_giant(given.out, given.seed, formats[0])
        return
    slides = list(set_of_slides(given.count, given.seed, given.size, formats, given.lesion_scale))
    write_set(given.out, slides, given.workers)


if __name__ == "__main__":
    main()
