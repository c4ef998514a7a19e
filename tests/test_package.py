"""What an installation pulls in: a named set, nothing that only a plugin needs, and every plugin stands beside it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = {
    "dask", "fsspec", "imagecodecs", "jinja2", "lightning-fabric", "markupsafe", "numcodecs", "numpy", "openslide-bin",
    "openslide-python", "pillow", "rich", "safetensors", "scikit-image", "scipy", "shapely", "tifffile", "tiffslide",
    "torch", "typer", "zarr",
}  # fmt: skip
EXTRAS = {
    "azure": {"adlfs"},
    "cluster": {"distributed"},
    "encoders": {"huggingface-hub", "timm"},
    "fast-zarr": {"tensorstore"},
    "features": {"h5py"},
    "geopandas": {"geopandas", "pandas"},
    "int8": {"nncf", "openvino"},
    "lazyslide": {"pyarrow"},
    "openvino": {"openvino"},
    "pandas": {"pandas"},
    "remote": {"aiohttp", "gcsfs", "s3fs"},
    "slurm": {"dask-jobqueue", "distributed"},
    "transformers": {"huggingface-hub", "transformers"},
}
"""A package joins here with a reason in the change that adds it."""
OPTIONAL = {name.replace("-", "_") for needed in EXTRAS.values() for name in needed} | {"botocore", "torchvision"}
PLUGINS = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))


def project_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def named(requirements: list[str]) -> set[str]:
    return {re.split(r"[\s\[<>=!~;@]", one, maxsplit=1)[0].lower().replace("_", "-") for one in requirements}


@cache
def imported_by(folder: Path) -> set[str]:
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"_typeshed"}  # there for type checkers alone


def test_the_core_needs_what_it_says_and_no_more() -> None:
    project = project_of(ROOT)
    assert named(project["dependencies"]) == CORE
    extras = project["optional-dependencies"]
    assert {extra: named(needed) for extra, needed in extras.items() if extra != "all"} == EXTRAS
    assert extras["all"] == [f"wsi-attention[{','.join(sorted(EXTRAS))}]"]


def test_the_version_stands_in_one_place() -> None:
    """The package's, its wheel's and what the commands print; a citation names none that could be another."""
    project = project_of(ROOT)
    assert project["dynamic"] == ["version"]
    assert "version" not in project
    assert not re.search(r"^version:", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_core_imports_no_package_beyond_those() -> None:
    called = {"pillow": "PIL", "openslide-python": "openslide", "scikit-image": "skimage"}
    allowed = {called.get(name, name).replace("-", "_") for name in CORE} | OPTIONAL | {"wsi_attention"}
    assert imported_by(ROOT / "wsi_attention") <= allowed


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_plugin_is_a_package_of_its_own(folder: Path) -> None:
    """It needs the core, the core does not know it, and its import name cannot be taken for another's."""
    project = project_of(folder)
    assert "wsi-attention" in named(project["dependencies"])
    assert "wsi-attention" in project["name"]
    module = f"wsi_attention_{folder.name}"
    assert (folder / module / "__init__.py").is_file()
    assert module not in imported_by(ROOT / "wsi_attention")


def test_the_table_of_plugins_is_whole() -> None:
    """Every folder under plugins/ has a page of its own, and a row that leads to it."""
    table = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
    for folder in sorted(path for path in (ROOT / "plugins").iterdir() if path.is_dir() and any(path.glob("[!_.]*"))):
        if not (folder / "README.md").is_file():
            continue
        assert f"]({folder.name}/" in table, f"{folder.name} is missing from plugins/README.md"
    for target in re.findall(r"\]\(([^)#]+)\)", table):
        assert target.startswith("http") or (ROOT / "plugins" / target).exists(), target


def test_every_module_that_is_imported_without_an_extra_imports_without_it() -> None:
    """Only `worker_plugin` stands on an extra as a whole; all others import one inside the function that needs it."""
    extras = sorted(OPTIONAL - {"_typeshed"})
    needs_cluster = "wsi_attention.inference.cluster.worker_plugin"
    code = f"""
import importlib, pkgutil, sys
for name in {extras!r}:
    sys.modules[name] = None  # importing it is an ImportError then, as where it is not installed
import wsi_attention
failed = []
for one in pkgutil.walk_packages(wsi_attention.__path__, "wsi_attention."):
    if one.name != {needs_cluster!r} and not one.name.endswith("__main__"):
        try:
            importlib.import_module(one.name)
        except ImportError as error:
            failed.append((one.name, str(error)))
print(failed)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
