"""Several labels: the loss has logistic regression's solution label by label, lists and columns of 0 and 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from linear_target import fitted_layer

from wsi_attention.errors import InputError
from wsi_attention.targets.find import target_of, wanted_of
from wsi_attention.targets.several_labels import SeveralLabels, WantedLabels
from wsi_attention.training.labels import read_labels, split_rows

COLUMNS = WantedLabels(("ER", "PR"), False)
TARGET = SeveralLabels(("ER", "PR"), COLUMNS)


def test_the_best_fit_is_that_of_one_logistic_regression_a_label() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    y = (x @ [[1, -1], [0.5, 2]] + rng.normal(size=(200, 2)) > 0).astype(float)
    layer = fitted_layer(TARGET, x, [tuple(row) for row in y.tolist()])
    for at in (0, 1):
        found = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x, y[:, at])
        assert layer.weight[at].tolist() == pytest.approx(found.coef_[0].tolist(), abs=1e-4)


def test_what_is_shown_and_judged() -> None:
    assert TARGET.shown(np.array([0.5, 0.49])).label == "ER"
    assert TARGET.shown(np.array([0.9, 0.6])).label == "ER+PR"
    assert TARGET.shown(np.array([0.1, 0.2])).label == "none"
    shares = torch.tensor([[0.9, 0.2], [0.4, 0.7], [0.3, 0.6]], dtype=torch.float64)
    judged = TARGET.judged(shares, [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
    found = {one.key: one.value for one in judged.figures}
    assert found == {
        "mean_auroc": 1.0,
        "auroc_of_er": 1.0,
        "auroc_of_pr": 1.0,
        "all_labels_right": pytest.approx(2 / 3),
    }
    assert target_of(TARGET.as_dict(), ["ER", "PR"]) == TARGET


def rows(folder: Path, header: str, *cells: str) -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *(f"s{i},{cell}" for i, cell in enumerate(cells))]))
    return path


def test_columns_and_lists_say_the_same(tmp_path: Path) -> None:
    columns = read_labels(rows(tmp_path, "slide,er,PR", "1,0", "yes,positive", "0,no", "-,+"), COLUMNS)
    listed = read_labels(rows(tmp_path, "slide,label", "ER", "PR + ER", "None", "PR"), WantedLabels())
    assert [row.label for row in columns] == [row.label for row in listed] == ["ER", "ER+PR", "none", "PR"]
    split = split_rows([*listed, *listed], 0.3, 0, "l", WantedLabels())
    assert split.classes == ("ER", "PR")
    assert [TARGET.known(row.label) for row in listed] == [(1, 0), (1, 1), (0, 0), (0, 1)]


@pytest.mark.parametrize(
    ("header", "cells", "wanted", "words"),
    [
        ("slide,ER,PR", ("1,0", "2,1"), COLUMNS, "line 3: ER is '2'; write 1 where the label is there, and 0 where"),
        ("slide,ER,PR", ("1,0", ",1"), COLUMNS, "line 3: ER is empty; write 1"),
        ("slide,ER", ("1", "0"), COLUMNS, "column 'PR' is missing; found: slide, ER"),
        ("slide,ER,PR", ("1,0", "0,0"), COLUMNS, "none of 2 slides have the label 'PR'; leave it out"),
        ("slide,ER,PR", ("1,0", "1,1"), COLUMNS, "all of 2 slides have the label 'ER'; leave it out"),
        ("slide,label", ("a++b", "a"), WantedLabels(), "line 2: label is 'a\\+\\+b'; write labels with"),
        ("slide,label", ("a+none", "a"), WantedLabels(), "both 'none' and a label"),
        ("slide,label", ("none", "none"), WantedLabels(), "no slide has a label"),
    ],
)
def test_bad_cells_are_told_in_one_sentence(
    tmp_path: Path, header: str, cells: tuple[str, ...], wanted: WantedLabels, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        split_rows(read_labels(rows(tmp_path, header, *cells), wanted), 0.2, 0, "l", wanted)


def test_names_that_cannot_be_told_apart() -> None:
    with pytest.raises(InputError, match="'A\\+B' cannot be a label"):
        wanted_of("labels", (), ("A+B",))
    with pytest.raises(InputError, match="label 'HER2' is none of the model's"):
        TARGET.known("ER+HER2")
