"""The folder of an evaluation: evaluation.html, its plots as SVG, and every figure in evaluation.csv."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_attention.errors import ResultsError
from wsi_attention.evaluation.page import drawing, page
from wsi_attention.evaluation.plots import plots
from wsi_attention.evaluation.rows import COLUMNS, TEXTS, figure_rows
from wsi_attention.files import remove, write_text
from wsi_attention.plain_text import in_cell

if TYPE_CHECKING:
    from wsi_attention.evaluation.evaluation import Evaluation

PAGE = "evaluation.html"
TABLE = "evaluation.csv"
FOLDER = "evaluation"
"""Beside the predictions, where no other folder is given."""


def write_evaluation(found: Evaluation, folder: Path) -> Path:
    """Write the folder and return the page's path; files of the same names are replaced, each whole.

    Raises:
        ResultsError: there is a file of the folder's name, disk full, or writing is not permitted.
    """
    if folder.exists() and not folder.is_dir():
        raise ResultsError(f"{folder} is a file; the evaluation takes a folder")
    drawn = plots(found)
    names = {f"{plot.name}.svg" for plot in drawn}
    for path in [*folder.glob("reliability*.svg"), *folder.glob("decision_curve*.svg")]:
        if path.name not in names:  # of an earlier evaluation with other classes
            remove(path)
    for plot in drawn:
        write_text(folder / f"{plot.name}.svg", drawing(plot))
    write_text(folder / TABLE, _table(found))
    write_text(folder / PAGE, page(found, drawn))
    return folder / PAGE


def _table(found: Evaluation) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([*map(in_cell, row[:TEXTS]), *row[TEXTS:]] for row in figure_rows(found))
    return text.getvalue()
