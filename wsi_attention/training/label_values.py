"""What may be a class: a label that means "not known", a typing error or a measurement never becomes one."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from wsi_attention.errors import InputError

MISSING = frozenset(
    [
        *["", "nan", "na", "n/a", "n.a.", "n.a", "<na>", "nat", "none", "null", "nil", "(null)", "(none)", "(blank)"],
        *["(empty)", "blank", "empty", "missing", "unknown", "undefined", "unlabeled", "unlabelled", "unassigned"],
        *["tbd", "todo", "to do", "pending", "not available", "not applicable", "not known", "no label"],
        *["-", "--", "---", "–", "—", "?", "??", ".", "..", "…", "*", "inf", "-inf", "+inf", "infinity"],
        *["#n/a", "#na", "#ref!", "#value!", "#div/0!", "#name?", "#num!", "#null!"],
    ]
)
"""Texts, in small letters, by which people and programs say that there is no value."""
MANY_NUMBERS = 20
"""More different numbers than this are a measurement or an identifier."""
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+")


def check_values(labels: Mapping[int, str], name: str | Path) -> None:
    """Raise InputError where a label, given with its line, says that there is none.

    Raises:
        InputError: a label is none; spellings of one word are named too, so that one correction is enough.
    """
    missing = {line: label for line, label in labels.items() if _key(label) in MISSING or label.casefold() in MISSING}
    if missing:
        line, label = next(iter(missing.items()))
        more = f" ({len(missing)} such rows)" if len(missing) > 1 else ""
        others = _same_word(Counter(text for line, text in labels.items() if line not in missing))
        raise InputError(
            f"{name}, line {line}: {label!r} is no label{more}; leave out slides without one, and if it is a class "
            f"give it another name{others and '; '}{others}"
        )


def check_classes(labels: Sequence[str], name: str | Path) -> None:
    """Raise InputError where labels, one a slide, cannot be the classes of a model.

    Raises:
        InputError: two differ in spelling only, or they are numbers of a measurement, a code for a missing value or
            identifiers.
    """
    counts = Counter(labels)
    if twins := _same_word(counts):
        raise InputError(f"{name}: {twins}")
    numbers = [label for label in counts if _NUMBER.fullmatch(label)]
    if numbers:
        _whole_numbers(numbers, counts, name)
    single = [label for label, count in counts.items() if count == 1]
    if len(counts) > 3 and 2 * len(single) > len(counts):
        raise InputError(
            f"{name}: {len(counts)} different labels on {len(labels)} slides, {len(single)} of them once; is the "
            "column an identifier or a measurement? a class needs two slides or more"
        )


def _same_word(counts: Counter[str]) -> str:
    """Return a sentence on labels that are one word written in several ways; empty where there are none."""
    spellings: dict[str, list[str]] = {}
    for label in sorted(counts):
        spellings.setdefault(_key(label), []).append(label)
    same = next((same for same in spellings.values() if len(same) > 1), [])
    if not same:
        return ""
    how = "in case only" if len({label.casefold() for label in same}) == 1 else "in spelling only"
    shown = " and ".join(f"{label!r} ({counts[label]} slides)" for label in same)
    return f"labels {shown} differ {how}; write one of them"


def _whole_numbers(numbers: Sequence[str], counts: Counter[str], name: str | Path) -> None:
    broken = [label for label in numbers if not _WHOLE.fullmatch(label)]
    if broken:
        raise InputError(
            f"{name}: label {broken[0]!r} is a number with decimals; classes are names such as 'normal' or whole "
            "numbers such as 0 and 1: a measurement needs classes first"
        )
    values: dict[int, list[str]] = {}
    for label in sorted(numbers):
        values.setdefault(int(label), []).append(label)
    twice = next((same for same in values.values() if len(same) > 1), None)
    if twice:
        raise InputError(f"{name}: labels {' and '.join(map(repr, twice))} are the same number; write one of them")
    if min(values) < 0 and (0 in values or len(values) > 2):
        raise InputError(
            f"{name}: is label {str(min(values))!r} a code for a missing value? leave such slides out, or give the "
            f"classes names; labels: {', '.join(sorted(counts))}"
        )
    if len(values) > MANY_NUMBERS:
        raise InputError(
            f"{name}: {len(values)} different numbers as labels, from {min(values)} to {max(values)}; is the column an "
            f"identifier or a measurement? numbers may be up to {MANY_NUMBERS} classes"
        )


def _key(label: str) -> str:
    """Return a label as it is compared: compatible characters, small letters, one space for any joint of words."""
    text = unicodedata.normalize("NFKC", label).casefold()
    text = "".join(" " if character.isspace() else character for character in text if _shows(character))
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", text.replace("_", " ")).strip()


def _shows(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) not in ("Cf", "Cc")
