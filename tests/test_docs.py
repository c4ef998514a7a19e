"""What the documents and docstrings point to is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "wsi_attention").rglob("*.py"))
CITED = re.compile(r"docs/methods/(\w+)\.md((?:,? (?:and )?§\d+(?:\.\d+)?)+)")
NO_VERB = re.compile("[^A-Z].*|.*('s|,|:)|A|An|The|Whether|What|Where|Why|How|As|That|All|Each|Every|Some|Nothing.?")
THIRD_PERSON = re.compile(
    "Adds|Allows|Answers|Applies|Asks|Averages|Begins|Brings|Builds|Calls|Changes|Charges|Checks|Chooses|Closes|"
    "Collects|Compares|Computes|Converts|Copies|Counts|Creates|Cuts|Decides|Decodes|Deletes|Describes|Does|Draws|Drops|"
    "Ends|Estimates|Fetches|Fills|Finds|Follows|Forgets|Gives|Goes|Holds|Joins|Judges|Keeps|Lays|Leaves|Lets|Lists|"
    "Loads|Looks|Makes|Maps|Marks|Moves|Names|Notes|Opens|Paints|Passes|Prepares|Prints|Puts|Raises|Reads|Refuses|"
    "Releases|Removes|Renames|Replaces|Returns|Runs|Saves|Says|Sends|Sets|Shows|Splits|Starts|Stops|Takes|Tells|Tests|"
    "Tidies|Trains|Tries|Turns|Updates|Validates|Waits|Wraps|Writes|Yields"
)
KINDS = ("added", "changed", "fixed", "removed")


def headings(page: Path) -> set[str]:
    """The numbers of a page's headings, "2" and "2.1"."""
    return set(re.findall(r"^#+ (\d+(?:\.\d+)?) ", page.read_text(encoding="utf-8"), re.MULTILINE))


def texts(path: Path) -> Iterator[str]:
    """Every text in a module: docstrings, messages, what options say."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "§" in node.value:
            yield " ".join(node.value.split())


def test_every_cited_section_is_a_heading_of_the_page() -> None:
    wrong, cited = [], 0
    for path in MODULES:
        for text in texts(path):
            rest = CITED.sub("", text)
            if "§" in rest:
                wrong.append(f"{path.relative_to(ROOT)}: § of no page: {rest[max(0, rest.index('§') - 40) :][:60]}")
            for page, sections in CITED.findall(text):
                known = headings(ROOT / "docs" / "methods" / f"{page}.md")
                numbers = re.findall(r"§(\d+(?:\.\d+)?)", sections)
                cited += len(numbers)
                wrong += [f"{path.relative_to(ROOT)}: {page}.md has no §{one}" for one in numbers if one not in known]
    assert not wrong, "\n".join(wrong)
    assert cited > 20


def functions(path: Path) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    """Functions and methods with a docstring, and its first word; properties, like attributes, begin with a noun."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (told := ast.get_docstring(node)):
            marks = {ast.unparse(mark) for mark in node.decorator_list}
            if not marks & {"property", "once"}:
                yield node, told.split()[0]


def test_docstrings_of_functions_begin_with_a_verb_in_the_imperative() -> None:
    told = [(path, node, word) for path in MODULES for node, word in functions(path)]
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} begins with {word!r}"
        for path, node, word in told
        if NO_VERB.fullmatch(word) or THIRD_PERSON.fullmatch(word)
    ]
    assert not wrong, "\n".join(wrong)
    assert len(told) > 1000


GENERATED = {
    ROOT / "docs/reference" / name
    for name in re.findall(r'"(\w+\.md)": \w+_page', (ROOT / "docs/generated.py").read_text())
}
"""Pages that are there when the site is built."""


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "plugins").glob("*.md")])
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not re.match(r"[a-z]+:", target):
            place = (page.parent / target).resolve()
            assert place in GENERATED or place.exists(), f"{page.name} links to {target}"
    for named in re.findall(r"`((?:wsi_attention|tests|plugins|docs|changes)/[\w./-]+)`", text):
        assert (ROOT / named).exists(), f"{page.name} names {named}"


def test_fragments_of_the_changelog_are_named_as_they_should_be() -> None:
    for path in (ROOT / "changes").iterdir():
        name = re.fullmatch(r"(\d+|\+[\w-]+)\.(\w+)(\.\d+)?\.md", path.name)
        assert path.name == "README.md" or (name and name[2] in KINDS and path.read_text().strip()), path.name
