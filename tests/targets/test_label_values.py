"""What is no label never becomes a class."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_attention.errors import InputError
from wsi_attention.targets.label_values import check_classes
from wsi_attention.training.labels import read_labels

MISSING = ["NaN", "nan", "NA", "N/A", "None", "null", "NULL", "<NA>", "#N/A", "n.a.", "?", "-", "missing", "Unknown"]


@pytest.mark.parametrize("label", [*MISSING, "not available", "not_available", "NaT", "#DIV/0!", "ＮＡ"])
def test_a_missing_value_is_no_label(tmp_path: Path, label: str) -> None:
    (tmp_path / "labels.csv").write_text(f"slide,label\na,normal\nb,{label}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"labels.csv, line 3: .* is no label; leave out slides without one"):
        read_labels(tmp_path / "labels.csv")


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    rows = ["s1,Tumor", "s2,Tumor", "s3,tumor", "s4,tumor", "s5,NaN", "s6,NaN", "s7,normal", "s8,normal"]
    (tmp_path / "labels.csv").write_text("\n".join(["slide,label", *rows]))
    with pytest.raises(
        InputError, match=r"line 6: 'NaN' is no label \(2 such rows\).*'Tumor' .*'tumor' .*in case only"
    ):
        read_labels(tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["Tumor", "tumor", "normal"], "labels 'Tumor' .* and 'tumor' .* differ in case only"),
        (["no tumor", "no_tumor"], "'no tumor' .* and 'no_tumor' .* differ in spelling only"),
        (["grade 3", "grade  3"], "differ in spelling only"),
        (["tu\u200bmor", "tumor"], "differ in spelling only"),
        (["straße", "STRASSE"], "differ in case only"),
        (["1", "1.0", "0"], "'1.0' is a number with decimals"),
        (["1.0", "0.0"], "is a number with decimals; classes are names such as 'normal' or whole numbers"),
        (["3,5", "2,1"], "is a number with decimals"),
        (["1e3", "0"], "is a number with decimals"),
        (["1", "01", "0"], "labels '01' and '1' are the same number"),
        (["-1", "0", "1"], "is label '-1' a code for a missing value"),
        ([str(i) for i in range(21)], "21 different numbers as labels, from 0 to 20"),
    ],
)
def test_no_classes_from_slips_and_measurements(labels: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_classes(labels * 3, "labels.csv")


def test_identifiers_are_no_classes() -> None:
    with pytest.raises(InputError, match="6 different labels on 6 slides, 6 of them once; is the column an identifier"):
        check_classes([f"case {letter}" for letter in "abcdef"], "labels.csv")


@pytest.mark.parametrize(
    "labels",
    [["0", "1"], ["-1", "1"], ["1", "2", "3", "4", "5"], ["01", "02"], ["normal", "Gleason 3+3", "Gleason 3+4"]],
)
def test_classes_that_are_meant(labels: list[str]) -> None:
    check_classes(labels * 3, "labels.csv")


def test_marks_that_differ_are_other_classes() -> None:
    check_classes(["HER2-", "HER2+", "HER2", "T1a", "T1b"] * 2, "labels.csv")
