"""Pixels of the tiff reader against OpenSlide's, on every slide of a folder, at random places of every level.

    python tests/benchmarks/pixels.py FOLDER … [--places 200] [--reader tiff]

Counts the pixels that differ; the target is 0. Every slide is listed with the reader that `auto` takes and why, also
those that one of the two does not open. Half of the places lie within the slide, half also across its borders; regions
are of 224 px. Without a folder, generated slides of all tiled formats are compared.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import machine, options_parser, save, table
from numpy.typing import NDArray

from wsi_attention import open_slide
from wsi_attention.errors import WsiAttentionError
from wsi_attention.slide.slide import Slide

SIDE = 224
NO_SLIDES = {".md", ".txt", ".json", ".csv", ".geojson", ".xml", ".png"}


@dataclass(frozen=True)
class Comparison:
    """One slide.

    Attributes:
        slide: its name.
        auto: the reader that `auto` takes, or why none does.
        compared: "yes", or why there was nothing to compare.
        places: compared, over all levels.
        differing: pixels with another value in any channel.
        largest: difference of one channel, in grey levels.
        why: why `auto` takes that reader.
    """

    slide: str
    auto: str
    compared: str
    places: int = 0
    differing: int = 0
    largest: int = 0
    why: str = ""


def slides_in(folder: Path) -> list[Path]:
    """Slides below a folder: files, and the tops of zarr stores."""
    stores = [path for path in folder.rglob("*") if path.is_dir() and path.name.endswith(".zarr")]
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() not in NO_SLIDES]
    inside = [file for file in files if not any(store in file.parents for store in stores)]
    return sorted((*stores, *inside))


def random_places(slide: Slide, level: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(count, 2) level-0 locations: half within the slide where it is large enough, half also across its borders."""
    extent = np.array(slide.dimensions)
    reach = np.array([SIDE, SIDE]) * slide.level_downsamples[level]
    inner = rng.uniform(0, np.maximum(extent - reach, 1), (count // 2, 2))
    anywhere = rng.uniform(-reach, extent, (count - count // 2, 2))
    return np.floor(np.concatenate([inner, anywhere])).astype(np.int64)


def compare(path: Path, reader: str, count: int, rng: np.random.Generator) -> Comparison:
    """One slide by both readers."""
    auto, why = taken_by_auto(path)
    try:
        with open_slide(path, reader="openslide") as theirs, open_slide(path, reader=reader) as ours:
            return differences(path, ours, theirs, (auto, why), count, rng)
    except WsiAttentionError as error:
        return Comparison(path.name, auto, str(error).replace(f"{path}: ", ""), why=why)


def taken_by_auto(path: Path) -> tuple[str, str]:
    """The reader that `auto` takes, and why."""
    try:
        with open_slide(path) as slide:
            return slide.reader, slide.reader_reason
    except WsiAttentionError as error:
        return "none", str(error).replace(f"{path}: ", "")


def differences(
    path: Path, ours: Slide, theirs: Slide, taken: tuple[str, str], count: int, rng: np.random.Generator
) -> Comparison:
    """Compare places of all levels that both readers see."""
    auto, why = taken
    if ours.dimensions != theirs.dimensions:
        return Comparison(path.name, auto, f"sizes differ: {ours.dimensions}, {theirs.dimensions}")
    pairs = zip(ours.level_dimensions, theirs.level_dimensions, strict=False)
    levels = [level for level, (one, other) in enumerate(pairs) if one == other]
    if len(levels) < len(ours.level_dimensions):
        why = f"OpenSlide sees {len(theirs.level_dimensions)} of {len(ours.level_dimensions)} levels; {why}"
    differing = largest = 0
    for level in levels:
        found = random_places(ours, level, count, rng)
        out = np.empty((count, SIDE, SIDE, 3), np.uint8)
        failed = [why for why in ours.read_regions(found, level, (SIDE, SIDE), out) if why]
        if failed:
            return Comparison(path.name, auto, failed[0])
        wanted = np.stack([theirs.read((x, y), level, (SIDE, SIDE)) for x, y in found.tolist()])
        away = np.abs(out.astype(np.int16) - wanted)
        differing += int((away > 0).any(axis=-1).sum())
        largest = max(largest, int(away.max()))
    return Comparison(path.name, auto, "yes", count * len(levels), differing, largest, why)


def generated(folder: Path) -> list[Path]:
    """A small slide of each tiled format, of odd size."""
    from wsi_attention.testing.slides import SlideSpec, write_slide

    paths = [folder / f"generated{suffix}" for suffix in (".svs", ".tiff", ".ome.tiff")]
    for path in paths:
        write_slide(path, SlideSpec((3001, 2047), seed=3))
    return paths


def report(found: list[Comparison]) -> None:
    """Print a line a slide and the sum."""
    rows = [(f.slide[:44], f.auto, f.places, f.differing, f.largest) for f in found if f.compared == "yes"]
    print(table(("slide", "auto", "places", "pixels differing", "largest difference"), rows))
    for each in found:
        compared = "compared" if each.compared == "yes" else "not compared"
        print(f"{each.slide[:40]}: {compared}; auto takes {each.auto}: {each.why[:160]}")
    places, differing = sum(f.places for f in found), sum(f.differing for f in found)
    print(f"ratio of pixels differing: {differing} of {places * SIDE**2:,} on {len(rows)} slides, target 0")


def main() -> None:
    """The command line."""
    parser = options_parser(__doc__, "pixels")
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--places", type=int, default=200, help="random places a level")
    parser.add_argument("--reader", default="tiff")
    options: argparse.Namespace = parser.parse_args()
    began, rng = machine(), np.random.default_rng(7)
    with TemporaryDirectory() as folder:
        paths = [slide for each in options.folders for slide in slides_in(each)] or generated(Path(folder))
        found = [compare(path, options.reader, options.places, rng) for path in paths]
    report(found)
    options.folders = [folder.name for folder in options.folders]
    save(options.json, options, {each.slide: asdict(each) for each in found}, began)


if __name__ == "__main__":
    main()
