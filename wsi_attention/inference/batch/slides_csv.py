"""The slides CSV: slide[,mpp][,mask][,series][,patient], a row a slide, paths relative to the CSV or an input folder.

TRIDENT's list of slides, `wsi[,mpp]`, is read as well.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from wsi_attention.csv_table import read_table
from wsi_attention.errors import InputError
from wsi_attention.inference.batch.discovery import Found, SlideFile, find_slides, whole_series
from wsi_attention.inference.batch.globs import expanded
from wsi_attention.inference.batch.matching import SlideNames, plain
from wsi_attention.inference.batch.names import suffix_of
from wsi_attention.slide.metadata import given_mpp
from wsi_attention.slide.urls import is_url, last_part

COLUMNS = ("slide", "wsi", "mpp", "mask", "series", "patient")
"""Columns that are read; others are allowed."""


def gather_slides(
    inputs: Sequence[str | Path], slides_csv: str | Path | None = None, outside: str | Path | None = None
) -> Found:
    """Return the slides a call is about: those of a slides CSV, or all that `find_slides` finds in the inputs.

    Args:
        inputs: files, folders, URLs, slides CSVs; with `slides_csv` the folders its paths are relative to.
        slides_csv: lists the slides, with an mpp or a mask of their own where needed.
        outside: a folder to stay out of.

    Raises:
        InputError: an input does not exist, a CSV is wrong, or there is no slide at all.
    """
    inputs = expanded(inputs)
    if slides_csv is not None:
        files = [str(given) for given in inputs if not Path(given).is_dir()]
        if files:
            raise InputError(f"{files[0]}: not a folder; with --slides-csv, -i names the folder that its paths lie in")
        return read_slides_csv(slides_csv, inputs)
    tables = [given for given in inputs if str(given).lower().endswith(".csv")]
    rest = [given for given in inputs if given not in tables]
    found = sum(map(read_slides_csv, tables), Found())
    listed = {slide.key for slide in found.slides}
    if not tables or rest:
        more = find_slides(rest, outside)
        found += Found(tuple(slide for slide in more.slides if slide.key not in listed), more.others, more.results)
    return found


def read_slides_csv(path: str | Path, folders: Sequence[str | Path] = ()) -> Found:
    """Return the slides a CSV lists, in its order. Other columns are allowed and not looked at.

    Args:
        path: with a header; written as `csv_table.read_table` takes it. A slide may be written without its suffix.
        folders: where slides and masks lie if not beside the CSV; tried first.

    Raises:
        InputError: the file cannot be read, has no column `slide` (or `wsi`), no rows, a slide twice with the same
            series, or an mpp that is no number.
    """
    rows = _rows(Path(path))
    places = [*map(Path, folders), Path(path).parent]
    slides: dict[tuple[str, str | None], SlideFile] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        if not row.get("slide"):
            raise InputError(f"{where}: the column slide is empty")
        mask = row.get("mask") or None
        slide = SlideFile(
            *_placed(row["slide"], places, where),
            mpp=given_mpp(row.get("mpp"), where),
            mask=_placed(mask, places, where)[0] if mask else None,
            series=row.get("series") or None,
            patient=unicodedata.normalize("NFC", row.get("patient", "")) or None,
        )
        slide = whole_series(slide)
        if (slide.key, slide.series) in slides:
            raise InputError(
                f"{where}: {row['slide']} is listed twice; keep one row a slide, or one for each series of it"
            )
        slides[slide.key, slide.series] = slide
    if not slides:
        raise InputError(f"{path}: no rows; one row a slide is needed below the header")
    return Found(tuple(slides.values()))


def _rows(path: Path) -> Sequence[tuple[int, Mapping[str, str]]]:
    table = read_table(path).known_as(COLUMNS)
    if "slide" not in table.columns:
        names = [column.lower() for column in table.columns]
        if "wsi" not in names:
            raise InputError(
                f"{path}: no column slide; found: {', '.join(names) or 'nothing'}; wanted:"
                " slide[,mpp][,mask][,series][,patient]"
            )
        return [(line, {**cells, "slide": cells["wsi"]}) for line, cells in table.rows]
    return table.rows


def _placed(name: str, places: Sequence[Path], where: str) -> tuple[str, str]:
    if is_url(name):
        return name, last_part(name)
    given = Path(name)
    if given.is_absolute():
        return name, given.name
    folder, there = next(
        ((place, found) for place in places if (found := _there(place, name, where)) is not None), (places[-1], given)
    )
    relative = there.name if ".." in there.parts else there.as_posix()
    return str(folder / there), relative


def _there(folder: Path, name: str, where: str) -> Path | None:
    """Return the path below a folder that a name means, also where it is written a little differently; else None.

    Raises:
        InputError: it could mean several.
    """
    if (folder / name).exists():
        return Path(name)
    written = Path(name.replace("\\", "/"))
    beside = (folder / written).parent
    if not beside.is_dir():
        return None
    index = SlideNames(where)
    for entry in beside.iterdir():
        if suffix_of(entry.name) or entry.is_dir() or plain(entry.name) == plain(written.name):
            index.add(entry.name, (entry.name,))
    found = index.find(written.name)
    return None if found is None else written.parent / found
