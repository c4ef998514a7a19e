"""The viewer in real headless Chromium: it loads and zooms, and what lies over the slide lies on the lesion."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lesion_slide import BLUE, EXTENT, LESION, assert_close, box_of, pixels_of
from viewer_page import HALF_BLUE, HALF_RAMP, RAMP_END, bare, on_screen, opened, settled

from wsi_attention.viewer.server import Server

Serve = Callable[..., Server]


def check_lesion_and_attention(page: Any) -> None:
    page.locator("#opacity").fill("0")
    settled(page)
    assert_close(box_of(pixels_of(page.locator("#view").screenshot()), BLUE, HALF_BLUE), on_screen(page))
    page.locator("#opacity").fill("100")
    settled(page)
    assert_close(box_of(pixels_of(page.locator("#view").screenshot()), RAMP_END, HALF_RAMP), on_screen(page))


def test_slide_and_attention_lie_on_the_lesion_at_every_zoom(results: Path, serve: Serve, page: Any) -> None:
    opened(page, serve(results))
    bare(page)
    page.locator("#show-boxes").uncheck()
    check_lesion_and_attention(page)
    seen = [on_screen(page)]
    for _ in range(3):
        left, top, right, bottom = on_screen(page)
        canvas = page.locator("#view").bounding_box()
        page.mouse.move(canvas["x"] + (left + right) / 2 + 3, canvas["y"] + (top + bottom) / 2 + 5)
        page.mouse.wheel(0, -180)
        settled(page)
        check_lesion_and_attention(page)
        seen.append(on_screen(page))
    widths = [right - left for left, _, right, _ in seen]
    assert all(wide > 1.2 * narrow for narrow, wide in pairwise(widths))


def test_dragging_moves_the_slide_with_the_mouse(results: Path, serve: Serve, page: Any) -> None:
    opened(page, serve(results))
    bare(page)
    page.locator("#show-boxes").uncheck()
    for _ in range(3):
        page.locator("#view").press("+")
    settled(page)
    before = on_screen(page)
    canvas = page.locator("#view").bounding_box()
    x, y = canvas["x"] + 300, canvas["y"] + 300
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 37, y + 21, steps=3)
    page.mouse.up()
    settled(page)
    assert_close(on_screen(page), (before[0] - 37, before[1] + 21, before[2] - 37, before[3] + 21), within=0.01)
    check_lesion_and_attention(page)


def test_the_box_of_a_tile_lies_on_the_lesion_and_tells_its_weight(results: Path, serve: Serve, page: Any) -> None:
    opened(page, serve(results))
    page.locator("#opacity").fill("0")
    page.locator("#tiles button").first.click()
    settled(page)
    left, top, right, bottom = on_screen(page)
    canvas = page.locator("#view").bounding_box()
    page.mouse.move(canvas["x"] + (left + right) / 2, canvas["y"] + (top + bottom) / 2)
    settled(page)
    tip = page.locator("#tip").inner_text()
    assert "1: weight 90.0 %" in tip and f"x {LESION.x}, y {LESION.y}, 256 × 256 px" in tip
    page.mouse.move(canvas["x"] + 5, canvas["y"] + 300)
    settled(page)
    bare(page)
    found = box_of(pixels_of(page.locator("#view").screenshot())[: int(bottom) + 3], (200, 16, 46), reach=8)
    assert_close((found[0], found[3]), (left - 1.25, bottom + 1.25), within=1.5)  # above and right stands the rank
    page.mouse.move(canvas["x"] + (left + right) / 2, canvas["y"] + 10)
    settled(page)
    assert page.locator("#tip").is_hidden()


def test_other_colours_and_tissue_that_was_not_inspected(results: Path, serve: Serve, page: Any) -> None:
    opened(page, serve(results))
    bare(page)
    page.locator("#show-boxes").uncheck()
    page.locator("#opacity").fill("100")
    page.locator("#map").select_option("grey")
    settled(page)
    pixels = pixels_of(page.locator("#view").screenshot())
    assert_close(box_of(pixels, (0, 0, 0), reach=95), on_screen(page))
    page.locator("#opacity").fill("0")
    settled(page)
    plain = pixels_of(page.locator("#view").screenshot())
    page.locator("#show-unseen").check()
    page.wait_for_timeout(300)
    hatched = pixels_of(page.locator("#view").screenshot())
    changed = abs(hatched - plain).max(axis=-1) > 30
    left, top, right, bottom = (round(side) for side in on_screen(page))
    assert not changed[top + 4 : bottom - 4, left + 4 : right - 4].any()  # read, so not hatched
    assert 0.05 < changed[top:bottom, right + 10 : right + 80].mean() < 0.5


def test_keys_fit_and_step_through_the_tiles(results: Path, serve: Serve, page: Any) -> None:
    opened(page, serve(results))
    whole = on_screen(page)
    view = page.locator("#view")
    view.press("n")
    settled(page)
    left, top, right, bottom = on_screen(page)
    canvas = view.bounding_box()
    assert_close(((left + right) / 2, (top + bottom) / 2), (canvas["width"] / 2, canvas["height"] / 2))
    view.press("0")
    settled(page)
    assert_close(on_screen(page), whole, within=0.01)


def test_a_slide_that_has_moved_shows_its_overview_and_says_so(results: Path, serve: Serve, page: Any) -> None:
    from wsi_attention.inference.results.export_again import export_again

    assert list(export_again(results, "report"))
    shutil.move(results.parent / "slides", results.parent / "archive")
    opened(page, serve(results))
    assert "only its overview" in page.locator("#trouble").inner_text()
    assert "--slides" in page.locator("#trouble").inner_text()
    bare(page)
    page.locator("#show-boxes").uncheck()
    page.locator("#opacity").fill("0")
    settled(page)
    assert_close(box_of(pixels_of(page.locator("#view").screenshot()), BLUE, HALF_BLUE), on_screen(page), within=2.5)
    opened(page, serve(results, results.parent / "archive"))
    assert page.locator("#trouble").is_hidden()


def test_names_from_files_are_text(results: Path, serve: Serve, page: Any, add_named: Any) -> None:
    name = "<img src=x onerror=alert(1)>"
    add_named(name, 0.7)
    server = serve(results)
    opened(page, server)
    page.get_by_role("button", name="<img").click()
    page.wait_for_selector("#name:has-text('<img src=x onerror=alert(1)>')")
    assert page.locator("#slides img, #name img").count() == 0


def test_the_list_finds_and_failed_slides_cannot_be_chosen(results: Path, serve: Serve, page: Any) -> None:
    opened(page, serve(results))
    assert page.get_by_role("button", name="b failed").is_disabled()
    page.locator("#find").fill("fail")
    assert page.locator("#slides li:visible").count() == 1
    assert EXTENT[0] > EXTENT[1]  # the slide is wider than high: rows and columns cannot be mixed up unseen


def middle(page: Any) -> tuple[float, ...]:
    """The level-0 pixel in the middle of the view, and screen pixels per level-0 pixel."""
    x, y, scale = (float(page.locator("#view").get_attribute(f"data-{name}")) for name in ("x", "y", "scale"))
    canvas = page.locator("#view").bounding_box()
    return x + canvas["width"] / 2 / scale, y + canvas["height"] / 2 / scale, scale


def test_a_link_opens_a_slide_at_a_place_and_the_address_is_such_a_link(
    results: Path, serve: Serve, page: Any, add_named: Any
) -> None:
    name = "50 % & more+#1"
    add_named(name, 0.7)
    server = serve(results)
    link = f"{server.url}#slide={quote(name)}&x=2000&y=1500&zoom=2"
    page.goto(link)
    page.wait_for_selector("body[data-slide='0']")
    assert page.locator("#name").inner_text() == name
    assert_close(middle(page), (2000, 1500, 2), within=1e-6)
    page.evaluate("location.hash = 'slide=a&x=700&y=800'")
    page.wait_for_selector("body[data-slide='1']")
    assert_close(middle(page), (700, 800, 1), within=1e-6)
    page.keyboard.press("Tab")
    page.locator("#view").press("ArrowRight")
    page.wait_for_url("**/#slide=a&x=780&y=800&zoom=1")
    page.evaluate("location.hash = 'slide=gone'")
    page.wait_for_selector("#trouble:has-text('no result of a slide named gone')")
    assert page.locator("#name").inner_text() == "a"
