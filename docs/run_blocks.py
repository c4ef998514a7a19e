"""Run every code block of the pages that is in bash or python, in the order of its page.

    python docs/run_blocks.py [PAGE ...]

Each page gets a folder of its own that holds `sample_slides/`. Comments above a block say what the page does not show:

    <!-- before: COMMAND -->    run this first, in that folder
    <!-- not run: REASON -->    the next block is for reading

Blocks in other languages (text, toml, json, groovy …) are for reading too. The first failure ends it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

DOCS = Path(__file__).resolve().parent
RUN = {"bash": ["bash", "-e", "-c"], "python": [sys.executable, "-c"]}
FOR_READING = ("text", "toml", "csv", "json", "groovy", "mermaid", "{toctree}", "{eval-rst}")
PART = re.compile(r"^<!-- (before|not run): (.*?) -->$|^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of a page: its language, its text, the line it begins in, and why it is not run, "" where it is."""

    language: str
    text: str
    line: int
    reason: str = ""


def pages() -> list[Path]:
    """Return all pages that people write, sorted."""
    generated = DOCS / "reference"
    found = [path for path in DOCS.rglob("*.md") if "_build" not in path.parts]
    return sorted(path for path in found if path.parent != generated or path.name in ("index.md", "results.md"))


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page; a command to run before is a block in bash."""
    text, reason = page.read_text(encoding="utf-8"), ""
    for found in PART.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        kind, told, language, inside = found.groups()
        if kind == "before":
            yield Block("bash", told, line)
        elif kind == "not run":
            reason = told
        else:
            yield Block(language, inside, line, reason)
            reason = ""


def run_page(page: Path, folder: Path) -> tuple[int, int]:
    """Run a page's blocks in a folder; return how many ran, and how many say why they do not."""
    (folder / "sample_slides").symlink_to(DOCS.parent / "sample_slides")
    there = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"}
    ran = left = 0
    for block in blocks(page):
        if block.language not in RUN or block.reason:
            left += bool(block.reason)
            continue
        done = subprocess.run(
            [*RUN[block.language], block.text], cwd=folder, env=there, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{page}:{block.line}: status {done.returncode}\n{block.text}\n{done.stdout}\n{done.stderr}")
        ran += 1
    return ran, left


def main() -> None:
    """Run the pages that are named, or all."""
    for page in [Path(one).resolve() for one in sys.argv[1:]] or pages():
        start = time.monotonic()
        with TemporaryDirectory() as folder:
            ran, left = run_page(page, Path(folder))
        if ran or left:
            told = f"{ran} blocks ran in {time.monotonic() - start:.0f} s, {left} say why they do not"
            print(f"{page.relative_to(DOCS)}: {told}", flush=True)


if __name__ == "__main__":
    main()
