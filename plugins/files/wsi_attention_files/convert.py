"""Whole folders there and back: our results as a dialect's files, and their files as masks for `classify`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_attention import WsiAttentionError
from wsi_attention.bags import Bag, read_bag, write_bag
from wsi_attention.errors import InputError
from wsi_attention.plain_text import in_cell
from wsi_attention_files.masks import write_mask

if TYPE_CHECKING:
    from wsi_attention import Classifier, Slide

TILE_COLUMNS = ("minx", "miny", "width", "height", "weight")


@dataclass(frozen=True)
class Refused:
    """A file or slide that could not be used, and why, in one line."""

    name: str
    reason: str


def write_results(
    results: str | Path,
    folder: str | Path,
    dialect: str,
    names: Iterable[str] = (),
    classifier: Classifier | None = None,
) -> Iterator[Path | Refused]:
    """Writes the tiles of a results folder as a dialect's files; slide by slide, one that fails costs only itself.

    Args:
        results: the folder that `classify` wrote.
        folder: where to; the dialect's own layout is made below it.
        dialect: "trident", "clam", "wsinfer" or "stamp".
        names: slides as predictions.csv names them; all if empty.
        classifier: computes features with its tile encoder; coordinates alone without it.

    Raises:
        ResultsError: no results there, or the folder cannot be written.
    """
    from wsi_attention.inference import stored_predictions
    from wsi_attention_files.results import bags_of_results

    wanted = list(names)
    for name in wanted or [one for one, _ in stored_predictions(results)]:
        try:
            for bag in bags_of_results(results, [name], classifier):
                yield from write_bag(bag, folder, dialect)
        except InputError as error:
            yield Refused(name, str(error))
        except WsiAttentionError as error:
            if not isinstance(error, ValueError):  # the folders, not the slide
                raise
            yield Refused(name, str(error))


def read_folder(
    files: Sequence[str | Path], folder: str | Path, slides: str | Path | None = None, mpp: float | None = None
) -> Iterator[Path | Refused]:
    """Turns others' HDF5 files into `masks/<slide>.geojson`, `tiles/<slide>.csv` and a `slides.csv` for `classify`.

    Args:
        files: HDF5 files, or folders to look through.
        folder: where to.
        slides: the folder with the slides, found by name; sizes are then checked and `slides.csv` is written.
        mpp: µm per level-0 pixel of slides that do not say it.

    Raises:
        InputError: no file at all.
        ResultsError: the folder cannot be written.
    """
    root, rows, done = Path(folder), [], set[str]()
    for path in _hdf5_files(files):
        try:
            bag, slide = _placed(path, slides, mpp)
            if bag.name in done:
                raise InputError(f"{path}: another file of this name came before it; keep one file for each slide")
            done.add(bag.name)
            mask = write_mask(bag, root / "masks" / f"{bag.name}.geojson")
            yield mask
            yield _write_tiles(bag, root / "tiles" / f"{bag.name}.csv")
        except InputError as error:
            yield Refused(str(path), str(error))
            continue
        except WsiAttentionError as error:
            if not isinstance(error, ValueError):
                raise
            yield Refused(str(path), str(error))
            continue
        if slide is not None:
            given = "" if mpp is None else f"{mpp!r}"
            rows.append((str(slide), given, str(mask.relative_to(root))))
    if rows:
        table = root / "slides.csv"
        _write_csv(table, ("slide", "mpp", "mask"), rows)
        yield table


def _hdf5_files(files: Sequence[str | Path]) -> list[Path]:
    """The files, and those in folders; of CLAM's the coordinates, for its feature files do not say what they mean."""
    found: list[Path] = []
    for given in map(Path, files):
        inside = sorted(
            one for one in given.rglob("*.h5") if not one.name.startswith(".") and one.parent.name != "h5_files"
        )
        found += inside if given.is_dir() else [given]
    if not found:
        raise InputError(f"{', '.join(map(str, files))}: no .h5 file")
    return found


def _placed(path: Path, slides: str | Path | None, mpp: float | None) -> tuple[Bag, Path | None]:
    from wsi_attention import open_slide

    if slides is None:
        return read_bag(path, mpp=mpp), None
    stem = path.stem.removesuffix("_patches")
    where = _slide_of(stem, Path(slides))
    with open_slide(where, mpp=mpp) as slide:
        return read_bag(path, mpp=_mpp_of(slide), extent=slide.dimensions), where.resolve()


def _mpp_of(slide: Slide) -> float | None:
    from wsi_attention.errors import MissingMppError

    try:
        return slide.mpp
    except MissingMppError:
        return None


def _slide_of(stem: str, folder: Path) -> Path:
    from wsi_attention.inference import find_slides, suffix_of

    slides = [Path(one.path) for one in find_slides([folder]).slides]
    found = [one for one in slides if one.name.removesuffix(suffix_of(one.name)) == stem]
    if len(found) != 1:
        raise InputError(f"{folder}: {len(found) or 'no'} slides named {stem}; exactly one is needed")
    return found[0]


def _write_tiles(bag: Bag, path: Path) -> Path:
    weights = [""] * len(bag) if bag.weights is None else [f"{one:.6g}" for one in bag.weights]
    _write_csv(path, TILE_COLUMNS, [(*box, weight) for box, weight in zip(bag.boxes.tolist(), weights, strict=True)])
    return path


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from wsi_attention.errors import ResultsError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([in_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    except OSError as error:
        raise ResultsError(f"{path}: cannot be written ({error.strerror})") from error
