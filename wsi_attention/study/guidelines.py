"""Items of reporting guidelines that a study's record can fill, or that its authors must: their numbers, in our words.

TRIPOD+AI: Collins et al., "TRIPOD+AI statement", BMJ 2024;385:e078378, 27 items. CLAIM: Tejani et al., "Checklist for
Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update", Radiology: Artificial Intelligence 2024;6(4):e240300,
44 items, whose numbers are others than those of 2020 from the eleventh on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

TRIPOD, CLAIM = "TRIPOD+AI", "CLAIM"
AUTHORS = "for the authors"
"""What stands beside an item that no program knows."""


class Item(NamedTuple):
    """An item: its number in each guideline ("" where it has none there), what it asks, and the fact that answers it.

    `fact` is a key of what the record knows; empty where only the authors know.
    """

    tripod: str
    claim: str
    asks: str
    fact: str = ""


ITEMS = (
    Item("1, 2", "1, 2", "title and summary name the kind of model, whom it is for and what it predicts"),
    Item("3a-c, 4", "3, 4, 6", "why such a model is wanted, for whom, known inequalities, and the aims of the study"),
    Item("5a, 5b", "5, 7", "where the data come from, and when they were collected; looking forward or back"),
    Item("6a-c", "8", "setting and centres, which patients could take part, and their treatments"),
    Item("", "13", "how the images were made: stain, scanner, magnification"),
    Item("7, 12b", "9", "what was done to the images before the model saw them", "preparation"),
    Item("", "10", "which parts of an image were used", "subset"),
    Item("8a-c", "14-18", "how the label of a slide was found, by whom, knowing what, and how far raters agreed"),
    Item("9a-c", "", "what the model is given", "predictors"),
    Item("10", "21", "why there are so many patients", "numbers"),
    Item("11", "12", "what was missing, and what was done about it", "missing"),
    Item("", "11", "how the images were made anonymous"),
    Item("12a", "19, 32", "how the data were divided for training and evaluation", "division"),
    Item("", "20", "what was never in two parts", "apart"),
    Item("12c", "22", "the kind of model, and each step of building it", "model"),
    Item("", "23", "software", "software"),
    Item("", "24", "what the weights were before training", "start"),
    Item("12c", "25", "how it was trained: augmentation, hyperparameters, when it stopped", "training"),
    Item("12c", "26", "how the final model was chosen", "choice"),
    Item("", "27", "how several models became one", "ensemble"),
    Item("12d, 23b", "", "differences between hospitals or other groups", "sites"),
    Item("12e", "28, 29", "measures of performance, and how uncertain they are", "measures"),
    Item("12f, 24", "", "updating of the model after its evaluation"),
    Item("12g, 22", "", "all that others need to predict with it", "availability"),
    Item(
        "13", "", "classes of unequal size, what was done about it, and about the probabilities afterwards", "balance"
    ),
    Item("14", "", "fairness between groups of people"),
    Item("15", "", "what the model puts out, and any threshold", "output"),
    Item("16", "33", "how training and evaluation differ in setting and patients; data of other hospitals", "external"),
    Item("", "30, 31", "robustness, and how a decision can be looked into", "explained"),
    Item("17", "", "ethical approval and consent"),
    Item("18a-d", "34, 42, 44", "funding, interests, protocol, registration"),
    Item("18e, 18f", "43", "how data, code and model can be had", "code"),
    Item("19", "", "how patients and the public took part"),
    Item("20a", "35", "how many took part, were left out, and why", "flow"),
    Item("20b, 20c", "36", "who they are: age, sex, stage; those of the evaluation beside those of the training"),
    Item("21", "", "patients and findings in each analysis", "parts"),
    Item("23a", "37, 38", "performance, with intervals", "performance"),
    Item("", "39", "where it failed", "failures"),
    Item("25, 26, 27c", "40, 41", "meaning, limits and use of what was found, and what comes next"),
    Item("27a, 27b", "", "what happens with poor input, and who must do what", "input"),
)
"""In the order of TRIPOD+AI."""


def filled(facts: Mapping[str, str]) -> list[tuple[str, str, str, str]]:
    """Return (TRIPOD+AI, CLAIM, what it asks, what the record says) of each item.

    Args:
        facts: what is known; an item whose fact is missing is for the authors.
    """
    return [(item.tripod, item.claim, item.asks, facts.get(item.fact, AUTHORS)) for item in ITEMS]
