"""What people say to the labels: one CSV a person in `reviews/` of the results folder, and no other file.

A person's name becomes the file's name. A row is a slide: agree or disagree, a note, what it was said to (label, model,
weights, version), the place that was looked at, and when. Rows of slides that have gone stay.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from wsi_attention.csv_table import read_table
from wsi_attention.errors import InputError, ResultsError
from wsi_attention.files import KEPT, temporary, write_text
from wsi_attention.plain_text import in_cell, visible
from wsi_attention.safe_names import safe_name

FOLDER = "reviews"
VERDICTS = ("agree", "disagree", "")
"""What can be said to a label; nothing with a note alone."""
COLUMNS = ("slide", "verdict", "note", "label", "model", "weights_sha256", "version", "x", "y", "zoom", "reviewed")
"""x and y are the middle of the view in level-0 pixels, zoom is screen pixels per level-0 pixel; reviewed is UTC."""
LONGEST_NOTE = 4000
"""Characters of a note."""
MOST_ROWS_BYTES = 50_000_000
"""Bytes of a CSV that is read; a note of ten lines on each of 50,000 slides has fewer."""

_NAME = re.compile(r"[^\W_](?:[\w .'-]{0,58}[\w'-])?")


@dataclass(frozen=True)
class Review:
    """What a person says to the label of a slide.

    Attributes:
        verdict: one of `VERDICTS`.
        note: any text, of several lines perhaps.
        place: x, y, zoom of what was looked at.
    """

    verdict: str
    note: str
    place: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise InputError(f"verdict {self.verdict[:40]!r}: must be agree, disagree, or empty")
        if len(self.note) > LONGEST_NOTE:
            raise InputError(f"the note has {len(self.note)} characters; shorten it to {LONGEST_NOTE}")

    def row(self, slide: str, about: Mapping[str, str]) -> dict[str, str]:
        """Return the cells of a slide; `about` holds label, model, weights_sha256 and version."""
        x, y, zoom = self.place
        lines = self.note.replace("\r\n", "\n").replace("\r", "\n").strip().split("\n")
        return {
            "slide": slide,
            "verdict": self.verdict,
            "note": "\n".join(map(visible, lines)),
            **{name: about[name] for name in ("label", "model", "weights_sha256", "version")},
            "x": f"{x:.0f}",
            "y": f"{y:.0f}",
            "zoom": f"{zoom:.6g}",
            "reviewed": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


class Reviews:
    """The CSVs of a results folder; thread-safe. Each is read anew, so that it may be edited elsewhere meanwhile."""

    def __init__(self, results: Path) -> None:
        self._results = results
        self._lock = Lock()

    def people(self) -> list[str]:
        """Return the names of those whose CSV is there."""
        folder = self._results / FOLDER
        if not folder.is_dir() or not self._is_ours(folder):
            return []
        names = [path.stem for path in folder.glob("*.csv") if path.is_file() and self._is_ours(path)]
        return sorted(name for name in names if _NAME.fullmatch(name))

    def rows(self, person: str) -> dict[str, dict[str, str]]:
        """Return slide -> cells of what a person has said; nothing where there is no such CSV.

        Raises:
            InputError: it is no name, or the CSV is damaged or not ours.
        """
        path = self._path(person)
        if not path.exists():
            return {}
        if path.stat().st_size > MOST_ROWS_BYTES:
            raise InputError(f"{path}: has more than {MOST_ROWS_BYTES} bytes; move it away to begin a new one")
        table = read_table(path)
        if set(table.columns) != set(COLUMNS):
            other = sorted(set(table.columns) ^ set(COLUMNS))
            raise InputError(f"{path}: column {other[0]!r} is one too many or missing; move the file away")
        return {cells["slide"]: dict(cells) for _, cells in table.rows}

    def save(self, person: str, slide: str, review: Review, about: Mapping[str, str]) -> dict[str, str]:
        """Write a person's CSV whole with what they say to a slide; empty verdict and note take the slide's row away.

        Args:
            person: whose it is.
            slide: its name in the results folder.
            review: what is said.
            about: label, model, weights_sha256 and version of the result.

        Returns:
            The row that is there now.

        Raises:
            InputError: it is no name, the CSV is damaged or not ours, or it would not lie in the results folder.
            ResultsError: the disk is full, or writing is not permitted.
        """
        row = review.row(slide, about)
        with self._lock:
            path, rows = self._path(person), self.rows(person)
            if review.verdict or row["note"]:
                rows[slide] = row
            else:
                rows.pop(slide, None)
            self._write(path, rows)
        return row

    def _write(self, path: Path, rows: Mapping[str, Mapping[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for slide in sorted(rows):
            writer.writerow({name: in_cell(rows[slide][name]) for name in COLUMNS})
        try:
            temporary(path).unlink(missing_ok=True)  # a link left there by others would be written through
            write_text(path, text.getvalue())
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise InputError(f"{path}: is not a file in a folder; move away what has its place") from error
        except ResultsError as error:
            raise ResultsError(f"{str(error).removesuffix(KEPT)}what it held before is still there") from error

    def _path(self, person: str) -> Path:
        """Return the CSV of a person, whom another spelling of upper and lower case does not make another person."""
        name = unicodedata.normalize("NFC", person.strip())
        if not _NAME.fullmatch(name) or safe_name(name) != name:
            raise InputError(
                f"{visible(person)[:60]!r} cannot be the name of a file; give a name of 1 to 60 letters, digits,"
                " spaces, dots and hyphens"
            )
        known = {one.casefold(): one for one in self.people()}
        path = self._results / FOLDER / f"{known.get(name.casefold(), name)}.csv"
        if not self._is_ours(path):
            raise InputError(f"{path}: leads out of the results folder; move the link away")
        return path

    def _is_ours(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self._results.resolve())
