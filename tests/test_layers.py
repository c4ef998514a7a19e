"""Imports point down only; rooms side by side do not know each other; importing the package is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "wsi_attention"

BASE = {"defaults", "errors", "geometry", "json_values", "lazy", "once", "options", "plain_text"}
BASE |= {"protocols", "registry", "structures", "timing"}
MODELS = {"checkpoint", "devices", "files", "learnt_from", "model_card"}
ALLOWED = {
    "defaults": set(),
    "errors": set(),
    "lazy": set(),
    "plain_text": set(),
    "geometry": {"errors"},
    "timing": set(),
    "once": set(),
    "json_values": set(),
    "options": {"errors"},
    "structures": {"geometry", "errors"},
    "protocols": {"structures", "geometry", "errors"},
    "registry": {"structures", "geometry", "errors"},
    "config": {"errors", "options"},
    "csv_table": {"errors", "plain_text"},
    "devices": {"errors"},
    "files": {"errors"},
    "learnt_from": BASE,
    "model_card": BASE | {"learnt_from"},
    "attention": BASE,
    "slide": BASE,
    "export": BASE,
    "nn": BASE | {"attention"},
    "methods": BASE | {"attention", "nn"},
    "checkpoint": BASE | {"files", "learnt_from", "methods", "model_card"},
    "tiles": BASE | {"slide"},
    "inference": BASE | MODELS | {"csv_table", "export", "methods", "nn", "slide", "tiles"},
    "viewer": BASE | {"export", "inference", "slide"},
    "training": BASE | MODELS | {"attention", "config", "csv_table", "inference", "methods", "nn", "slide", "tiles"},
}
PAPERS = {"ats", "oaa", "rams_trans", "tnet", "trt", "zoom_in"}
TOP = {"cli", "testing", "__init__"}
TORCH_ROOMS = {"attention", "nn", "methods", "checkpoint", "devices", "training", "inference", "testing", "cli"}
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


def test_no_paper_imports_another() -> None:
    papers = {path.stem if path.suffix else path.name for path in (PACKAGE / "methods").iterdir()} & PAPERS
    assert papers == PAPERS
    for paper in PAPERS:
        home = PACKAGE / "methods" / paper
        for path in home.glob("*.py") if home.is_dir() else [home.with_suffix(".py")]:
            for name in imported(path):
                parts = name.split(".")
                others = PAPERS - {paper}
                assert parts[:2] != ["wsi_attention", "methods"] or parts[2] not in others, f"{path} imports {name}"


def test_no_two_modules_import_each_other() -> None:
    """Imports for types alone do not count: they are not there when the program runs."""
    graph = {_dotted(path): _runtime_imports(path) for path in MODULES}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"circle: {' -> '.join((*above[above.index(module) :], module))}"
        if module in done:
            return
        for name in graph[module]:
            visit(name, (*above, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def _dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _runtime_imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {id(child) for node in ast.walk(tree) if _is_type_checking(node) for child in ast.walk(node)}
    known, found = {_dotted(one) for one in MODULES}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in guarded:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in known else node.module or "")
    return (found & known) - {"wsi_attention", _dotted(path)}


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
