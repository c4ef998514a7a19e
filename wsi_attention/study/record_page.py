"""A record as Markdown and as one HTML page that opens anywhere: headings, paragraphs, tables, blocks of code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from wsi_attention.plain_text import visible

STYLE = """
:root { color-scheme: light dark; --ink: #1c2026; --paper: #fff; --line: #dde1e7; --soft: #f3f5f7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --paper: #1c2026; --line: #343a43; --soft: #252a31; } }
body { margin: 2rem auto; max-width: 70rem; padding: 0 1.5rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.8rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top;
  padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { white-space: nowrap; }
pre { background: var(--soft); padding: .8rem; overflow: auto; }
"""


@dataclass(frozen=True)
class Section:
    """A part of the record.

    Attributes:
        title: its heading.
        paragraphs: sentences.
        columns: of its table; empty where it has none.
        rows: of its table.
        code: shown as it is; empty where there is none.
    """

    title: str
    paragraphs: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    code: str = ""


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """Return the record as Markdown."""
    return "\n\n".join([f"# {visible(title)}", *(_markdown(one) for one in sections)]) + "\n"


def as_html(title: str, sections: Sequence[Section]) -> str:
    """Return the record as a page without scripts, links or anything from elsewhere."""
    body = "\n".join(_html(one) for one in sections)
    head = f'<meta charset="utf-8"><title>{_safe(title)}</title><style>{STYLE}</style>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n<h1>{_safe(title)}</h1>\n{body}\n</body></html>\n'
    )


def _markdown(section: Section) -> str:
    parts = [f"## {section.title}", *map(visible, section.paragraphs)]
    if section.columns:
        lines = [_row(section.columns), "|" + "---|" * len(section.columns), *map(_row, section.rows)]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, *([f"```\n{_lines(section.code)}\n```"] if section.code else [])])


def _row(cells: Sequence[str]) -> str:
    safe = (visible(cell).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(safe)} |"


def _html(section: Section) -> str:
    parts = [f"<h2>{_safe(section.title)}</h2>", *(f"<p>{_safe(text)}</p>" for text in section.paragraphs)]
    if section.columns:
        head = "".join(f"<th>{_safe(name)}</th>" for name in section.columns)
        rows = ("".join(f"<td>{_safe(cell)}</td>" for cell in row) for row in section.rows)
        parts.append(f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>")
    return "\n".join([*parts, *([f"<pre>{escape(_lines(section.code))}</pre>"] if section.code else [])])


def _lines(code: str) -> str:
    return "\n".join(map(visible, code.splitlines()))


def _safe(text: str) -> str:
    return escape(visible(text))
