"""Patients are divided by label, whole, the same way each time; what cannot be divided is refused in one sentence."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from wsi_attention.config import Recipe
from wsi_attention.csv_table import Table, read_table
from wsi_attention.errors import InputError
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.study.folds import Division, divided
from wsi_attention.study.out_of_fold import check_names
from wsi_attention.study.plan import Fold, StudyPlan, make_plan
from wsi_attention.training.labels import LabelRow


def rows(benign: int, lesion: int, slides: int = 2) -> list[LabelRow]:
    labels = ["benign"] * benign + ["lesion"] * lesion
    return [LabelRow(f"{i}_{k}", label, f"P{i}") for i, label in enumerate(labels) for k in range(slides)]


@pytest.mark.parametrize(("benign", "lesion", "folds"), [(20, 10, 5), (7, 23, 3), (11, 5, 5), (4, 4, 2)])
def test_each_fold_has_its_share_of_each_class_and_patients_stay_whole(benign: int, lesion: int, folds: int) -> None:
    given = rows(benign, lesion)
    for place in divided(given, {}, Division(folds, 2), "labels.csv"):
        assert place.keys() == {row.slide for row in given}
        of_patient = {row.patient: place[row.slide] for row in given}
        assert all(place[row.slide] == of_patient[row.patient] for row in given)
        for label in ("benign", "lesion"):
            patients = {row.patient for row in given if row.label == label}
            counts = Counter(of_patient[patient] for patient in patients)
            assert max(counts.values()) - min(counts.values()) <= 1 and len(counts) == folds


def test_repeats_and_seeds_divide_anew_and_the_same_seed_alike() -> None:
    given = rows(20, 10)
    first, second = divided(given, {}, Division(5, 2), "x")
    assert first != second
    assert divided(given[::-1], {}, Division(5, 2), "x") == (first, second)
    assert divided(given, {}, Division(5, 2, seed=1), "x") != (first, second)


def test_sites_stay_apart() -> None:
    given = rows(15, 15)
    sites = {row.slide: f"H{int(row.patient[1:]) % 6}" for row in given}
    (place,) = divided(given, sites, Division(3, site="hospital"), "x")
    assert len({(sites[slide], fold) for slide, fold in place.items()}) == 6
    assert Counter(place.values()) == {1: 20, 2: 20, 3: 20}


def test_patients_with_slides_of_both_classes_are_divided_too() -> None:
    given = [LabelRow(f"{i}_{k}", ("benign", "lesion")[k], f"P{i}") for i in range(10) for k in range(2)]
    (place,) = divided(given, {}, Division(5), "x")
    assert set(Counter(place.values()).values()) == {4}


@pytest.mark.parametrize(
    ("given", "sites", "wanted", "said"),
    [
        (rows(9, 3), {}, Division(5), "class 'lesion' has 3 patients, fewer than 5 folds; --folds 3 is possible"),
        (rows(9, 1), {}, Division(5), "class 'lesion' has 1 patients, fewer than 5 folds; two or more are needed"),
        (
            [LabelRow(f"{i}_{k}", ("benign", "lesion")[k], f"P{i}") for i in range(3) for k in range(2)],
            {},
            Division(3),
            "fold 1-1 would hold out 1 patient only; fewer --folds than 3 help",
        ),
        (
            rows(2, 2),
            {row.slide: "one" if row.patient == "P0" else "two" for row in rows(2, 2)},
            Division(2, site="h"),
            "class 'lesion' has 1 values of h, fewer than 2 folds; two or more are needed",
        ),
        (
            rows(2, 2),
            {row.slide: row.slide for row in rows(2, 2)},
            Division(2, site="h"),
            "patient 'P0' has slides of two sites, '0_0' and '0_1'",
        ),
    ],
)
def test_what_cannot_be_divided(given: list[LabelRow], sites: dict[str, str], wanted: Division, said: str) -> None:
    with pytest.raises(InputError) as error:
        divided(given, sites, wanted, "labels.csv")
    assert said in str(error.value) and str(error.value).startswith("labels.csv: ")


def test_a_fold_of_one_class_is_refused() -> None:
    """Sites A and B have nearly all of class x; D fills the third fold with y alone, and C is better off elsewhere."""
    numbers = {"A": (20, 5), "B": (20, 4), "C": (1, 3), "D": (0, 10)}
    slides = [
        f"{site}-{label}-{k}"
        for site, own in numbers.items()
        for label, n in zip("xy", own, strict=True)
        for k in range(n)
    ]
    given = [LabelRow(slide, slide.split("-")[1], f"of {slide}") for slide in slides]
    with pytest.raises(InputError, match=r"would hold out slides of class 'y' alone; fewer --folds than 3, or no"):
        divided(given, {slide: slide[0] for slide in slides}, Division(3, site="hospital"), "labels.csv")


@pytest.mark.parametrize(("folds", "repeats", "said"), [(1, 1, "folds is 1; 2 or more"), (5, 0, "repeats is 0; 1 or")])
def test_numbers_out_of_range(folds: int, repeats: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Division(folds, repeats)


def table(folder: Path, text: str) -> Path:
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"


HEADER = "Slide;label;patient;hospital;age;split\n"
LINES = [f"s{i};{'benign' if i % 2 else 'lesion'};P{i // 2 * 2 + i % 2};H{i % 4};{40 + i};train" for i in range(12)]


def test_each_fold_has_the_columns_that_were_given_and_a_split_of_its_own(tmp_path: Path) -> None:
    lines = [*LINES, "s12;benign;P99;H1;70;test"]
    plan = make_plan(table(tmp_path, HEADER + "\n".join(lines)), Recipe(), Division(2))
    assert plan.left_out == ("s12",) and len(plan.rows) == 12 and plan.patients_given
    for fold in plan.folds:
        written = read_table(table(tmp_path, plan.labels_of(fold)))
        assert written.columns == ("slide", "label", "patient", "hospital", "age", "split")
        assert {cells["slide"]: cells["split"] for _, cells in written.rows} == fold.parts
        assert [*written.rows[3][1].values()][:-1] == ["s3", "benign", "P3", "H3", "43"]
        assert {fold.parts[row.slide] for row in plan.held_out(fold)} == {"test"}
        assert {"train", "val", "test"} == set(fold.parts.values())
    held = [slide for fold in plan.folds for slide in fold.slides("test")]
    assert sorted(held) == sorted(row.slide for row in plan.rows)
    assert len(plan.table_of_folds().splitlines()) == 13


def test_inner_validation_takes_no_patient_that_trains(tmp_path: Path) -> None:
    plan = make_plan(table(tmp_path, HEADER + "\n".join(LINES)), Recipe(), Division(3))
    for fold in plan.folds:
        parts: dict[str, set[str]] = {}
        for row in plan.rows:
            parts.setdefault(row.patient, set()).add(fold.parts[row.slide])
        assert all(len(own) == 1 for own in parts.values())


@pytest.mark.parametrize(
    ("site", "text", "said"),
    [
        ("centre", HEADER + "\n".join(LINES), "column 'centre' is missing; found: slide, label, patient, hospital"),
        ("hospital", HEADER + "\n".join([*LINES, "s12;benign;P99;;70;val"]), "line 14: hospital is empty"),
        (None, "slide;label\na;x\nb;x\n", "a study needs two classes or more; found only 'x'"),
        (None, "slide;label;split\na;x;test\nb;y;test\n", "a study needs two classes or more; found none"),
        (None, "name;label\na;x\n", "column 'slide' is missing"),
    ],
)
def test_labels_that_make_no_study(tmp_path: Path, site: str | None, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_plan(table(tmp_path, text), Recipe(), Division(2, site=site))


def test_a_study_is_of_one_label_a_slide(tmp_path: Path) -> None:
    class Other(Recipe):
        def as_dict(self) -> dict[str, object]:
            return {**super().as_dict(), "target": "survival"}

    with pytest.raises(InputError, match="crossvalidate is for one label a slide, not for target = 'survival'"):
        make_plan(table(tmp_path, HEADER + "\n".join(LINES)), Other(), Division(2))


def test_two_slides_of_one_name_in_different_folds_are_refused() -> None:
    given = tuple(LabelRow(name, "benign", name) for name in ("x.svs", "X.tif", "y.svs"))
    files = {row.slide: SlideFile(f"/a/{row.slide}", row.slide) for row in given}

    def plan(*held: str) -> StudyPlan:
        folds = (Fold(1, 1, {row.slide: "test" if row.slide in held else "train" for row in given}),)
        rest = (Fold(1, 2, {row.slide: "train" if row.slide in held else "test" for row in given}),)
        return StudyPlan(Table("labels.csv", (), ()), given, (), {}, Division(2), Recipe(), (*folds, *rest))

    check_names(plan("x.svs", "X.tif"), files)
    with pytest.raises(InputError, match=r"labels\.csv: /a/x\.svs and /a/X\.tif are both called X; rename one of them"):
        check_names(plan("x.svs", "y.svs"), files)


def test_a_patient_kept_for_the_test_takes_no_part_with_any_slide(tmp_path: Path) -> None:
    lines = [f"{row.slide},{row.label},{row.patient},{'test' if row.slide == '0_0' else 'train'}" for row in rows(5, 5)]
    (tmp_path / "labels.csv").write_text("\n".join(["slide,label,patient,split", *lines]))
    plan = make_plan(tmp_path / "labels.csv", Recipe(validation_share=0.3), Division(2))
    assert plan.left_out == ("0_0",) and [row.slide for row in plan.related] == ["0_1"]
    assert len(plan.rows) == 18 and all(row.patient != "P0" for row in plan.rows)
    assert all("0_1" not in fold.parts for fold in plan.folds)
