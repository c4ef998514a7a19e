"""`report.html` of a results folder, made of its states and of the slides' own pages that `report` exported."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from wsi_attention.csv_table import read_table
from wsi_attention.errors import InputError, ResultsError
from wsi_attention.export.report import ReportExporter
from wsi_attention.export.report_page import NOT_CALIBRATED, Listing, page
from wsi_attention.export.report_part import is_whole, read_part
from wsi_attention.export.report_rows import Patient, Row
from wsi_attention.export.report_section import Section
from wsi_attention.export.table import highest_share, share_of
from wsi_attention.files import results_errors, temporary
from wsi_attention.inference.results.packed_states import PackedStates
from wsi_attention.inference.results.patients import PATIENTS
from wsi_attention.inference.results.state import CERTAINTY, CERTAINTY_DIGEST, State, read_states, results_in
from wsi_attention.json_values import parse
from wsi_attention.structures import shown_class, warning_in

PAGE = "report.html"
LIMIT = 30_000_000
"""Bytes of slides' own pages that one file may hold; browsers open such a page within seconds."""
FEW = 50
"""Slides that one file shows below its table; of more, each opens on demand from its own page."""
FURTHER = (("Evaluation", "evaluation/evaluation.html"),)
"""Pages that other commands write into a results folder."""


def write_page(
    results: str | Path, names: Iterable[str] = (), path: Path | None = None, limit: int = LIMIT, few: int = FEW
) -> Path:
    """Write the page and return its path.

    Args:
        results: the folder that classify wrote.
        names: slides as predictions.csv names them; all if empty.
        path: where to write; report.html in the results folder if None.
        limit: bytes that all slides' own pages may take for the page to be one file that shows them all.
        few: slides, likewise. Beyond either, the page is the table; it opens the slides' own pages in report/, and must
            be kept beside that folder.

    Raises:
        ResultsError: no results there, no such slide, or the page cannot be written.
    """
    folder = Path(results)
    states = PackedStates(_states(folder, set(names)))
    target = path or folder / PAGE
    plan = _Plan(folder, states, target.parent, limit, few)
    with results_errors(target):
        with temporary(target).open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.writelines(_page(plan, folder, states))
        temporary(target).replace(target)
    return target


def _page(plan: _Plan, folder: Path, states: PackedStates) -> Iterator[str]:
    said = states[min(states)].run.settings.get(CERTAINTY) if states else None
    certainty = [str(one) for one in said] if isinstance(said, list) and said else [NOT_CALIBRATED]
    return page(plan.rows, plan.sections(), _about(folder, states), certainty, plan.listing)


def link_further(results: str | Path) -> None:
    """Write report.html again where it does not lead to a page that another command has written since.

    Raises:
        ResultsError: it cannot be written.
    """
    page = Path(results) / PAGE
    if page.is_file():
        text = page.read_text(encoding="utf-8")
        there = [file for _, file in FURTHER if (page.parent / file).is_file()]
        if any(f'href="{file}"' not in text for file in there):
            write_page(results)


def part_of(folder: Path, name: str) -> Path:
    """Return where a slide's own page is."""
    return folder / ReportExporter.suffix.format(slide=name)


def without_part(results: str | Path, names: Iterable[str] = ()) -> list[str]:
    """Return names of slides that have a prediction but no page of their own, as in results of earlier versions."""
    folder = Path(results)
    states = (state for state in _states(folder, set(names)) if state.record)
    return sorted(state.name for state in states if not is_whole(part_of(folder, state.name)))


def _states(folder: Path, names: set[str]) -> Iterator[State]:
    """Yield the states of the named slides, or of all; one in memory at a time."""
    results_in(folder)
    missing = set(names)
    for state in read_states(folder):
        if not names or state.name in names:
            missing.discard(state.name)
            yield state
    if missing:
        raise ResultsError(
            f"{folder}: no slide named {', '.join(sorted(missing))}; predictions.csv lists those there are"
        )


