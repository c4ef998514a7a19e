"""Numbers: the loss has the least squares' solution, values come back in their units, and cells that are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from linear_target import fitted_layer

from wsi_attention.errors import InputError
from wsi_attention.targets.find import target_of, wanted_of
from wsi_attention.targets.numbers import number_in
from wsi_attention.targets.regression import Numbers, WantedNumbers
from wsi_attention.training.labels import read_labels, split_rows

WANTED = WantedNumbers(("age", "size mm"))


def test_the_best_fit_is_that_of_least_squares_in_the_columns_own_units() -> None:
    from sklearn.linear_model import LinearRegression

    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3))
    y = x @ rng.normal(size=(3, 2)) * [10, 0.1] + [60, 3] + rng.normal(size=(80, 2)) * [2, 0.05]
    target, _ = WANTED.fitted([" ".join(map(repr, row)) for row in y.tolist()], [], "l")
    layer = fitted_layer(target, x, [tuple(row) for row in y.tolist()])
    found = target.read(layer(torch.from_numpy(x))).detach().numpy()
    assert found == pytest.approx(LinearRegression().fit(x, y).predict(x), rel=1e-5)
    assert target.judged(torch.from_numpy(y), [tuple(row) for row in y.tolist()]).figures[0].value == pytest.approx(1)


def test_what_is_shown() -> None:
    target = Numbers(("age", "size mm"), (60.0, 3.0), (10.0, 0.5), WANTED)
    numbers = target.read(torch.tensor([1.0, -1.0], dtype=torch.float64))
    shown = target.shown(numbers.numpy())
    assert shown.values == (("value_age", pytest.approx(70.0)), ("value_size mm", pytest.approx(2.5)))
    assert shown.label == "age 70, size mm 2.5"
    assert target.headline(numbers).tolist() == [70.0]
    assert Numbers(("age",), (60.0,), (10.0,), WantedNumbers(("age",))).shown(np.array([53.21987])).label == "53.22"
    assert target_of(target.as_dict(), ["age", "size mm"]) == target
    with pytest.raises(InputError, match="'target' is damaged"):
        target_of(target.as_dict() | {"deviation": [1.0, 0.0]}, ["age", "size mm"])


def test_rows_are_split_by_quarters(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("slide,Age\n" + "\n".join(f's{i},"{i},5"' for i in range(40)))
    wanted = WantedNumbers(("age",))
    split = split_rows(read_labels(path, wanted), 0.2, 0, "l", wanted)
    held = sorted(float(row.label) for row in split.validation)
    assert [sum(low <= value < low + 10 for value in held) for low in (0, 10, 20, 30)] == [2, 2, 2, 2]
    assert split.target is not None
    assert split.classes == ("age",)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (("3,1", "x,1"), "line 3: age is 'x', which is no number; correct it, or leave the slide out"),
        (("3,1", "nan,1"), "line 3: age is 'nan', which is no number"),
        (("3,1", ",1"), "line 3: age is empty"),
        (("3,1", "3,2"), "all 2 slides have age 3; there is nothing to learn"),
        (("3,2", "4,2"), "all 2 slides have size mm 2; there is nothing to learn"),
    ],
)
def test_bad_cells_are_told_in_one_sentence(tmp_path: Path, rows: tuple[str, ...], words: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("slide,age,size mm\n" + "\n".join(f"s{i},{row}" for i, row in enumerate(rows)))
    with pytest.raises(InputError, match=words):
        split_rows(read_labels(path, WANTED), 0.2, 0, "l", WANTED)
    with pytest.raises(InputError, match="needs columns"):
        wanted_of("regression")


@pytest.mark.parametrize("cell", ["1,234", "-12,500", " 999,999 "])
def test_a_comma_that_may_part_thousands_is_refused(cell: str) -> None:
    with pytest.raises(InputError, match=r"line 2: age is .*, which may be -?\d+\.\d{3} or -?\d+; write it without"):
        number_in(cell, "age", "line 2")


def test_a_comma_that_can_only_be_a_point_is_one() -> None:
    cells = {"1,5": 1.5, "0,125": 0.125, "1234,567": 1234.567, "1,2345": 1.2345}
    assert {cell: number_in(cell, "age", "line 2") for cell in cells} == cells


def test_a_column_with_decimal_commas_elsewhere_is_read_so(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text('slide,age\na,"1,234"\nb,"2,5"\n')
    wanted = WantedNumbers(("age",))
    assert [row.label for row in read_labels(tmp_path / "labels.csv", wanted)] == ["1.234", "2.5"]
    (tmp_path / "labels.csv").write_text('slide,age\na,"1,234"\nb,25\n')
    with pytest.raises(InputError, match="line 2: age is '1,234', which may be"):
        read_labels(tmp_path / "labels.csv", wanted)
