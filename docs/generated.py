"""Write the reference from the code: Python, command line, recipes and methods, tables, JSON schemas.

    python docs/generated.py            # into docs/reference; the build of the site does it by itself

What is written is not committed; the pages beside it (`reference/index.md`, `reference/results.md`) are.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from json_schemas import schemas
from typer.cli import get_docs_for_click
from typer.main import get_command

MODULES = ("", "slide", "tiles", "inference", "training", "study", "export", "methods", "nn", "encoders", "viewer")
MODULES += ("testing", "structures", "geometry", "protocols", "options", "plain_text", "errors")
"""Whose `__all__` is public, in the order of the page; "" is the package itself."""


def write_all(folder: Path) -> None:
    """Write all generated pages and schemas into a folder, and nothing where a file is as it should be."""
    (folder / "schemas").mkdir(parents=True, exist_ok=True)
    pages = {
        "python.md": python_page(),
        "command_line.md": command_line_page(),
        "recipes.md": recipes_page(),
        "tables.md": tables_page(),
        "schemas.md": schemas_page(),
    }
    files = {f"schemas/{name}.json": json.dumps(one, indent=2) + "\n" for name, one in schemas().items()}
    for name, text in (pages | files).items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def python_page() -> str:
    """Return the public names of each module, each once: where it is defined first in `MODULES`."""
    parts, known = (
        ["# Python\n\nWhat `__all__` lists is public, and changes only with a line in the changelog.\n"],
        set(),
    )
    for short in MODULES:
        name = f"wsi_attention.{short}" if short else "wsi_attention"
        module = importlib.import_module(name)
        parts.append(f"## {name}\n\n{_first_line(module.__doc__)}\n")
        for one in module.__all__:
            found = getattr(module, one)
            if callable(found) and id(found) not in known:
                known.add(id(found))
                hidden = f"{name}.{one}" in sys.modules  # by a module of the same name
                parts.append(_documented(found.__module__ if hidden else name, one, isinstance(found, type)))
            else:
                parts.append(f"`{one}`\n: {_elsewhere(found)}\n")
    return "\n".join(parts)


def _documented(module: str, name: str, is_class: bool) -> str:
    kind, members = ("autoclass", ":members:\n") if is_class else ("autofunction", "")
    return f"```{{eval-rst}}\n.. {kind}:: {module}.{name}\n{_indented(members)}```\n"


def _indented(text: str) -> str:
    return "".join(f"   {line}\n" for line in text.splitlines())


def _elsewhere(found: object) -> str:
    return "above" if callable(found) else f"`{found!r:.100}`".replace("\n", " ")


def command_line_page() -> str:
    """Return every command with its options, as the command itself knows them."""
    from wsi_attention.cli.app import app

    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=command.make_context("wsi-attention", [], resilient_parsing=True))
    return text.replace("# `wsi-attention`", "# Command line", 1)


def recipes_page() -> str:
    """Return all keys of a recipe, and all options of each method."""
    from wsi_attention import registry
    from wsi_attention.config import Recipe
    from wsi_attention.methods.method import find_method
    from wsi_attention.options import listed

    parts = [RECIPES, _options(listed(Recipe))]
    for name in registry.names(registry.MODELS):
        method = find_method(name)
        parts.append(f"## {name}\n\n{method.summary}\n\n{method.paper}\n\n{_options(method.listed())}")
    return "\n".join(parts)


RECIPES = """# Recipes and methods

A recipe is a TOML file for `wsi-attention train --config FILE`. A dot in a name leads into a table of its own:
`optimiser.learning_rate` is the key `learning_rate` under `[optimiser]`. Options of a method stand under `[model]`.
"""


def _options(options: Iterable[object]) -> str:
    return _table(("option", "default", "kind", "meaning"), (_row(one) for one in options))


def _row(one: object) -> tuple[str, ...]:
    default = "" if one.default is None else f"`{json.dumps(one.default, ensure_ascii=False)}`"
    kind = f"{one.kind}: {one.limits}" if one.limits else one.kind
    source = f" [{one.source}]" if one.source else ""
    return (f"`{one.name}`", default, kind, one.meaning + source)


def tables_page() -> str:
    """Return the columns of the tables that classify writes."""
    from wsi_attention.export.table import TILE_COLUMNS, columns

    return "\n".join(
        [
            "# Columns of the tables\n",
            "## predictions.csv\n",
            _table(("column", "meaning"), ((f"`{one}`", _told(one)) for one in columns(["<class>"]))),
            "## tiles/<slide>.csv\n",
            _table(("column", "meaning"), ((f"`{one}`", TILES[one]) for one in TILE_COLUMNS)),
        ]
    )


def _told(column: str) -> str:
    return COLUMNS[column]


COLUMNS = {
    "slide": "name of the slide in the results folder: its path below the input, without the ending",
    "status": "`done`, `partial` (something is missing, `reason` says what), `no_tissue` or `failed`",
    "label": "the class; `undecided` where a conformal set does not hold exactly one",
    "prob_<class>": "probability of each class, six decimals",
    "set": "classes that cannot be told apart from the right one, joined by `|`; empty where the model has no sets",
    "spread": "standard error of the winning probability, from the choice of tiles; empty where nothing was drawn",
    "unread_mass": "share of the attention on tiles that were not read",
    "certified": "`proof`, a confidence, or `no`; empty unless `--certify` was given",
    "unlike_training": "above 1 for a slide unlike those of the training; empty where the model does not know",
    "tiles_read": "tiles that were read",
    "area_read": "share of the tissue area that these tiles cover",
    "seconds": "how long the slide took, waiting left out",
    "reason": "one line: why the slide is not `done`",
    "notes": "what a reader of a complete result should know, joined by `; `",
}
TILES = {
    "minx": "left edge, level-0 pixels",
    "miny": "upper edge, level-0 pixels",
    "width": "level-0 pixels",
    "height": "level-0 pixels",
    "attention": "attention of the cell that the tile stands for",
    "attention_percentile": "per cent of the map's cells of tissue that are no higher",
    "weight": "share of the tile in the slide's feature",
    "glimpse": "in which look of the model it was read",
    "read": "whether its pixels could be read",
}


def schemas_page() -> str:
    """Return the list of JSON schemas, with the descriptions in them."""
    rows = ((f"[{name}.json](schemas/{name}.json)", one["description"]) for name, one in schemas().items())
    return (
        "# JSON schemas\n\nMade from the code at each build, and tried at each build on what `classify` wrote.\n\n"
        + _table(("schema", "of what"), rows)
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(_cell(one) for one in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


if __name__ == "__main__":
    write_all(Path(__file__).parent / "reference")
