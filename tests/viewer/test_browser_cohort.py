"""The report of many slides in real headless Chromium, from files: sorted by a class, filtered, slides on demand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lesion_slide import LESION

from wsi_attention.inference.results.export_again import export_again
from wsi_attention.inference.results.page import write_page

SHARES = {"a": 0.9, "c": 0.2, "d # 50 %": 0.6, "e": 0.97, "f": 0.4, "g": 0.5, "h": 0.3}


@pytest.fixture
def cohort(results: Path, page: Any) -> Any:
    """The page of seven slides with a label and one that failed, as of many, open in the browser."""
    list(export_again(results, "report"))
    card, state = (results / "report/a.html").read_bytes(), json.loads((results / "states/a.json").read_text())
    for name, share in SHARES.items():
        row = state["row"] | {"prob_benign": str(1 - share), "prob_lesion": str(share)}
        (results / f"states/{name}.json").write_text(json.dumps(state | {"name": name, "row": row}))
        (results / f"report/{name}.html").write_bytes(card)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(write_page(results, few=3).as_uri())
    yield page
    files = [url for url in asked if not url.startswith("data:")]
    assert files[0] == (results / "report.html").as_uri()
    assert all(url.startswith((results / "report").as_uri()) for url in files[1:])


def names(page: Any) -> list[str]:
    return page.locator("#slides tbody tr:visible th").all_inner_texts()


def test_a_triage_list_of_a_chosen_class(cohort: Any) -> None:
    falling = sorted(SHARES, key=lambda name: -SHARES[name])
    assert names(cohort) == [*falling, "b"]
    cohort.locator("#class").select_option("benign")
    assert names(cohort) == [*falling[::-1], "b"]
    assert cohort.locator("#slides tbody .c-probability").first.inner_text() == "0.800"
    assert cohort.locator("th[data-key=probability]").get_attribute("aria-sort") == "descending"
    cohort.locator("#least").fill("0.65")
    assert names(cohort) == ["c", "h"] and cohort.locator("#shown").inner_text() == "2 of 8"
    cohort.locator("#clear").click()
    cohort.locator("#status").select_option("failed")
    assert names(cohort) == ["b"]


def test_slides_open_below_their_rows_and_few_at_once(cohort: Any) -> None:
    link = cohort.get_by_role("link", name="d # 50 %")
    link.press("Enter")
    frame = cohort.frame_locator("iframe").first
    assert frame.get_by_role("heading", name="a").is_visible() and frame.locator(".tools").is_hidden()
    cohort.locator("iframe[style*=height]").wait_for()
    assert cohort.evaluate("parseFloat(document.querySelector('iframe').style.height)") > 300
    cohort.locator("#map").select_option("grey")
    frame.locator("html[data-map=grey]").wait_for()
    frame.locator("svg.picture").hover(position={"x": 5, "y": 5})
    at = frame.locator("a.to-viewer").get_attribute("href")
    assert at.startswith("http://127.0.0.1:") and "#slide=a&x=" in at and at.endswith("&zoom=0.25")
    heaviest = frame.locator(".tiles a").first.get_attribute("href")
    assert heaviest.endswith(f"&x={LESION.x + LESION.w // 2}&y={LESION.y + LESION.h // 2}&zoom=1")
    for other in set(SHARES) - {"d # 50 %"}:
        cohort.get_by_role("link", name=other, exact=True).click()
    assert cohort.locator("tr.card").count() == 4
    assert link.get_attribute("aria-expanded") == "false"
    cohort.locator("#find").fill("#")
    assert cohort.locator("iframe").count() == 0 and names(cohort) == ["d # 50 %"]


def test_a_slide_far_away_keeps_its_place_and_is_loaded_again(cohort: Any) -> None:
    for number, name in enumerate(sorted(SHARES, key=lambda name: -SHARES[name])[:4]):
        cohort.get_by_role("link", name=name, exact=True).click()
        cohort.locator("tr.card").nth(number).locator("iframe[style*=height]").wait_for()
    high = cohort.evaluate("document.body.scrollHeight")
    first = cohort.locator("tr.card").first
    first.locator("iframe").wait_for(state="detached")
    assert cohort.locator("tr.card").count() == 4 and cohort.locator("iframe").count() < 4
    assert cohort.evaluate("document.body.scrollHeight") == high and first.bounding_box()["height"] > 300
    first.scroll_into_view_if_needed()
    inside = first.frame_locator("iframe")
    inside.get_by_role("heading", name="a").wait_for()
    assert inside.locator(".tools").is_hidden()
