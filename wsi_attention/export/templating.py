"""Templates of pages, filled in so that no text of a file or a folder can harm them."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from wsi_attention.export.layers import MAPS
from wsi_attention.plain_text import visible
from wsi_attention.structures import error_text

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def environment(package: str = "wsi_attention.export") -> Environment:
    """Return what fills the templates of a package in: every text is escaped, and shown with no harmful character."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
    )
    found.filters |= {"decimals": _decimals, "thousands": _thousands, "distance": _distance, "spread": _spread}
    return found


def template_text(name: str, package: str = "wsi_attention.export") -> str:
    """Return a file beside the templates of a package as it is."""
    return (files(package) / "templates" / name).read_text(encoding="utf-8")


def _decimals(value: float, places: int) -> str:
    return f"{value:.{places}f}"


def _thousands(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")


def _distance(micrometres: float) -> str:
    return f"{micrometres / 1000:.2f} mm" if micrometres >= 1000 else f"{micrometres:.0f} µm"


def _spread(value: float) -> str:
    return error_text(value).strip()


def page_parts(*scripts: str) -> dict[str, object]:
    """Return what every page of the report is made with: style, colour maps, its script, and that script's hash.

    Args:
        scripts: files beside the templates that make the page's script, in order.
    """
    from markupsafe import Markup

    script = '"use strict";\n' + "".join(map(template_text, scripts))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return {
        "maps": MAPS,
        "style": Markup(template_text("report.css")),
        "script": Markup(script),
        "script_hash": f"sha256-{digest}",
    }
