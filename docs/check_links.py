"""Look at every link between the pages of the built site: the file and, within a page, the place must be there.

    python docs/check_links.py docs/_build/html

Links that leave the site are for `sphinx-build -b linkcheck` (`tox run -e docs-links`), which needs the network.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The targets of a page, and the ids it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.ids: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take down where a tag leads, and what leads to it."""
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.targets.add(value)
            elif name in ("id", "name") and value:
                self.ids.add(value)


def main(site: Path) -> None:
    """Stop where a link of the site leads nowhere."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    lost, looked = [], 0
    for path, page in pages.items():
        for target in sorted(page.targets):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or (target.startswith(("#", "/")) and target == "#"):
                continue
            looked += 1
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            there = pages.get(site / place.relative_to(site.resolve())) if place.suffix == ".html" else None
            if not place.exists() or (there and parts.fragment and unquote(parts.fragment) not in there.ids):
                lost.append(f"{path.relative_to(site)}: {target}")
    print(f"{looked} links of {len(pages)} pages, {len(lost)} lead nowhere")
    if lost:
        sys.exit("\n".join(lost))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
