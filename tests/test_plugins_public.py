"""Plugins live on public names: what the `__all__` of a public package or module lists, and nothing else."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOM_NAMES = ("bags", "export", "inference", "methods", "nn", "slide", "testing", "tiles", "training", "viewer")
MODULES = ("errors", "geometry", "options", "plain_text", "protocols", "structures")
PUBLIC = [
    "wsi_attention",
    *(f"wsi_attention.{room}" for room in ROOM_NAMES),
    *(
        f"wsi_attention.{module}"
        for module in ("errors", "geometry", "options", "plain_text", "protocols", "structures")
    ),
]
ROOMS = [name for name in PUBLIC if (ROOT / name.replace(".", "/")).is_dir()]
FILES = sorted([*(ROOT / "plugins").rglob("*.py"), *(ROOT / "tests/outside_package").rglob("*.py")])
PAGES = sorted((ROOT / "plugins").rglob("*.md"))


def imports(code: str) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of what Python code imports from wsi_attention."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "wsi_attention":
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names if alias.name.startswith("wsi_attention.")]
            yield from ((module, "") for module in modules)


def private(code: str) -> list[str]:
    """Return what Python code imports that is not public."""
    return [
        f"{module}: {name}"
        for module, name in imports(code)
        if module not in PUBLIC or (name not in import_module(module).__all__ and name != "__version__")
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_plugins_import_public_names_alone(path: Path) -> None:
    assert private(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_of_plugins_show_public_names_alone(path: Path) -> None:
    lines = re.findall(r"^ *(from wsi_attention[.\w]* import [\w, ]+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert private("\n".join(lines)) == []


def test_the_test_itself_finds_what_is_private() -> None:
    assert private("from wsi_attention.export.measures import covered") == ["wsi_attention.export.measures: covered"]
    assert private("from wsi_attention.export import covered") == ["wsi_attention.export: covered"]
    assert private("import wsi_attention.nn.bags") == ["wsi_attention.nn.bags: "]
    assert sum(len(list(imports(path.read_text("utf-8")))) for path in FILES) > 60


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_is_there_and_documented(package: str) -> None:
    module = import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        assert not callable(value) or value.__doc__, f"{package}.{name} has no docstring"
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("room", ROOMS)
def test_no_public_name_is_that_of_a_module_beside_it(room: str) -> None:
    """The module would take the name's place once it is imported."""
    beside = {path.stem for path in (ROOT / room.replace(".", "/")).iterdir()}
    assert beside.isdisjoint(import_module(room).__all__)


def test_importing_public_packages_is_light() -> None:
    heavy = "{'torch', 'openslide', 'tiffslide', 'zarr', 'dask', 'skimage', 'PIL', 'shapely', 'pytest', 'typer'}"
    code = f"import sys, {', '.join(ROOMS)}; print(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
