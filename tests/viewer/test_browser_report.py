"""report.html in real headless Chromium, from a file: nothing is fetched, it sorts, attention is on the lesion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lesion_slide import BLUE, EXTENT, LESION, assert_close, box_of, pixels_of

from wsi_attention.inference.results.export_again import export_again
from wsi_attention.inference.results.page import write_page

RAMP_END = (253, 231, 37)
HOSTILE = "<script>alert(1)<／script><img src=x onerror=alert(2)>\"'`{{7*7}}"


@pytest.fixture
def report(results: Path, page: Any, add_named: Callable[[str, float], None]) -> Any:
    """The page of three slides with a label and one that failed, open in the browser."""
    add_named("c", 0.2)
    add_named(HOSTILE, 0.6)
    list(export_again(results, "report"))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(write_page(results).as_uri())
    yield page
    assert [url for url in asked if not url.startswith("data:")] == [(results / "report.html").as_uri()]


def names(report: Any) -> list[str]:
    return report.locator("#slides tbody tr:visible th").all_inner_texts()


def test_sorts_by_number_and_text_both_ways_and_leaves_the_empty_last(report: Any) -> None:
    report.get_by_role("button", name="Probability").click()
    assert names(report) == [HOSTILE, "c", "a", "b"]
    assert report.locator("th[data-key=probability]").get_attribute("aria-sort") == "ascending"
    report.get_by_role("button", name="Probability").click()
    assert names(report) == ["a", "c", HOSTILE, "b"]
    report.get_by_role("button", name="Slide", exact=False).first.click()
    assert names(report) == [HOSTILE, "a", "b", "c"]
    assert report.locator("th[data-key=probability]").get_attribute("aria-sort") == "none"


def test_finds(report: Any) -> None:
    report.locator("#find").fill("truncated")
    assert names(report) == ["b"]
    report.locator("#find").fill("no such slide")
    assert names(report) == [] and report.locator("#none").is_visible()


def test_names_and_notes_are_text(report: Any) -> None:
    assert report.locator("article h2").first.inner_text() == HOSTILE
    assert report.locator("img[src=x], svg script").count() == 0
    assert report.locator("script").count() == 1


@pytest.mark.parametrize("width", [1280, 800])
def test_attention_lies_on_the_lesion(report: Any, width: int) -> None:
    report.set_viewport_size({"width": width, "height": 1000})
    picture = report.locator("article", has=report.get_by_role("heading", name="a", exact=True)).locator("svg.picture")
    picture.scroll_into_view_if_needed()
    report.evaluate("document.querySelector('.tools').style.position = 'static'")
    report.locator("#show-tiles").uncheck()
    report.locator("#show-unseen").uncheck()
    report.locator("#opacity").fill("0")
    slide = pixels_of(picture.screenshot())
    report.locator("#opacity").fill("100")
    attention = pixels_of(picture.screenshot())
    scale = min(slide.shape[1] / EXTENT[0], slide.shape[0] / EXTENT[1])
    left, top = (slide.shape[1] - EXTENT[0] * scale) / 2, (slide.shape[0] - EXTENT[1] * scale) / 2
    ends = (LESION.x, LESION.y, LESION.x + LESION.w, LESION.y + LESION.h)
    expected = tuple(start + end * scale for start, end in zip((left, top, left, top), ends, strict=True))
    assert_close(box_of(attention, RAMP_END, 76), expected, within=1.5)
    above_the_scale_bar = slide[: int(0.8 * slide.shape[0])]
    assert_close(box_of(above_the_scale_bar, BLUE, 105), expected, within=1.5)


def test_colours_and_layers_follow_the_controls(report: Any) -> None:
    picture = report.locator("svg.picture").first
    report.locator("#map").select_option("grey")
    report.locator("#opacity").fill("100")
    report.locator("#show-tiles").uncheck()
    report.locator("#show-unseen").uncheck()
    picture.scroll_into_view_if_needed()
    box_of(pixels_of(picture.screenshot()), (0, 0, 0), 20)  # raises where nothing is black
    assert report.locator(".boxes").first.is_hidden() and report.locator("g.unseen").first.is_hidden()


def test_a_tile_can_be_seen_larger(report: Any) -> None:
    report.locator("button.tile").first.click()
    assert report.locator("#closer img").is_visible()
    assert f"x {LESION.x}, y {LESION.y} px" in report.locator("#closer p").inner_text()
    report.get_by_role("button", name="Close").click()
    assert report.locator("#closer").is_hidden()


def test_prints_in_light_colours_without_controls(report: Any) -> None:
    report.emulate_media(media="print", color_scheme="dark")
    assert report.locator(".tools").is_hidden()
    assert report.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
