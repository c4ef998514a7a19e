"""Thresholds: given, or chosen on validation slides alone and judged by the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsi_attention.errors import InputError
from wsi_attention.evaluation.evaluation import evaluate
from wsi_attention.evaluation.operating import read_wanted


def test_a_given_threshold(study) -> None:  # type: ignore[no-untyped-def]
    from sklearn.metrics import confusion_matrix

    one = study()
    (point,) = evaluate(one.first, one.labels, thresholds=0.4).points
    called = one.shares[:, 1] >= 0.4
    at = point.found
    assert (point.name, point.origin, point.slides) == ("tumour", "given", len(one.names))
    table = confusion_matrix(one.truth == 1, called).ravel().tolist()
    assert table == [at.true_negatives, at.false_positives, at.false_negatives, at.true_positives]
    assert at.sensitivity.interval[0] < at.sensitivity.value < at.sensitivity.interval[1]


@pytest.mark.parametrize("split", [None, "test", "all"])
def test_validation_slides_choose_and_the_others_judge(study, split: str | None) -> None:  # type: ignore[no-untyped-def]
    one = study()
    (point,) = evaluate(one.first, one.labels, split=split, sensitivity=0.9).points
    val = one.parts == "val"
    shares, truth = one.shares[:, 1], one.truth == 1
    threshold = point.found.threshold
    assert (shares[val & truth] >= threshold).mean() >= 0.9
    assert (shares[val & truth] > threshold).mean() < 0.9
    assert point.slides == (~val).sum()
    assert point.found.sensitivity.hits == (shares[~val & truth] >= threshold).sum()
    assert f"sensitivity 0.9 on {val.sum()} validation rows of " in point.origin
    assert not point.note


def test_other_slides_of_patients_that_chose_the_threshold_do_not_judge_it(study) -> None:  # type: ignore[no-untyped-def]
    one = study()
    rows = [line.split(",") for line in one.labels.read_text().splitlines()]
    chose = next(row for row in rows if row[3] == "val")[2]
    judge = next(row for row in rows if row[3] == "test")
    judge[2] = chose
    one.labels.write_text("".join(",".join(row) + "\n" for row in rows))
    (point,) = evaluate(one.first, one.labels, split="all", sensitivity=0.9).points
    assert point.slides == (one.parts != "val").sum() - 1


def test_slides_that_chose_the_threshold_and_judge_it_are_told(study) -> None:  # type: ignore[no-untyped-def]
    one = study()
    (point,) = evaluate(one.first, one.labels, split="val", sensitivity=0.9).points
    assert point.slides == (one.parts == "val").sum()
    assert "too kind" in point.note


def test_no_threshold_is_chosen_on_the_slides_that_judge(study) -> None:  # type: ignore[no-untyped-def]
    one = study(parts=("test",))
    with pytest.raises(
        InputError, match=r"never on those that judge it, and its column split has \d+ test rows and no"
    ):
        evaluate(one.first, one.labels, sensitivity=0.95)
    text = one.labels.read_text().replace("split", "cohort")
    one.labels.write_text(text)
    with pytest.raises(InputError, match="it has no rows with split = val; mark validation slides there"):
        evaluate(one.first, one.labels, sensitivity=0.95)


def test_a_class_that_no_validation_slide_has(study) -> None:  # type: ignore[no-untyped-def]
    one = study()
    lines = [line for line in one.labels.read_text().splitlines() if not (",tumour," in line and ",val," in line)]
    one.labels.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"sensitivity of tumour on \d+ validation rows.*: no slide is of the class"):
        evaluate(one.first, one.labels, sensitivity=0.95)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"thresholds": 0.4}, "threshold 0.4: of which class"),
        ({"thresholds": {"d": 0.4}}, "threshold of 'd': no class of the predictions; possible: a, b, c"),
        ({"thresholds": {"b": 1.4}}, "threshold of b is 1.4; a probability lies in 0 to 1"),
        ({"thresholds": {"b": float("nan")}}, "threshold of b is nan"),
        ({"sensitivity": {"b": 95.0}}, "a sensitivity is above 0 and at most 1, got 95"),
        ({"sensitivity": 0.9}, "sensitivity 0.9: of which class"),
    ],
)
def test_values_that_fit_no_class(study, given: dict[str, object], message: str) -> None:  # type: ignore[no-untyped-def]
    one = study(("a", "b", "c"))
    with pytest.raises(InputError, match=message):
        evaluate(one.first, one.labels, **given)


def test_one_class_of_several(study) -> None:  # type: ignore[no-untyped-def]
    one = study(("a", "b", "c"))
    points = evaluate(one.first, one.labels, thresholds={"b": 0.3, "c": 0.5}, sensitivity={"b": 0.8}).points
    assert [point.name for point in points] == ["b", "c", "b"]
    assert points[0].found.true_positives == int(((one.shares[:, 1] >= 0.3) & (one.truth == 1)).sum())
    assert not evaluate(one.first, one.labels).points


def test_the_finding_is_called_where_it_stands_first(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("slide,prob_lesion,prob_normal\nx,0.9,0.1\ny,0.2,0.8\nz,0.45,0.55\n")
    (tmp_path / "labels.csv").write_text("slide,label\nx,lesion\ny,normal\nz,lesion\n")
    (point,) = evaluate(tmp_path, tmp_path / "labels.csv", thresholds=0.4).points
    assert (point.name, point.found.sensitivity.hits) == ("lesion", 2)
    (usual,) = evaluate(tmp_path, tmp_path / "labels.csv").points
    assert (usual.found.threshold, usual.found.sensitivity.hits) == (0.5, 1)


def test_what_the_command_line_says() -> None:
    assert read_wanted((), "--threshold") is None
    assert read_wanted(("0.4",), "--threshold") == 0.4
    assert read_wanted(("b=0.4", "x=y=0.1"), "--threshold") == {"b": 0.4, "x=y": 0.1}
    for texts in (("b=",), ("high",), ("0.4", "0.5"), ("b=0.4", "b=0.5"), ("b=0.4", "0.5")):
        with pytest.raises(InputError, match="--threshold"):
            read_wanted(texts, "--threshold")
    assert np.isnan(read_wanted(("nan",), "--threshold"))
