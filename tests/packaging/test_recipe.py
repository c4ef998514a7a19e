"""The conda recipe asks for what `pyproject.toml` asks for, under the names of conda-forge."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"torch": "pytorch", "openslide-bin": "openslide", "dask": "dask-core", "lightning-fabric": "lightning"}
"""Packages that conda-forge has under another name, or in another one."""


def test_the_recipe_needs_what_the_package_needs() -> None:
    recipe = (ROOT / "packaging" / "conda" / "recipe.yaml").read_text(encoding="utf-8")
    needed = re.findall(r"^    - (\S+) (>=[\d.]+)$", recipe.partition("  run:\n")[2], re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [re.fullmatch(r"([\w-]+)(>=[\d.]+)", one) for one in project["dependencies"]]
    wanted = {NAMES.get(one[1], one[1]): one[2] for one in asked if one} | {"python": project["requires-python"]}
    assert None not in asked
    assert dict(needed) == wanted