class _Plan:
    """Which slides the page shows, where, and in which order."""

    def __init__(self, folder: Path, states: PackedStates, beside: Path, limit: int, few: int) -> None:
        self._folder, self._beside = folder, beside
        names = list(states)
        sizes = {name: part_of(folder, name).stat().st_size for name in names if is_whole(part_of(folder, name))}
        self.cohort = len(sizes) > few or sum(sizes.values()) > limit
        self._classes = _classes(states)
        rows = self._numbered(states, _patients(folder, states))
        self.rows = self._sorted(rows)

    @property
    def listing(self) -> Listing:
        """How the page is to be read."""
        links = [(name, _address(self._folder / file, self._beside)) for name, file in FURTHER]
        there = tuple(one for one, (_, file) in zip(links, FURTHER, strict=True) if (self._folder / file).is_file())
        return Listing(self._classes, self._chosen, self.cohort, self._kept, there)

    def sections(self) -> Iterator[Section]:
        """Yield the slides that are shown below the table, one in memory at a time."""
        for row in () if self.cohort else self.rows:
            part = read_part(part_of(self._folder, row.name)) if row.shown else None
            if part is not None:
                yield Section(row, part)

    @property
    def _chosen(self) -> str:
        """The class that many slides are sorted by: of two, the second, which is not the one at rest."""
        return self._classes[-1] if self.cohort and len(self._classes) == 2 else ""

    @property
    def _kept(self) -> str:
        shown = sum(row.shown for row in self.rows)
        pages = _address(self._folder / ReportExporter.suffix.partition("/")[0], self._beside)
        return f"{shown} slides have pages of their own in {pages}/: keep it where it is." if self.cohort else ""

    def _numbered(self, states: PackedStates, patients: Mapping[str, Patient]) -> list[Row]:
        whose = {name: states[name].patient or name for name in states} if patients else {}
        names = sorted(states, key=lambda name: (whose.get(name, ""), name))
        found = (_row(number, states[name], self._classes) for number, name in enumerate(names, start=1))
        return [replace(self._shown(row), patient=patients.get(whose.get(row.name, ""))) for row in found]

    def _shown(self, row: Row) -> Row:
        path = part_of(self._folder, row.name)
        if self.cohort:
            return replace(row, shown=True, page=_address(path, self._beside)) if is_whole(path) else row
        return replace(row, shown=read_part(path) is not None)

    def _sorted(self, rows: list[Row]) -> list[Row]:
        """Return the rows by the probability of the chosen class, highest first, rows without one last."""
        if not self._chosen:
            return rows
        place = self._classes.index(self._chosen)
        return sorted(rows, key=lambda row: (-row.shares[place] if row.shares else 1.0, row.number))


def _classes(states: PackedStates) -> tuple[str, ...]:
    """Return the classes whose probabilities all slides have; none where they are told by other numbers."""
    run = states[min(states)].run if states else None
    return () if run is None or run.columns else run.classes


def _address(path: Path, beside: Path) -> str:
    """Return where a file lies from the folder of a page, as a link says it."""
    try:
        found = os.path.relpath(path.resolve(), beside.resolve())
    except ValueError:  # Windows: on another drive
        return path.resolve().as_uri()
    return quote(os.fsencode(Path(found).as_posix()), safe="/")


def _row(number: int, state: State, classes: tuple[str, ...]) -> Row:
    row = state.row
    label = row.get("label", "")
    shares = [_number(row.get(share_of(name))) for name in classes]
    return Row(
        number,
        state.name,
        state.status,
        shown_class(label, state.run.purpose) if label else "",
        _number(highest_share(row)) if label else None,
        _number(row.get("spread")),
        None if _number(row.get("tiles_read")) is None else int(_number(row.get("tiles_read")) or 0),
        _number(row.get("area_read")),
        "; ".join(filter(None, (state.reason, row.get("notes")))),
        warning=warning_in(row.get("notes", "")),
        unread=_number(row.get("unread_mass")),
        counted=state.run.counted,
        shares=tuple(share for share in shares if share is not None) if None not in shares else (),
    )


def _patients(folder: Path, states: PackedStates) -> dict[str, Patient]:
    """Return the rows of patients.csv by patient; none where no slide's patient is known, or the file is not whole."""
    path = folder / PATIENTS
    if not states.of_patients or not path.is_file():
        return {}
    try:
        rows = [cells for _, cells in read_table(path).rows]
    except InputError:
        return {}
    purpose = states[min(states)].run.purpose
    found = (_patient(number, cells, purpose) for number, cells in enumerate(rows, start=1))
    return {patient.name: patient for patient in found}


def _patient(number: int, cells: Mapping[str, str], purpose: str) -> Patient:
    label = cells.get("label", "")
    return Patient(
        number,
        cells.get("patient", ""),
        cells.get("status", ""),
        shown_class(label, purpose) if label else "",
        _number(highest_share(cells)) if label else None,
        int(_number(cells.get("slides_used")) or 0),
        int(_number(cells.get("slides")) or 0),
        cells.get("deciding_slide", ""),
        cells.get("reason", ""),
    )


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _about(folder: Path, states: PackedStates) -> list[tuple[str, str]]:
    run = _last_run(folder)
    found: list[tuple[str, object]] = [("Finished", run.get("finished")), ("Last run", run.get("ended"))]
    if states:
        key = states[min(states)].run
        found += [("Model", key.model), ("Weights", f"sha256 {key.weights_sha256}")]
        found += [
            (name.replace("_", " ").capitalize(), _plain(value))
            for name, value in sorted(key.settings.items())
            if name not in (CERTAINTY, CERTAINTY_DIGEST)
        ]
    versions = run.get("versions")
    if isinstance(versions, dict):
        found.append(("Versions", ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))))
    return [(term, str(value)) for term, value in found if value not in (None, "")]


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _last_run(folder: Path) -> dict[str, object]:
    """Return what the newest run file says; nothing where there is none or it is damaged."""
    for path in sorted(folder.glob("run_*.json"), reverse=True):
        try:
            values = parse(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(values, dict):
            return values
    return {}
