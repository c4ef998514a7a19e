"""Imports point down only; rooms side by side do not know each other; importing the package is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "wsi_attention"

BASE = {"errors", "geometry", "json_values", "once", "plain_text", "structures", "protocols", "registry", "timing"}
ALLOWED = {
    "errors": set(),
    "plain_text": set(),
    "geometry": {"errors"},
    "timing": set(),
    "once": set(),
    "json_values": set(),
    "structures": {"geometry", "errors"},
    "protocols": {"structures", "geometry", "errors"},
    "registry": {"structures", "geometry", "errors"},
    "attention": BASE,
    "slide": BASE,
    "export": BASE,
    "nn": BASE | {"attention"},
    "models": BASE | {"attention", "nn"},
    "tiles": BASE | {"slide"},
    "config": {"errors"},
    "inference": BASE | {"attention", "nn", "models", "slide", "tiles", "export"},
    "viewer": BASE | {"slide", "export", "inference"},
    "training": BASE | {"attention", "nn", "models", "slide", "tiles", "config", "inference"},
}
TOP = {"cli", "testing", "__init__"}
TORCH_ROOMS = {"attention", "nn", "models", "training", "inference", "testing", "cli"}
TORCH_FILES = {"tiles/source.py", "tiles/tensors.py"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    if room in TOP:
        return
    for name in imported(path):
        if name.startswith("wsi_attention."):
            target = name.split(".")[1]
            if target == "__version__":
                continue
            assert target == room or target in ALLOWED[room], f"{room} must not import {target} ({name})"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_torch_lives_in_the_middle_column(path: Path) -> None:
    if room_of(path) in TORCH_ROOMS or str(path.relative_to(PACKAGE)) in TORCH_FILES:
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {id(child) for node in ast.walk(tree) if _is_type_checking(node) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in guarded:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            assert not any(name.split(".")[0] == "torch" for name in names), f"{path} imports torch"


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def test_nothing_needs_torchvision_or_pickle() -> None:
    for path in MODULES:
        for name in imported(path):
            assert name.split(".")[0] not in {"torchvision", "pickle", "dill", "joblib"}, f"{path} imports {name}"


def test_importing_the_package_is_light() -> None:
    heavy = "{'torch', 'openslide', 'tiffslide', 'zarr', 'dask', 'skimage', 'PIL', 'typer', 'rich'}"
    code = f"import sys, wsi_attention; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
