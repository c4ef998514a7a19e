"""Steps on the viewer's page that several tests take, and colours as they are seen there."""

from __future__ import annotations

from typing import Any

from lesion_slide import LESION

from wsi_attention.viewer.server import Server

RAMP_END = (253, 231, 37)
HALF_BLUE, HALF_RAMP = 105, 76
"""Half way from each colour to the pink around it: where an edge that the screen blurs lies."""


def opened(page: Any, server: Server, number: int = 0) -> None:
    page.goto(server.page)
    page.wait_for_selector(f"body[data-slide='{number}']")
    settled(page)


def settled(page: Any) -> None:
    page.wait_for_timeout(80)
    page.wait_for_selector("#view[data-waiting='0']")
    page.wait_for_timeout(60)


def bare(page: Any) -> None:
    """Takes away what floats over the canvas."""
    page.evaluate(
        "document.querySelectorAll('.pane > *:not(.view)').forEach((each) => each.style.visibility = 'hidden')"
    )


def on_screen(page: Any) -> tuple[float, ...]:
    """Left, top, right, bottom of the lesion on the canvas, from where the viewer says it is."""
    x, y, scale = (float(page.locator("#view").get_attribute(f"data-{name}")) for name in ("x", "y", "scale"))
    corners = (LESION.x, LESION.y, LESION.x + LESION.w, LESION.y + LESION.h)
    left, top, right, bottom = ((at - start) * scale for at, start in zip(corners, (x, y, x, y), strict=True))
    return left, top, right, bottom
