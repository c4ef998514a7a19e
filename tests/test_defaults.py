"""One truth once: defaults that rooms share, and sentences that several errors end with, stand in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import wsi_attention
from wsi_attention import defaults

PACKAGE = Path(wsi_attention.__file__).parent
ROOMS = ("cli", "inference", "tiles")
SHARED = {"batch": defaults.BATCH, "limit": defaults.LIMIT}
SENTENCES = (
    "no results here",
    "the same command goes on from there",
    "pause * 2",  # how long a request that failed waits before it is made again
)


def literals(path: Path) -> list[str]:
    """Return the shared arguments and attributes whose default is a number of its own."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        named: list[tuple[str, ast.expr | None]] = []
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args]
            named += [(one.arg, value) for one, value in zip(arguments[::-1], node.args.defaults[::-1], strict=False)]
            named += [(one.arg, value) for one, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            named.append((node.target.id, node.value))
        found += [f"{path}: {name}" for name, value in named if name in SHARED and isinstance(value, ast.Constant)]
    return found


def test_shared_defaults_are_numbers_in_one_file_only() -> None:
    files = [path for room in ROOMS for path in (PACKAGE / room).rglob("*.py")]
    assert [line for path in files for line in literals(path)] == []


def test_a_number_of_its_own_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f(x, batch=3, *, limit=LIMIT): ...\nclass A:\n    limit: float = 1800.0\n")
    assert [line.rpartition(" ")[2] for line in literals(tmp_path / "a.py")] == ["batch", "limit"]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_stands_once(sentence: str) -> None:
    texts = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")]
    assert sum(text.count(sentence) for text in texts) == 1
