"""The pages of `docs/`: what their blocks, messages and notebooks promise can be looked at without running them."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def run_blocks() -> ModuleType:
    """The script of `tox run -e docs`, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("run_blocks", DOCS / "run_blocks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks for its types
    spec.loader.exec_module(module)
    return module


def test_every_block_is_run_or_for_reading_or_says_why_not() -> None:
    module = run_blocks()
    found = {page: list(module.blocks(page)) for page in module.pages()}
    odd = [
        f"{page.name}:{one.line}: {one.language or 'no language'}"
        for page, blocks in found.items()
        for one in blocks
        if one.language not in {*module.RUN, *module.FOR_READING} or (one.reason and len(one.reason) < 12)
    ]
    assert not odd, "\n".join(odd)
    fences = sum(len(re.findall(r"^```", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in found)
    before = sum("<!-- before: " in line for page in found for line in page.read_text("utf-8").splitlines())
    assert sum(map(len, found.values())) - before == fences / 2  # none escapes the search
    assert sum(one.language in module.RUN and not one.reason for blocks in found.values() for one in blocks) > 30


def literal_texts() -> str:
    """All texts of the package's code on one line, as they stand there: parts of a message follow each other."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "wsi_attention").rglob("*.py")))
    return re.sub(r"\"\s*\n\s*f?\"", "", code)


def test_the_twenty_messages_of_the_page_are_messages_of_the_code() -> None:
    page = (DOCS / "how-to" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) == 20
    texts = re.sub(r"\{[^{}]*\}", "…", literal_texts())
    for message in messages:
        parts = [part for part in (one.strip(" ;:,.()'") for one in message.split("…")) if len(part) > 3]
        lost = [part for part in parts if part not in texts]
        assert parts, message
        assert not lost, f"{message}: not in the code: {lost}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert any(cell["cell_type"] == "code" for cell in cells)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_the_three_notebooks_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["lazyslide", "look", "train"]
