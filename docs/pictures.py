"""Make the pictures of the pages anew: a slide of the report, and the viewer at a lesion, of the sample slides.

    python docs/pictures.py [--results RESULTS]

Writes sample_slides/report.png and sample_slides/viewer.png, 900 px wide. It needs Playwright and Chromium. RESULTS is
a folder that `classify -i sample_slides -m demo` wrote; without it the slides are classified first.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING

from PIL import Image

from wsi_attention import classify
from wsi_attention.viewer.content import Content
from wsi_attention.viewer.library import Library
from wsi_attention.viewer.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

SAMPLES = Path(__file__).resolve().parent.parent / "sample_slides"
WIDE, WIDTH, COLOURS, RARE = 1200, 900, 256, 48
"""Width of the window, that of a picture, how many colours it has, and how many of them are kept for rare ones."""
SLIDE = "sample_03"
PATIENCE = 300_000
"""Milliseconds to wait for a page."""


def palette(shown: Image.Image) -> Image.Image:
    """Return an image with the colours for another: most are frequent ones, the others those far from each other."""
    kinds = ((COLOURS - RARE, Image.Quantize.MEDIANCUT), (RARE, Image.Quantize.MAXCOVERAGE))
    found = [value for count, kind in kinds for value in (shown.quantize(count, kind).getpalette() or [])[: 3 * count]]
    image = Image.new("P", (1, 1))
    image.putpalette(found)
    return image


def keep(page: Page, name: str) -> None:
    """Keep what the window shows as a picture of few colours, those of a narrow ramp among them."""
    shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    small = shown.resize((WIDTH, round(shown.height * WIDTH / shown.width)), Image.Resampling.LANCZOS)
    small.quantize(palette=palette(small), dither=Image.Dither.NONE).save(SAMPLES / name, optimize=True)


def picture_of_report(page: Page, results: Path) -> None:
    """Show one slide of the report, its tools above it."""
    page.goto((results / "report.html").resolve().as_uri())
    page.locator("article", has=page.get_by_role("heading", name=SLIDE, exact=True)).evaluate(
        "each => scrollTo(0, each.getBoundingClientRect().top + scrollY - 80)"
    )
    page.wait_for_timeout(1_000)
    keep(page, "report.png")


def picture_of_viewer(page: Page, results: Path) -> None:
    """Show the heaviest tile of the first slide."""
    with Server(Content(Library(results))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        page.goto(server.page)
        page.wait_for_selector("body[data-slide]:not([data-slide=''])")
        page.keyboard.press("n")
        page.wait_for_timeout(1_000)
        page.wait_for_selector("canvas.view[data-waiting='0']")
        keep(page, "viewer.png")
        server.shutdown()


def main() -> None:
    """Classify where nothing is given, and write both pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, help="results of the sample slides by the model demo")
    given = parser.parse_args().results
    from playwright.sync_api import sync_playwright

    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        results = given or Path(folder)
        if not given:
            classify(SAMPLES, results, "demo")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for height, picture in ((993, picture_of_report), (750, picture_of_viewer)):
            page = browser.new_page(viewport={"width": WIDE, "height": height})
            page.set_default_timeout(PATIENCE)
            picture(page, results)
        browser.close()


if __name__ == "__main__":
    main()
