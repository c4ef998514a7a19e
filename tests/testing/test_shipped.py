"""Every module of the package has a use outside the tests."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "wsi_attention"
FOR_OTHERS = {f"wsi_attention.testing.{name}" for name in ("exporters", "models", "readers")}
"""Contract suites, which the tests of outside packages import."""
BY_NAME = {"wsi_attention.encoders.conversion_process"}
"""Run as a process of its own, so nothing imports it."""
NOT_YET = {"wsi_attention.nn.vit_attention"}
"""Attention inside a pretrained encoder: tested, but no method asks for it so far."""


def imported_by(folder: Path) -> set[str]:
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_no_module_is_there_for_our_own_tests_alone() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    entry_points = {target.partition(":")[0] for group in groups.values() for target in group.values()}
    used = imported_by(PACKAGE) | imported_by(ROOT / "plugins") | entry_points | FOR_OTHERS
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    }
    assert modules - used == NOT_YET | BY_NAME
