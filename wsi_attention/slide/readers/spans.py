"""Ranges of bytes that lie close together, fetched as one span and cut apart again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

Range = tuple[int, int]
"""(offset, count) in bytes."""


def merged(ranges: Sequence[Range], gap: int, largest: int) -> Iterator[Range]:
    """Spans that hold the ranges.

    Args:
        ranges: at least one, sorted.
        gap: ranges that lie at most so many bytes apart are joined …
        largest: … if they stay below so many bytes, or overlap.
    """
    start, end = ranges[0][0], sum(ranges[0])
    for offset, count in ranges[1:]:
        if offset - end <= gap and (max(end, offset + count) - start <= largest or offset < end):
            end = max(end, offset + count)
        else:
            yield start, end - start
            start, end = offset, offset + count
    yield start, end - start


def cut_out(spans: Sequence[Range], contents: Sequence[bytes], ranges: Sequence[Range]) -> list[bytes]:
    """The bytes of each range out of those of the spans."""
    starts = [offset for offset, _ in spans]
    found = []
    for offset, count in ranges:
        number = bisect_right(starts, offset) - 1
        begin = offset - starts[number]
        found.append(contents[number][begin : begin + count])
    return found
