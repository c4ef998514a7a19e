"""The class without a finding is said or plain from its name; nothing depends on the alphabet."""

from __future__ import annotations

import pytest

from wsi_attention.errors import InputError
from wsi_attention.training.negative import negative_arguments, negative_class, says_nothing_found


@pytest.mark.parametrize(
    "label",
    [
        *["normal", "Normal tissue", "BENIGN", "negative", "tumor_negative", "control", "Healthy control", "0", "WT"],
        *[
            "wild-type",
            "non-tumor",
            "Non-tumour",
            "no_tumor",
            "nontumoral",
            "no metastasis",
            "tumour-free",
            "No finding",
        ],
        *["without lesion", "not malignant", "no", "False", "non-neoplastic", "metastasis absent", "grade 0", "absent"],
    ],
)
def test_common_words(label: str) -> None:
    assert says_nothing_found(label)


@pytest.mark.parametrize(
    "label",
    [
        *["abnormal", "tumor", "lesion", "malignant", "positive", "non-normal", "not benign", "no control", "1", "10"],
        *["triple-negative", "normal-like", "LUAD", "controlled", "wtf", "yes", "nodular", "noninvolved", "stage 0"],
        *["adenoma", "non-small cell carcinoma", "notochord", "false negative"],
    ],
)
def test_words_that_only_look_alike(label: str) -> None:
    assert not says_nothing_found(label)


def test_what_is_said_wins_over_what_is_known() -> None:
    assert negative_class(("lesion", "normal")) == "normal"
    assert negative_class(("lesion", "normal"), "Lesion") == "lesion"
    assert negative_class(("lesion", "normal"), "none") is None
    assert negative_class(("LUAD", "LUSC")) is None
    with pytest.raises(InputError, match="'tumor' is none of the classes 'lesion', 'normal'"):
        negative_class(("lesion", "normal"), "tumor")
    with pytest.raises(
        InputError, match=r"'benign', 'normal' could each mean .* --negative.* classes: 'benign', 'normal'"
    ):
        negative_class(("benign", "normal", "tumor"))


@pytest.mark.parametrize(
    ("classes", "negative"),
    [(("lesion", "normal"), 1), (("benign", "lesion"), 0), (("adenoma", "cancer", "healthy"), 2), (("0", "1"), 0)],
)
def test_zoom_in_is_told_by_index(classes: tuple[str, ...], negative: int) -> None:
    assert negative_arguments("zoom-in", {}, classes, "") == (classes[negative], {"background": negative})


def test_zoom_in_asks_where_nobody_knows() -> None:
    with pytest.raises(InputError, match=r"zoom-in .* --negative.* classes: 'LUAD', 'LUSC', or none where every class"):
        negative_arguments("zoom-in", {}, ("LUAD", "LUSC"), "")
    off = {"contrastive_weight": 0.0}
    assert negative_arguments("zoom-in", {}, ("LUAD", "LUSC"), "none") == (None, off)
    assert negative_arguments("zoom-in", off, ("LUAD", "LUSC"), "") == (None, {})
    assert negative_arguments("zoom-in", {}, ("LUAD", "LUSC", "SCLC"), "") == (None, off)
    assert negative_arguments("zoom-in", {"background": 1}, ("LUAD", "LUSC"), "") == ("LUSC", {})
    with pytest.raises(InputError, match=r"negative is 'a', but background = 1 under \[model\] is 'b'"):
        negative_arguments("zoom-in", {"background": 1}, ("a", "b"), "a")


def test_methods_that_do_not_need_it_remember_it_and_never_ask() -> None:
    assert negative_arguments("ats", {}, ("normal", "tumor"), "") == ("normal", {})
    assert negative_arguments("ats", {}, ("benign", "normal"), "") == (None, {})
    assert negative_arguments("rams-trans", {"background": "seen"}, ("a", "b"), "") == (None, {})
    assert negative_arguments("oaa-plus", {}, ("a", "normal"), "") == ("normal", {})
    assert negative_arguments("oaa-plus", {}, ("a", "normal"), "normal") == ("normal", {"negative": 1})
