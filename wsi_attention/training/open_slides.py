"""Slides of a training while they are looked at; those behind URLs stay open between epochs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.slide.urls import is_url
from wsi_attention.training.labels import LabelRow

MOST_OPEN = 512
"""Slides behind URLs that stay open; their index is in memory, up to a few MB each for the largest."""

Key = tuple[str, float | None, str | None]


class OpenSlides:
    """Opens slides. Opening one behind a URL fetches its beginning and its index, so it is opened once, not each epoch.

    Thread-safe.

    Args:
        most: slides behind URLs that stay open; those used longest ago are closed first.
    """

    def __init__(self, most: int = MOST_OPEN) -> None:
        self._most = most
        self._kept: OrderedDict[Key, Slide] = OrderedDict()
        self._used: dict[Key, int] = {}
        self._lock = Lock()

    @contextmanager
    def opened(self, path: str | Path, row: LabelRow) -> Iterator[Slide]:
        """Yield the open slide of a row of the labels; errors as in `open_slide`."""
        key = str(path), row.mpp, row.series
        if not is_url(key[0]):
            with open_slide(key[0], mpp=row.mpp, options={"series": row.series}) as slide:
                yield slide
            return
        slide = self._taken(key) or self._added(key, open_slide(key[0], mpp=row.mpp, options={"series": row.series}))
        try:
            yield slide
        finally:
            self._left(key)

    def _taken(self, key: Key) -> Slide | None:
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            self._used[key] = self._used.get(key, 0) + 1
            return self._kept[key]

    def _added(self, key: Key, slide: Slide) -> Slide:
        with self._lock:
            slide = self._kept.setdefault(key, slide)
            self._used[key] = self._used.get(key, 0) + 1
            return slide

    def _left(self, key: Key) -> None:
        with self._lock:
            self._used[key] -= 1
            idle = [one for one in self._kept if not self._used.get(one)]
            for one in idle[: max(0, len(self._kept) - self._most)]:
                self._kept.pop(one).close()
                self._used.pop(one, None)

    def close(self) -> None:
        """Close all that are open."""
        with self._lock:
            for slide in self._kept.values():
                slide.close()
            self._kept.clear()
            self._used.clear()
