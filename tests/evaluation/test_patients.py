"""A table of patients is judged by patient."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from wsi_attention.cli.evaluation_lines import lines
from wsi_attention.errors import InputError
from wsi_attention.evaluation.evaluation import evaluate
from wsi_attention.statistics.curves import area_under_roc


def patients_csv(one, folder: Path) -> tuple[Path, np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
    """The mean of each patient's slides, and every patient's share and truth."""
    with one.labels.open(newline="") as file:
        owners = [row["patient"] for row in csv.DictReader(file)]
    names = sorted(set(owners))
    own = np.array(owners)
    shares = np.array([one.shares[own == name].mean(0) for name in names])
    with (folder / "patients.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "status", "label", "prob_normal", "prob_tumour", "set", "slides_used", "slides"])
        writer.writerows(
            [name, "partial", "", *(f"{share:.9f}" for share in row), "", 1, 1]
            for name, row in zip(names, shares, strict=True)
        )
    return folder / "patients.csv", shares, np.array([one.truth[own == name][0] for name in names])


def test_patients_are_counted_once(study) -> None:  # type: ignore[no-untyped-def]
    one = study()
    table, shares, truth = patients_csv(one, one.first)
    found = evaluate(table, one.labels, by="site", against=table, sensitivity=0.9)
    assert (found.unit, found.scores.n, found.scores.patients, found.unpredicted) == ("patients", 30, 30, ())
    assert found.scores.auroc == pytest.approx(area_under_roc(shares[:, 1].round(9), truth == 1), abs=1e-12)
    assert sum(group.scores.n for group in found.groups) == 30
    assert found.comparison is not None
    assert found.comparison.slides == 30
    text = found.write(one.first / "out").read_text(encoding="utf-8")
    assert "n = 30 patients" in text
    assert "slides of" not in text
    shown = lines(found)
    assert shown[0] == "patients   30 (labelled without prediction: 0, predicted without label: 0)"
    assert "patients right" in "\n".join(shown)


def test_labels_that_do_not_fit_patients(study) -> None:  # type: ignore[no-untyped-def]
    one = study()
    table, _, _ = patients_csv(one, one.first)
    with pytest.raises(
        InputError, match=r"is of patients, .* of slides; compare like with like|of slides, .* of patients"
    ):
        evaluate(table, one.labels, against=one.second)
    with pytest.raises(InputError, match="lesions are outlined on slides"):
        evaluate(table, one.labels, one.first)
    header, *rows = one.labels.read_text().splitlines()
    again = next(i for i, row in enumerate(rows[1:], 1) if row.split(",")[2] == rows[i - 1].split(",")[2])
    for column, value, message in ((1, "normal", "are labelled"), (3, "train", "is in the parts")):
        cells = rows[again].split(",")
        cells[column] = value if cells[column] != value else "tumour"
        one.labels.write_text("\n".join([header, *rows[:again], ",".join(cells), *rows[again + 1 :]]))
        with pytest.raises(InputError, match=f"patient p.* {message}"):
            evaluate(table, one.labels)
    one.labels.write_text("\n".join([header.replace("patient", "owner"), *rows]))
    with pytest.raises(InputError, match="the predictions are of patients, and no column patient"):
        evaluate(table, one.labels)
