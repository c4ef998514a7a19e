"""Who publishes an encoder's weights under which licence, by its name or by the repository that holds them."""

from __future__ import annotations

import re
from pathlib import Path

from wsi_attention.encoders.entry import Entry
from wsi_attention.encoders.origin import Origin, permission
from wsi_attention.encoders.places import repository_of, snapshot
from wsi_attention.encoders.table import entries, entry_of, is_known

HUB = re.compile(r"(?:timm:)?(?:hub|hf-hub|hf_hub):(?P<repository>[^@\s]+)(?:@(?P<revision>\S+))?")
"""How recipes name a repository of the hub."""
PAGE = "README.md"
PYPI = "pypi:"
"""How an entry's repository begins where a package of PyPI holds the weights; its revision is the version."""


def published(name: str) -> Origin:
    """Return where the weights of an encoder come from; nothing for an encoder that nobody publishes under that name.

    The licence of a repository that has no entry is the one that its page in the hub's cache states.

    Args:
        name: as in a recipe: "uni2-h", "hub:owner/model", "small", ….
    """
    known = name.partition(" ")[0]
    if is_known(known):
        return origin_of_entry(entry_of(known))
    asked = HUB.fullmatch(name)
    return origin_of_repository(asked["repository"], asked["revision"] or "") if asked else Origin()


def origin_of_entry(entry: Entry) -> Origin:
    """Return where the weights of a known encoder come from."""
    return Origin(entry.name, entry.repository, entry.revision, entry.licence, entry.redistributable)


def origin_of_repository(repository: str, revision: str = "") -> Origin:
    """Return the origin of weights in a repository of the hub.

    Args:
        repository: "owner/model".
        revision: a branch, tag or commit; any where empty.
    """
    entry = entry_of_repository(repository)
    if entry is not None:
        return Origin(entry.name, repository, revision or entry.revision, entry.licence, entry.redistributable)
    cached = snapshot(repository, revision)
    licence = licence_of(cached / PAGE) if cached else ""
    name = f"hub:{repository}" + (f"@{revision}" if revision else "")
    return Origin(name, repository, revision, licence, permission(licence))


def origin_of_path(path: Path) -> Origin:
    """Return the origin of a file or folder in a hub's cache, wherever that lies; nothing for any other."""
    repository, revision = repository_of(path)
    if not repository:
        return Origin()
    found = origin_of_repository(repository, revision)
    if found.licence:
        return found
    licence = licence_of((path if path.is_dir() else path.parent) / PAGE)
    return Origin(found.name, repository, revision, licence, permission(licence))


def entry_of_repository(repository: str) -> Entry | None:
    """Return the known encoder whose weights a repository of the hub holds, None where there is none, or several."""
    found = [one for one in entries().values() if one.repository.lower() == repository.lower()]
    return found[0] if len(found) == 1 else None


def licence_of(page: Path) -> str:
    """Return the licence that the head of a hub page states; empty where it states none or there is no page."""
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    head = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
    said: dict[str, str] = dict(re.findall(r"^(license|license_name):\s*[\"']?([^\s\"']+)", head, re.MULTILINE))
    return said.get("license_name", "") if said.get("license") == "other" else said.get("license", "")
