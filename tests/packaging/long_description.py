"""README.md as an index of packages shows it: links and pictures lead to the repository's host, for they lie beside it
in a checkout alone.
"""

from __future__ import annotations

import re

TARGET = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def absolute(text: str, repository: str) -> str:
    """Return Markdown whose links to files of the repository are addresses.

    Args:
        text: of a page in the repository's root.
        repository: address of its pages, such as https://host/owner/name/blob/v1.0; a picture's file itself lies at
            the same address with `raw` in place of `blob`.
    """
    pages = repository.rstrip("/")
    files = pages.replace("/blob/", "/raw/", 1)

    def with_host(link: re.Match[str]) -> str:
        target = link["target"]
        if ":" in target or target.startswith("#"):
            return link[0]
        return f"{link['picture']}[{link['text']}]({files if link['picture'] else pages}/{target})"

    return TARGET.sub(with_host, text)
