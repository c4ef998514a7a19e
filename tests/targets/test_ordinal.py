"""Grades: probabilities in order, the likelihood of the sequential model, and what labels may say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from linear_target import fitted_layer

from wsi_attention.errors import InputError
from wsi_attention.targets.find import target_of, wanted_of
from wsi_attention.targets.one_label import LABEL, OneLabel
from wsi_attention.targets.ordinal import Grades, WantedGrade
from wsi_attention.training.labels import read_labels, split_rows

ORDER = ("G1", "G2", "G3")
GRADES = Grades(ORDER, WantedGrade(ORDER, ("grade",)))


def test_probabilities_sum_to_one_and_to_be_beyond_falls_whatever_the_logits_are() -> None:
    logits = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 30
    shares = Grades(("a", "b", "c", "d"), WantedGrade(("a", "b", "c", "d"))).read(logits)
    assert torch.allclose(shares.sum(-1), torch.ones(200, dtype=torch.float64), atol=1e-12)
    beyond = 1 - shares.cumsum(-1)
    assert (beyond.diff(dim=-1) <= 1e-12).all()
    assert (shares >= 0).all()


def test_shares_by_hand() -> None:
    """Beyond G1 with 0.8, and beyond G2 where beyond G1 with 0.25."""
    logits = torch.tensor([[0.8, 0.25]], dtype=torch.float64).logit()
    assert GRADES.read(logits)[0].tolist() == pytest.approx([0.2, 0.6, 0.2])
    assert float(GRADES.loss(logits, torch.tensor([1]))) == pytest.approx(-np.log(0.6))
    shown = GRADES.shown(GRADES.read(logits)[0].numpy())
    assert shown.values == (("expected_grade", pytest.approx(2.0)),)


def test_the_maximum_likelihood_is_that_of_logistic_regressions_on_those_who_came_so_far() -> None:
    """Fitted by our loss, the weights of each step equal scikit-learn's on the slides at or beyond its grade."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    grade = np.clip(np.round(x[:, 0] + rng.normal(size=300) + 1), 0, 2).astype(int)
    layer = fitted_layer(GRADES, x, [(float(one),) for one in grade])
    for step in (0, 1):
        there = grade >= step
        found = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x[there], grade[there] > step)
        assert layer.weight[step].tolist() == pytest.approx(found.coef_[0].tolist(), abs=1e-4)
        assert layer.bias[step].item() == pytest.approx(found.intercept_.item(), abs=1e-4)


def test_figures_of_known_answers() -> None:
    shares = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3]], dtype=torch.float64)
    judged = GRADES.judged(shares, [(0.0,), (1.0,), (2.0,)], ["p", "q", "q"])
    assert [one.name for one in judged.figures] == ["quadratic kappa", "mean error in grades", "accuracy"]
    assert judged.figures[1].value == pytest.approx(1 / 3)
    assert judged.loss == pytest.approx(-np.log([0.7, 0.5, 0.3]).mean())
    assert (judged.n, judged.patients) == (3, 2)


def test_config_there_and_back() -> None:
    assert target_of(GRADES.as_dict(), list(ORDER)) == GRADES
    assert target_of(None, ["a", "b"]) == OneLabel(("a", "b"))
    with pytest.raises(InputError, match="does not know; it knows label, ordinal, "):
        target_of({"kind": "else"}, ["a"])
    with pytest.raises(InputError, match="'target' is damaged"):
        target_of({"kind": "ordinal", "order": "G1"}, ["a"])


def labels(folder: Path, grades: str, header: str = "slide,Grade") -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *(f"s{i},{grade}" for i, grade in enumerate(grades.split()))]) + "\n")
    return path


def test_labels_are_read_in_one_spelling_and_split_by_grade(tmp_path: Path) -> None:
    rows = read_labels(labels(tmp_path, "G1 g2 G3 " * 5), GRADES.wanted)
    assert {row.label for row in rows} == set(ORDER)
    split = split_rows(rows, 0.2, 0, "labels.csv", GRADES.wanted)
    assert split.classes == ORDER
    assert split.target == GRADES
    assert sorted(row.label for row in split.validation) == sorted(ORDER)


@pytest.mark.parametrize(
    ("grades", "header", "words"),
    [
        ("G1 G4", "slide,grade", r"line 3: grade is 'G4', which is no grade of the recipe's order \(G1, G2, G3\)"),
        ("G1 G2", "slide,label", "column 'grade' is missing; found: slide, label"),
        ("G1 G1", "slide,grade", "needs two classes or more; found only 'G1'"),
        ("G1 G1 G2", "slide,grade", "class 'G2' has one slide"),
        ("G1 G1 G2 G2", "slide,grade", "no training slide has the grade 'G3' of the recipe's order"),
        ("G1 G1", "slide,grade,Grade", "column 'grade' stands there twice"),
    ],
)
def test_bad_grades_are_told_in_one_sentence(tmp_path: Path, grades: str, header: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        split_rows(read_labels(labels(tmp_path, grades, header), GRADES.wanted), 0.2, 0, "l", GRADES.wanted)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "ordinal"}, "needs order"),
        ({"kind": "ordinal", "order": ["a", "A "]}, "order must be different names"),
        ({"kind": "ordinal", "order": ["a", "b"], "columns": ["x", "y"]}, "needs 1 column, such as label; columns na"),
        ({"kind": "ordinal", "order": ["a", "b"], "columns": ["Patient"]}, "'Patient', which says something else"),
        ({"kind": "label", "order": ["a", "b"]}, 'order is for target = "ordinal"'),
        ({"kind": "label", "columns": ["x"]}, "reads the column label"),
    ],
)
def test_recipes_that_do_not_go_together(given: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        wanted_of(**given)  # type: ignore[arg-type]
    assert wanted_of("label") is LABEL
