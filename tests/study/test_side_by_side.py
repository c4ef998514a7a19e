"""What processes of folds say: lines that are no news are passed over, and the end is always heard."""

from __future__ import annotations

import io

import pytest

from wsi_attention.study.side_by_side import _Crew
from wsi_attention.training.listener import Silent


def test_a_line_that_is_no_news_is_passed_over() -> None:
    crew = _Crew([], [], 1, Silent())
    crew._listen("1-1", io.StringIO('{"line": "one"}\nno JSON\n3\n{}\n{"error": "two"}\n'))
    assert [crew._news.get_nowait() for _ in range(3)] == [
        ("1-1", {"line": "one"}),
        ("1-1", {"error": "two"}),
        ("1-1", {}),
    ]


def test_the_end_is_heard_whatever_happens() -> None:
    crew = _Crew([], [], 1, Silent())
    with pytest.raises(UnicodeDecodeError):
        crew._listen("1-1", io.TextIOWrapper(io.BytesIO(b'{"line": "\xff"}'), encoding="utf-8"))
    assert crew._news.get_nowait() == ("1-1", {})
