"""`report.html` of a results folder: made of its states and of the parts that the exporter `report` wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from wsi_attention.csv_table import read_table
from wsi_attention.errors import InputError, ResultsError
from wsi_attention.export.report import ReportExporter, read_part
from wsi_attention.export.report_page import Patient, Row, Section, page
from wsi_attention.export.table import highest_share
from wsi_attention.files import results_errors, temporary
from wsi_attention.inference.results.packed_states import PackedStates
from wsi_attention.inference.results.patients import PATIENTS
from wsi_attention.inference.results.state import CERTAINTY, CERTAINTY_DIGEST, State, read_states, results_in
from wsi_attention.json_values import parse
from wsi_attention.structures import shown_class, warning_in

PAGE = "report.html"
LIMIT = 30_000_000
"""Characters that the pictures of a page may take together; browsers open such a page within seconds."""
FRAME = 6_000
"""Characters of a section besides its pictures, about."""


def write_page(results: str | Path, names: Iterable[str] = (), path: Path | None = None, limit: int = LIMIT) -> Path:
    """Write the page and return its path.

    Args:
        results: the folder that classify wrote.
        names: slides as predictions.csv names them; all if empty.
        path: where to write; report.html in the results folder if None.
        limit: characters that all pictures may take. Beyond it slides are shown by thumbnails, and then by rows alone;
            the page says so.

    Raises:
        ResultsError: no results there, no such slide, or the page cannot be written.
    """
    folder = Path(results)
    states = PackedStates(_states(folder, set(names)))
    plan = _Plan(folder, states, limit)
    target = path or folder / PAGE
    with results_errors(target):
        with temporary(target).open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.writelines(_page(plan, folder, states))
        temporary(target).replace(target)
    return target


def _page(plan: _Plan, folder: Path, states: PackedStates) -> Iterator[str]:
    about = _about(folder, states)
    said = states[min(states)].run.settings.get(CERTAINTY) if states else None
    if isinstance(said, list) and said:
        return page(plan.rows, plan.sections(), about, plan.left_out, [str(one) for one in said])
    return page(plan.rows, plan.sections(), about, plan.left_out)


def part_of(folder: Path, name: str) -> Path:
    """Return where a slide's part of the page is."""
    return folder / ReportExporter.suffix.format(slide=name)


def without_part(results: str | Path, names: Iterable[str] = ()) -> list[str]:
    """Return names of slides that have a prediction but no part, as in results of earlier versions."""
    folder = Path(results)
    states = (state for state in _states(folder, set(names)) if state.record)
    return sorted(state.name for state in states if read_part(part_of(folder, state.name)) is None)


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
    """How much of each slide fits on the page."""

    def __init__(self, folder: Path, states: PackedStates, limit: int) -> None:
        self._folder = folder
        patients = _patients(folder, states)
        whose = {name: states[name].patient or name for name in states} if patients else {}
        names = sorted(states, key=lambda name: (whose.get(name, ""), name))
        sizes = [_sizes(folder, name) for name in names]
        self._full = sum(full for full, _ in sizes) <= limit
        kept: list[bool] = []
        for full, small in sizes:
            limit -= full if self._full else small
            kept.append(full > 0 and limit >= 0)
        self.rows = [
            replace(_row(n, states[name], shown), patient=patients.get(whose.get(name, "")))
            for n, (name, shown) in enumerate(zip(names, kept, strict=True), start=1)
        ]
        self._dropped = sum(full > 0 for full, _ in sizes) - sum(kept)

    def sections(self) -> Iterator[Section]:
        """Yield the slides that are shown, one in memory at a time."""
        for row in self.rows:
            part = read_part(part_of(self._folder, row.name)) if row.shown else None
            if part is not None:
                yield Section(row, part, self._full)

    @property
    def left_out(self) -> str:
        """What the page says of what it leaves out."""
        if self._full:
            return ""
        dropped = f", and {self._dropped} slides by their row in the table alone" if self._dropped else ""
        return (
            f"To keep this page small, slides are shown by a thumbnail, without tiles{dropped}. A page with all of"
            " some slides: wsi-attention report RESULTS --slide NAME -o some.html; each slide's tiles also stand in"
            " tiles/ and its large picture in heatmaps/."
        )


def _sizes(folder: Path, name: str) -> tuple[int, int]:
    """Return characters of a slide's section in full, and with a thumbnail; (0, 0) where it has no part."""
    part = read_part(part_of(folder, name))
    if part is None:
        return 0, 0
    layers = sum(len(layer["png"]) for layer in (part["attention"], part["unseen"]) if layer)
    tiles = sum(len(tile["jpeg"] or "") for tile in part["tiles"])
    return (
        FRAME + layers + len(part["overview"]) + tiles + 180 * len(part["boxes"]),
        FRAME + layers + len(part["thumbnail"]),
    )


def _row(number: int, state: State, shown: bool) -> Row:
    row = state.row
    label = row.get("label", "")
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
        shown,
        warning_in(row.get("notes", "")),
        _number(row.get("unread_mass")),
        counted=state.run.counted,
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
