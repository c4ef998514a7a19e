"""How the packages of an extra are installed; the one text for all messages."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires

__all__ = ["how_to_install"]

DISTRIBUTION = "wsi-attention"
_OF_EXTRA = re.compile(r"(?P<package>[^;]+?)\s*;\s*extra == ['\"](?P<extra>[\w-]+)['\"]")
"""A requirement of an extra as the metadata of a package writes it."""


def how_to_install(extra: str) -> str:
    """Return the clause that tells how to install what an extra needs: "install it with: pip install 'h5py>=3.11'".

    It names the packages themselves, as the metadata of this installation lists them, so that the command works
    for an installation from a checkout, a wheel or an index. A source tree that was never installed has no
    metadata: there the command names the extra.
    """
    packages = " ".join(f"'{one}'" for one in _needed(extra))
    return f"install it with: pip install {packages or _from_checkout(extra)}"


def _from_checkout(extra: str) -> str:
    return f"'.[{extra}]' in the checkout of {DISTRIBUTION}"


def _needed(extra: str) -> list[str]:
    try:
        listed = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        return []
    found = (_OF_EXTRA.fullmatch(one) for one in listed)
    return [one["package"] for one in found if one and one["extra"] == extra]
