"""Handles: a reader is closed when nobody uses it, and never before."""

from __future__ import annotations

import pytest

from wsi_attention.errors import SlideError
from wsi_attention.slide.handles import Handles


class Counted:
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_threads_share_one_reader() -> None:
    handles = Handles(Counted)  # type: ignore[arg-type]
    with handles.borrow() as one, handles.borrow() as other:
        assert one.reader is other.reader


def test_a_retired_reader_is_closed_by_its_last_user() -> None:
    handles = Handles(Counted)  # type: ignore[arg-type]
    with handles.borrow() as first:
        old = first.reader
        with handles.borrow() as second:
            handles.retire(second)
        assert old.closed == 0
        with handles.borrow() as fresh:
            assert fresh.reader is not old
    assert old.closed == 1


def test_an_heir_that_comes_too_late_is_closed() -> None:
    handles = Handles(Counted)  # type: ignore[arg-type]
    first, second = Counted(), Counted()
    with handles.borrow() as one, handles.borrow() as same:
        handles.retire(one, heir=first)  # type: ignore[arg-type]
        handles.retire(same, heir=second)  # type: ignore[arg-type]
    assert (first.closed, second.closed) == (0, 1)
    with handles.borrow() as now:
        assert now.reader is first


def test_closing_waits_for_reads_under_way() -> None:
    handles = Handles(Counted)  # type: ignore[arg-type]
    with handles.borrow() as lease:
        handles.close()
        assert lease.reader.closed == 0
    assert lease.reader.closed == 1
    with pytest.raises(SlideError, match="closed"), handles.borrow():
        pass


def test_what_is_forgotten_is_closed() -> None:
    handles = Handles(Counted)  # type: ignore[arg-type]
    with handles.borrow() as lease:
        reader = lease.reader
    del handles, lease
    assert reader.closed == 1
