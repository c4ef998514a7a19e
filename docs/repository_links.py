"""Links of the pages to files of the repository beyond `docs/` work in a checkout; on the site they lead to its host.

The environment variable WSI_ATTENTION_REPOSITORY names the address of its files, e.g. https://host/owner/name/blob/main.
Without it the site names the file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def point_to_repository(app: object, name: str, source: list[str]) -> None:
    """Replace links to files outside this folder, in a page as Sphinx has read it."""
    page = DOCS / f"{name}.md"
    if page.is_file():
        source[0] = LINK.sub(lambda link: _target(page, link), source[0])


def _target(page: Path, link: re.Match[str]) -> str:
    place = (page.parent / link[2]).resolve()
    if place.is_relative_to(DOCS) or not place.exists():
        return link[0]
    path = place.relative_to(ROOT).as_posix()
    host = os.environ.get("WSI_ATTENTION_REPOSITORY", "").rstrip("/")
    return f"[{link[1]}]({host}/{path}{link[3] or ''})" if host else f"{link[1]} (`{path}`)"
