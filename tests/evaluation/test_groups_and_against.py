"""Groups by a column of the labels, and two models on the same slides."""

from __future__ import annotations

import numpy as np
import pytest

from wsi_attention.errors import InputError
from wsi_attention.evaluation.evaluation import evaluate
from wsi_attention.evaluation.groups import group_values
from wsi_attention.statistics.curves import area_under_roc


def test_groups_are_the_slides_of_each_value(study) -> None:  # type: ignore[no-untyped-def]
    one = study()
    found = evaluate(one.first, one.labels, by=["site", "split"])
    sites = [group for group in found.groups if group.column == "site"]
    assert [group.value for group in sites] == ["(empty)", "Graz", "Leeds"]
    assert sum(group.scores.n for group in sites) == found.scores.n
    parts = [group for group in found.groups if group.column == "split"]
    for group in parts:
        own = one.parts == group.value
        assert group.scores.n == own.sum()
        assert group.scores.auroc == pytest.approx(area_under_roc(one.shares[own, 1], one.truth[own] == 1), abs=1e-12)
    assert evaluate(one.first, one.labels, by="site").groups == tuple(sites)


def test_columns_that_make_no_groups(study) -> None:  # type: ignore[no-untyped-def]
    one = study(patients=60)
    with pytest.raises(InputError, match=r"labels.csv: column 'scanner' is missing; found: .*Site"):
        evaluate(one.first, one.labels, by="scanner")
    doubled = one.labels.with_name("doubled.csv")
    doubled.write_text(one.labels.read_text().replace("Slide,label", "Site,label").replace("split,Site", "Slide,Site"))
    with pytest.raises(InputError, match="column 'Site' stands there twice"):
        group_values(doubled, ["Site"])
    with pytest.raises(InputError, match=r"column 'patient' has 60 values, 50 at most"):
        evaluate(one.first, one.labels, by="patient")


def test_the_better_model_is_told(study) -> None:  # type: ignore[no-untyped-def]
    one = study(patients=60)
    found = evaluate(one.first, one.labels, against=one.second)
    other = found.comparison
    assert other is not None
    assert (other.other, other.slides, other.patients, other.left_out) == ("second", len(one.names), 60, ())
    assert other.auroc.first == pytest.approx(found.scores.auroc, abs=1e-12)
    assert other.auroc.second == pytest.approx(evaluate(one.second, one.labels).scores.auroc, abs=1e-12)
    assert 0 < other.auroc.interval[0] < other.auroc.value < other.auroc.interval[1]
    assert other.auroc.p < 0.05
    assert other.bootstrap_interval == pytest.approx(other.auroc.interval, abs=0.06)
    turned = evaluate(one.second, one.labels, against=one.first / "predictions.csv").comparison
    assert turned is not None
    assert turned.auroc.value == pytest.approx(-other.auroc.value, abs=1e-12)
    same = evaluate(one.first, one.labels, against=one.first).comparison
    assert same is not None
    assert (same.auroc.value, same.auroc.p) == (0.0, 1.0)


def test_only_slides_that_both_have_are_compared(study) -> None:  # type: ignore[no-untyped-def]
    one = study()
    table = one.second / "predictions.csv"
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *rows[:-3]]))
    other = evaluate(one.first, one.labels, against=table).comparison
    assert other is not None
    assert (other.slides, other.left_out) == (len(one.names) - 3, one.names[:3])
    table.write_text("\n".join([header, "elsewhere,done,0.5,0.5,"]))
    with pytest.raises(InputError, match=r"has none of the \d+ slides that judge"):
        evaluate(one.first, one.labels, against=table)


def test_models_of_other_classes_are_not_compared(study) -> None:  # type: ignore[no-untyped-def]
    one = study()
    table = one.second / "predictions.csv"
    table.write_text(
        table.read_text().replace("prob_tumour", "prob_tumour\u00a0grade").replace("prob_normal", "prob_x")
    )
    with pytest.raises(
        InputError, match=r"no class of the predictions \(tumour\xa0grade, x\)|compared by the same classes"
    ):
        evaluate(one.first, one.labels, against=table)
    table.write_text(table.read_text().replace("prob_tumour\u00a0grade,prob_x", "prob_tumour,prob_normal,prob_other"))
    table.write_text("slide,prob_normal,prob_tumour,prob_other\ns000,0.5,0.3,0.2\n")
    with pytest.raises(InputError, match="two models are compared by the same classes"):
        evaluate(one.first, one.labels, against=table)


def test_all_figures_are_values(study) -> None:  # type: ignore[no-untyped-def]
    one = study(("a", "b", "c"))
    found = evaluate(one.first, one.labels)
    assert [figures.name for figures in found.figures] == ["a", "b", "c"]
    assert np.mean([figures.auroc for figures in found.figures]) == pytest.approx(found.scores.auroc, abs=1e-12)
    for figures in found.figures:
        assert figures.roc is not None
        assert figures.roc.sensitivity[-1] == 1
        assert sum(one.slides for one in figures.bins) == found.scores.n
        assert figures.average_precision_interval[0] < figures.average_precision < figures.average_precision_interval[1]
    plain = found.as_dict()
    assert isinstance(plain["figures"], list)
    assert plain["comparison"] is None
