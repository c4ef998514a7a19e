"""What tells a slide as it is now from every other one and from itself before it was corrected."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import TYPE_CHECKING

from wsi_attention.slide import own_files
from wsi_attention.slide.fingerprint import seen_in

if TYPE_CHECKING:
    from wsi_attention.slide.slide import Slide


def of_slide(path: str | None, slide: Slide) -> str:
    """Return a sha256 (hex) over all that decides which pixels a box of the slide has; empty where that is not known.

    These are what the results of a slide depend on too (`inference.results.slide_key`): the fingerprint, what the
    reader sees, and all bytes of a small file; of a larger one, and behind a URL, its size and the time it was written
    or the server's version of it. Besides, the reader and the levels it reads.

    Args:
        path: as the slide was given; None for pixels in memory, whose content nobody has hashed.
        slide: open, its levels compared.
    """
    if path is None:
        return ""
    written, changed = own_files.written(path)
    content = (_content(path, changed) if changed else None) or written
    facts = [slide.fingerprint, seen_in(slide), content, slide.reader, list(slide.levels)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()


@lru_cache(4096)
def _content(path: str, changed: str) -> str | None:
    """Return `own_files.content`, computed once as long as nobody touches the files."""
    return own_files.content(path)
