"""The slides CSV: slide[,mpp][,mask], one row a slide, paths relative to the CSV or to the input folder.

TRIDENT's list of slides, `wsi[,mpp]`, is read as well.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from wsi_attention.errors import InputError
from wsi_attention.inference.discovery import Found, SlideFile, find_slides
from wsi_attention.slide.urls import is_url, last_part


def gather_slides(
    inputs: Sequence[str | Path], slides_csv: str | Path | None = None, outside: str | Path | None = None
) -> Found:
    """The slides a call is about: those of a slides CSV, or all that `find_slides` finds in the inputs.

    Args:
        inputs: files, folders, URLs, slides CSVs; with `slides_csv` the folders its paths are relative to.
        slides_csv: lists the slides, with an mpp or a mask of their own where needed.
        outside: a folder to stay out of.

    Raises:
        InputError: an input does not exist, a CSV is wrong, or there is no slide at all.
    """
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
        found += Found(tuple(slide for slide in more.slides if slide.key not in listed), more.others)
    return found


def read_slides_csv(path: str | Path, folders: Sequence[str | Path] = ()) -> Found:
    """The slides a CSV lists, in its order. Other columns are allowed and not looked at.

    Args:
        path: UTF-8, comma or semicolon between columns, with a header.
        folders: where slides and masks lie if not beside the CSV; tried first.

    Raises:
        InputError: the file cannot be read, has no column `slide` (or `wsi`), no rows, a slide twice, or an mpp that
            is no number.
    """
    rows = _rows(Path(path))
    places = [*map(Path, folders), Path(path).parent]
    slides: dict[str, SlideFile] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        if not row.get("slide"):
            raise InputError(f"{where}: the column slide is empty")
        mask = row.get("mask") or None
        slide = SlideFile(
            *_placed(row["slide"], places), mpp=_mpp(row, where), mask=_placed(mask, places)[0] if mask else None
        )
        if slide.key in slides:
            raise InputError(f"{where}: {row['slide']} is listed twice; keep one row a slide")
        slides[slide.key] = slide
    if not slides:
        raise InputError(f"{path}: no rows; one row a slide is needed below the header")
    return Found(tuple(slides.values()))


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    (_, header), *rows = _lines(path) or [(0, [])]
    names = [name.strip().lower() for name in header]
    if "slide" not in names:
        names = ["slide" if name == "wsi" else name for name in names]
    if "slide" not in names:
        raise InputError(f"{path}: no column slide; found: {', '.join(names) or 'nothing'}; wanted: slide[,mpp][,mask]")
    return [
        (line, dict(zip(names, (cell.strip() for cell in row), strict=False)))
        for line, row in rows
        if any(cell.strip() for cell in row)
    ]


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, cells) of a file with comma or semicolon between columns, whichever its header has more of."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    header = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text), delimiter=";" if header.count(";") > header.count(",") else ",")
    try:
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: not CSV ({error}); is a quotation mark left open?"
        ) from error


def _placed(name: str, places: Sequence[Path]) -> tuple[str, str]:
    if is_url(name):
        return name, last_part(name)
    given = Path(name)
    if given.is_absolute():
        return name, given.name
    folder = next((place for place in places if (place / given).exists()), places[-1])
    relative = given.name if ".." in given.parts else given.as_posix()
    return str(folder / given), relative


def _mpp(row: dict[str, str], where: str) -> float | None:
    text = row.get("mpp", "").replace(",", ".")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(f"{where}: mpp {row['mpp']!r} is not a positive number of µm per pixel")
    return value
