"""Text of others is harmless on screens, in pictures and in tables, and comes back as it was."""

from __future__ import annotations

import csv
import io
import itertools

import pytest

from wsi_attention.plain_text import from_cell, in_cell, visible

ODD = ("\n", "\r", "\x1b[31m", "\x85", "\u2028", "\u202e", "\u2066", "\udcff", "\ufeff", "\x7f", "\U000e0041")


@pytest.mark.parametrize("odd", ODD)
def test_nothing_harmful_is_shown(odd: str) -> None:
    shown = visible(f"a{odd}b")
    assert shown.startswith("a\\") and shown.endswith("b") and shown.isprintable()
    shown.encode("utf-8")


@pytest.mark.parametrize("text", ["", "é 中文 हिन्दी", "10 µm × 2", "a\u202fb", "👩\u200d⚕", "می\u200cخواهم"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "'=1+1", "''@x", "＝1"])
def test_a_formula_is_text_in_a_table_and_comes_back(text: str) -> None:
    assert in_cell(text).startswith("'") and from_cell(in_cell(text)) == text
    file = io.StringIO()
    csv.writer(file).writerow([in_cell(text)])
    file.seek(0)
    assert from_cell(next(csv.reader(io.StringIO(file.getvalue(), newline="")))[0]) == text


def test_every_short_text_comes_back_and_no_two_are_written_alike() -> None:
    texts = ["".join(letters) for n in range(5) for letters in itertools.product("'=a-", repeat=n)]
    assert [from_cell(in_cell(text)) for text in texts] == texts
    assert len(set(map(in_cell, texts))) == len(texts)
    assert in_cell("'quoted'") == "'quoted'" and from_cell("'quoted'") == "'quoted'"
