"""Reading slides in real headless Chromium: outlines, side by side, reviews, pictures, keys alone, a phone."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from lesion_slide import BLUE, EXTENT, LESION, assert_close, box_of, pixels_of, prediction_of, write_state
from PIL import Image
from viewer_page import HALF_RAMP, RAMP_END, bare, on_screen, opened, settled

from wsi_attention.slide.slide import open_slide
from wsi_attention.viewer.content import Content
from wsi_attention.viewer.library import Library
from wsi_attention.viewer.server import Server

Serve = Callable[..., Server]
LESION_CLASS = (213, 94, 0)


def shot(page: Any, view: str = "#view") -> np.ndarray:
    settled(page)
    return pixels_of(page.locator(view).screenshot())


def count(pixels: np.ndarray, colour: tuple[int, int, int], reach: int = 30) -> int:
    return int((np.abs(pixels - np.array(colour)).max(axis=-1) <= reach).sum())


def scale_of(page: Any) -> float:
    return float(page.locator("#view").get_attribute("data-scale"))


def where(page: Any, view: str) -> tuple[float, ...]:
    return tuple(float(page.locator(view).get_attribute(f"data-{name}")) for name in ("x", "y", "scale"))


def test_attention_becomes_an_outline_where_a_tile_fills_the_view_and_a_held_key_hides_it(
    results: Path, serve: Serve, page: Any
) -> None:
    opened(page, serve(results))
    bare(page)
    page.locator("#opacity").fill("100")
    page.locator("#show-boxes").uncheck()
    assert count(shot(page), BLUE) < 20  # far away, the lesion lies under its colour
    page.keyboard.press("n")
    near = shot(page)
    left, top, right, bottom = on_screen(page)
    inside = near[round(top) + 6 : round(bottom) - 6, round(left) + 6 : round(right) - 6]
    assert count(inside, BLUE) == inside.shape[0] * inside.shape[1]
    assert_close(box_of(near, RAMP_END, HALF_RAMP), (left - 1.25, top - 1.25, right + 1.25, bottom + 1.25), within=1.5)
    page.keyboard.down("h")
    assert count(shot(page), RAMP_END, HALF_RAMP) == 0
    page.keyboard.up("h")
    assert count(shot(page), RAMP_END, HALF_RAMP) > 100


@pytest.mark.slow
def test_magnification_weights_and_colours_of_class_and_threshold(results: Path, serve: Serve, page: Any) -> None:
    opened(page, serve(results))
    for key, scale, text in (("3", 1.0, "×20 · 0.50 µm/px"), ("2", 0.5, "×10 · 1.00 µm/px"), ("4", 2.0, "×40 · 0.25")):
        page.keyboard.press(key)
        settled(page)
        assert scale_of(page) == scale and text in page.locator(".magnification").first.inner_text()
    assert page.locator("#classes .swatch").first.evaluate("e => getComputedStyle(e).backgroundColor") == (
        f"rgb{LESION_CLASS}"
    )
    page.keyboard.press("0")
    bare(page)
    edges = shot(page)
    left, top, right, bottom = (round(side) for side in on_screen(page))
    middle = edges[(top + bottom) // 2]
    assert count(middle[left - 4 : left + 5][None], (200, 16, 46), 40) >= 3  # the heaviest tile: thick and red
    assert count(edges, (200, 16, 46), 40) < 2.5 * 4 * 2 * (right - left)  # the others are thinner, and darker
    page.keyboard.press("b")
    page.locator("#opacity").fill("100")
    page.locator("#map").select_option("class")
    assert_close(box_of(shot(page), LESION_CLASS, 40), on_screen(page))
    page.locator("#map").select_option("threshold")
    page.locator("#threshold").fill("100")
    assert count(shot(page), LESION_CLASS, 60) > 1000
    assert page.locator("#threshold-text").inner_text() == "71×"  # 0.8 of 88 cells, in two digits


@pytest.mark.slow
def test_a_slide_beside_itself_alone_and_beside_another(
    results: Path, serve: Serve, page: Any, add_named: Callable[[str, float], None]
) -> None:
    add_named("c", 0.4)
    opened(page, serve(results))
    page.locator("#opacity").fill("100")
    page.locator("#beside").select_option("bare")
    page.wait_for_selector("body[data-second='0']")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("+")
    settled(page)
    places = [
        [page.locator(view).get_attribute(f"data-{n}") for n in ("x", "y", "scale")] for view in ("#view", "#view-2")
    ]
    assert_close(tuple(map(float, places[0])), tuple(map(float, places[1])), within=1e-6)
    assert count(shot(page, "#view"), RAMP_END, 20) > 500 and count(shot(page, "#view-2"), RAMP_END, 20) == 0
    assert count(shot(page, "#view-2"), BLUE) > 500
    page.locator("#beside").select_option("slide")
    page.wait_for_selector("body[data-second='2']")
    page.locator("#view-2").focus()
    page.wait_for_selector("#name:has-text('c')")
    assert "c: benign" in page.locator(".called").nth(1).inner_text()
    page.locator("#slides button").first.click()  # the list fills the view that was chosen last
    page.wait_for_selector("body[data-second='0']")
    page.locator("#beside").select_option("")
    settled(page)
    assert page.locator("#view-2").is_hidden() and page.locator("#name").inner_text() == "a"


@pytest.mark.slow
def test_two_models_stand_beside_each_other(results: Path, page: Any) -> None:
    slide, other = results.parent / "slides/a.tif", results.parent / "other"
    with open_slide(slide) as opened_slide:
        made = prediction_of(slide, opened_slide.fingerprint)
    provenance = made.provenance | {"weights_sha256": "cd" * 32}
    write_state(other, "a", slide, replace(made, probabilities=np.array([0.7, 0.3]), provenance=provenance))
    content = Content(Library(results), Library(other))
    with Server(content) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        opened(page, server)
        page.locator("#beside").select_option("model")
        page.wait_for_selector("body[data-second='2']")
        told = page.locator(".called").all_inner_texts()
        assert "lesion 0.900" in told[0] and "abababab" in told[0]
        assert "benign 0.700" in told[1] and "cdcdcdcd" in told[1]
        server.shutdown()
    content.shelf.close()


def test_a_review_with_keys_alone(results: Path, serve: Serve, page: Any) -> None:
    server = serve(results)
    opened(page, server)
    page.keyboard.press("a")
    assert "Enter your name first" in page.locator("#said").inner_text()
    page.keyboard.type("Anna")  # the field has the focus, so these are letters and no keys
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # Agree
    page.wait_for_selector("#said:has-text('Saved in reviews/Anna.csv')")
    page.keyboard.press("d")
    page.wait_for_selector("[data-verdict=disagree][aria-pressed=true]")
    page.keyboard.press("m")
    page.keyboard.type("looks necrotic, ask?")
    page.keyboard.press("Escape")
    page.wait_for_timeout(300)
    path = results / "reviews/Anna.csv"
    assert 'a,disagree,"looks necrotic, ask?",lesion' in path.read_text()
    assert "1 of 1 reviewed" in page.locator("#progress").inner_text()
    opened(page, serve(results))  # another server, as after a restart; its address is another one
    page.locator("#person").fill("anna")
    page.locator("#person").press("Tab")
    assert page.locator("#note").input_value() == "looks necrotic, ask?"
    assert page.locator("[data-verdict=disagree]").get_attribute("aria-pressed") == "true"
    assert "disagreed" in page.locator("#slides").inner_text()
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible() and "hide what lies over the slide" in page.locator("#keys").inner_text()
    page.keyboard.press("d")  # no key but ? works behind the list of keys
    page.keyboard.press("?")
    assert page.locator("#keys").is_hidden()
    assert page.locator("[data-verdict=disagree]").get_attribute("aria-pressed") == "true"


@pytest.mark.slow
def test_a_picture_has_a_scale_bar_and_says_what_it_is_of(results: Path, serve: Serve, page: Any) -> None:
    opened(page, serve(results))
    page.keyboard.press("n")
    settled(page)
    with page.expect_download() as waiting:
        page.keyboard.press("s")
    assert waiting.value.suggested_filename == f"a_x{LESION.x + 128}_y{LESION.y + 128}.png"
    image = Image.open(io.BytesIO(Path(waiting.value.path()).read_bytes()))
    image.load()
    [told] = json.loads(image.text["Description"])
    assert (told["slide"], told["x"], told["y"]) == ("a", LESION.x + 128, LESION.y + 128)
    assert told["weights_sha256"] == "ab" * 32 and told["label"] == "lesion 0.900" and told["date"].endswith("Z")
    canvas = page.locator("#view").bounding_box()
    assert image.width == round(canvas["width"]) and image.height > canvas["height"] + 60
    pixels = np.asarray(image.convert("RGB")).astype(np.int16)
    assert count(pixels, BLUE) > 0.8 * (256 * scale_of(page)) ** 2
    row = pixels[round(canvas["height"]) - 19, : round(canvas["width"])]  # through the scale bar
    assert count(row[None], (28, 32, 38), 12) > 40
    assert count(pixels[round(canvas["height"]) + 2 :], (28, 32, 38), 40) > 300  # the lines of text


@pytest.mark.slow
def test_a_phone_has_the_slide_and_its_panels(results: Path, serve: Serve, page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    opened(page, serve(results))
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("#view").bounding_box()["width"] == 390 and not page.locator("#slides").is_visible()
    for name, part in (("Slides", "#slides"), ("Layers", "#opacity"), ("Result", "#tiles")):
        button = page.get_by_role("button", name=name, exact=True)
        button.click()
        assert page.locator(part).is_visible() and button.get_attribute("aria-expanded") == "true"
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator("#tiles button").first.click()
    settled(page)
    assert not page.locator("#tiles").is_visible() and scale_of(page) > 0.5
    assert EXTENT[0] * scale_of(page) > 390
