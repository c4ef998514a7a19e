"""The class that means "nothing found": the user names it, or its name says so; the alphabet never decides."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from wsi_attention.errors import InputError
from wsi_attention.methods.method import find_method

NOBODY = "none"
"""`negative` for classes that are all findings, such as subtypes of a tumour."""
WORDS = frozenset(
    ["normal", "benign", "negative", "neg", "control", "healthy", "unremarkable", "wt", "wildtype", "absent"]
)
"""Words that make a label the negative one, wherever they stand in it."""
WHOLE = frozenset(
    ["0", "no", "false", "nothing", "nothing found", "wild type", *(f"{x} 0" for x in ("class", "grade"))]
)
"""Labels that are the negative one as a whole."""
FINDINGS = (
    r"(tumou?r(al|ous)?|cancer(ous)?|carcinoma|lesion(al)?|metasta(sis|ses|tic)|diseased?|malignan(t|cy)|neoplas(m|ia|tic)"
    r"|dysplas(ia|tic)|findings?|mutat(ion|ed)|mutant|abnormal(ity)?|invasi(on|ve))s?"
)
"""What a negative class may say that there is not, as a regular expression."""
_DENIED = re.compile(rf"\b(non|no|not|without|free of) ?{FINDINGS}|\b{FINDINGS} (free|absent|negative)")
_NOT_IT = re.compile(r"\b(non|no|not|without|triple|double|false|near) ?(" + "|".join(WORDS) + r")\b|\blike\b")
"""Denials of a denial, and names such as "triple-negative" and "normal-like" that are findings."""


def says_nothing_found(label: str) -> bool:
    """Return True for names that people give to the class without a finding: normal, benign, non-tumour, 0 …"""
    text = " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", label).casefold().replace("_", " ")))
    if text in WHOLE or _DENIED.search(text):
        return True
    return not _NOT_IT.search(text) and bool(WORDS.intersection(text.split()))


def negative_class(classes: Sequence[str], given: str = "") -> str | None:
    """Return the class that means that nothing was found, None where none does or nobody says.

    Args:
        classes: all of them.
        given: what the user says it is; "none" where every class is a finding.

    Raises:
        InputError: the given one is no class, or several are called as if they were it.
    """
    if given == NOBODY:
        return None
    if given:
        alike = [name for name in classes if name.casefold() == given.casefold()]
        if given not in classes and len(alike) != 1:
            raise InputError(f"negative class {given!r} is none of the classes {_shown(classes)}")
        return given if given in classes else alike[0]
    found = [name for name in classes if says_nothing_found(name)]
    if len(found) > 1:
        raise InputError(f"{_shown(found)} could each mean that nothing was found; {_advice(classes)}")
    return found[0] if found else None


def negative_arguments(
    method: str, arguments: Mapping[str, object], classes: Sequence[str], given: str
) -> tuple[str | None, dict[str, object]]:
    """Return the negative class, and the options that tell the method which one it is.

    Args:
        method: registered name.
        arguments: options of the recipe, which may say it by the index of the class.
        classes: in the order of the model's outputs.
        given: the recipe's `negative`.

    Raises:
        InputError: the method needs to know it and nobody says, or recipe and arguments say different things.
    """
    key = _option(method)
    index = arguments.get(key) if key else None
    if isinstance(index, int) and 0 <= index < len(classes):
        if given and negative_class(classes, given) != classes[index]:
            raise InputError(
                f"negative is {given!r}, but {key} = {index} under [model] is {classes[index]!r}; give one"
            )
        return classes[index], {}
    if key != "background" or arguments.get("contrastive_weight") == 0:
        found = _or_none(classes, given)
        return found, {key: classes.index(found)} if key and given and found else {}
    found = negative_class(classes, given)
    if found is None and not given and len(classes) == 2:
        raise InputError(
            f"{method} learns from tissue without a finding, and no class is known to be it; {_advice(classes)}"
        )
    return found, {"contrastive_weight": 0.0} if found is None else {"background": classes.index(found)}


def _or_none(classes: Sequence[str], given: str) -> str | None:
    """Return `negative_class` where nothing depends on it: None also where several could be it."""
    if given:
        return negative_class(classes, given)
    found = [name for name in classes if says_nothing_found(name)]
    return found[0] if len(found) == 1 else None


def _option(method: str) -> str | None:
    """Return the method's option for the index of the negative class, None where it has none."""
    unset = {one.name for one in find_method(method).listed() if one.default is None}
    return next((name for name in ("background", "negative") if name in unset), None)


def _advice(classes: Sequence[str]) -> str:
    return (
        f'say which with --negative, or negative = "NAME" in the recipe; classes: {_shown(classes)}, or {NOBODY} where '
        "every class is a finding"
    )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
