"""Imports point down only; rooms side by side do not know each other; importing the package is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "wsi_attention"

BASE = {"defaults", "errors", "extras", "geometry", "json_values", "lazy", "once", "options", "plain_text"}
BASE |= {"protocols", "registry", "safe_names", "structures", "timing"}
MODELS = {"checkpoint", "devices", "files", "learnt_from", "model_card", "model_encoder"}
ALLOWED = {
    "defaults": set(),
    "errors": set(),
    "extras": set(),
    "lazy": set(),
    "plain_text": set(),
    "geometry": {"errors"},
    "safe_names": {"plain_text"},
    "timing": set(),
    "once": set(),
    "json_values": set(),
    "options": {"errors"},
    "structures": {"geometry", "errors"},
    "protocols": {"structures", "geometry", "errors"},
    "registry": {"structures", "geometry", "errors"},
    "config": {"errors", "options"},
    "csv_table": {"errors", "plain_text"},
    "devices": {"errors", "extras"},
    "files": {"errors"},
    "learnt_from": BASE,
    "certainty": BASE | {"statistics"},
    "model_card": BASE | {"certainty", "encoders", "learnt_from"},
    "model_encoder": BASE | {"encoders", "nn"},
    "attention": BASE,
    "statistics": BASE,
    "targets": BASE | {"statistics"},
    "bags": BASE,
    "certificate": BASE | {"attention"},
    "slide": BASE,
    "export": BASE,
    "encoders": BASE | {"files"},
    "nn": BASE | {"attention", "encoders"},
    "methods": BASE | {"attention", "certificate", "encoders", "nn", "targets"},
    "feature_store": BASE | {"files", "nn"},
    "checkpoint": BASE
    | {"certainty", "encoders", "files", "learnt_from", "methods", "model_card", "model_encoder", "targets"},
    "tiles": BASE | {"slide"},
    "inference": BASE
    | MODELS
    | {"bags", "certainty", "certificate", "csv_table", "encoders", "export", "feature_store", "methods", "nn"}
    | {"slide", "targets", "tiles"},
    "notebook": BASE | {"checkpoint", "export", "slide"},
    "viewer": BASE | {"csv_table", "export", "files", "inference", "slide"},
    "training": BASE
    | MODELS
    | {"attention", "bags", "certainty", "config", "csv_table", "encoders", "feature_store", "inference", "methods"}
    | {"nn", "slide", "statistics", "targets", "tiles"},
    "study": BASE
    | MODELS
    | {"attention", "bags", "certainty", "config", "csv_table", "encoders", "evaluation", "export", "feature_store"}
    | {"inference", "methods", "nn", "slide", "statistics", "targets", "tiles", "training"},
    "evaluation": BASE
    | MODELS
    | {"certainty", "csv_table", "export", "inference", "statistics", "targets", "training"},
}
PAPERS = {"ats", "grow", "mil", "oaa", "rams_trans", "tnet", "trt", "zoom_in"}
TOP = {"cli", "testing", "__init__"}
TORCH_ROOMS = {
    "attention",
    "feature_store",
    "encoders",
    "nn",
    "methods",
    "checkpoint",
    "model_encoder",
    "devices",
    "training",
    "evaluation",
    "study",
    "statistics",
    "targets",
    "inference",
    "testing",
    "cli",
}
TORCH_FILES = {"bags/clam_tensor.py", "bags/source.py", "tiles/side_by_side.py", "tiles/source.py"}
TORCH_FILES |= {"tiles/image_sources.py", "tiles/tensors.py"}
CONVENIENCES = {
    ("structures.py", "_repr_html_"): "wsi_attention.notebook.prediction_html",
    ("structures.py", "to_dataframe"): "wsi_attention.export.frames.tile_frame",
    ("structures.py", "to_geodataframe"): "wsi_attention.export.frames.tile_geoframe",
    ("slide/slide.py", "_repr_html_"): "wsi_attention.notebook.slide_html",
    ("checkpoint.py", "_repr_html_"): "wsi_attention.notebook.classifier_html",
}
"""The only imports that point up: a notebook asks a value itself how it looks, and users ask it for a data frame. Each
stands inside its method, which only passes the value on; nothing else of the module may depend on what lies above."""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imported(path: Path) -> list[str]:
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    upward = {id(node) for node, _, _ in conveniences(path, tree)}
    for node in ast.walk(tree):
        if id(node) in upward:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def conveniences(path: Path, tree: ast.Module) -> list[tuple[ast.ImportFrom, tuple[str, str], str]]:
    """The imports of a module that `CONVENIENCES` allows, each with its key and what it imports."""
    file = path.relative_to(PACKAGE).as_posix()
    if not any(file == allowed for allowed, _ in CONVENIENCES):
        return []
    return [
        (node, key, name)
        for method in ast.walk(tree)
        if isinstance(method, ast.FunctionDef) and (key := (file, method.name)) in CONVENIENCES
        for node in ast.walk(method)
        if isinstance(node, ast.ImportFrom)
        and [name := f"{node.module}.{alias.name}" for alias in node.names] == [CONVENIENCES[key]]
    ]


MODULES = sorted(PACKAGE.rglob("*.py"))


def test_conveniences_are_all_there_and_only_pass_on() -> None:
    found = {}
    for path in (PACKAGE / file for file in {file for file, _ in CONVENIENCES}):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found |= {key: name for _, key, name in conveniences(path, tree)}
        for method in ast.walk(tree):
            if isinstance(method, ast.FunctionDef) and (str(path.relative_to(PACKAGE)), method.name) in CONVENIENCES:
                kinds = [type(node) for node in method.body]
                assert kinds == [ast.Expr, ast.ImportFrom, ast.Return], f"{path}: {method.name} does more than pass on"
    assert found == CONVENIENCES


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


@cache
def _known() -> set[str]:
    return {_dotted(one) for one in MODULES}


def _runtime_imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {id(child) for node in ast.walk(tree) if _is_type_checking(node) for child in ast.walk(node)}
    guarded |= {id(node) for node, _, _ in conveniences(path, tree)}
    known, found = _known(), set()
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
