"""axe-core on viewer, report and evaluation in a real browser: findings by severity, and what Tab does not reach.

    python tests/benchmarks/accessibility.py RESULTS [--beside RESULTS] [--pictures FOLDER] [--only STATE …]

RESULTS is a folder that `classify` wrote; its report.html and evaluation/evaluation.html are looked at where they are
there, the report also as that of many slides, two of them open. axe-core is fetched from the npm registry with `npm
pack` unless `--axe` names the file; nothing of it is kept. Each state of the pages is looked at: wide and on a phone of
390 pixels, light and dark, with each panel open. `--pictures` keeps a picture of each. Ends with 1 where a finding is
serious or critical, or an element that can be used cannot be reached with Tab.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from common import table

from wsi_attention.inference.results.page import write_page
from wsi_attention.viewer.content import Content
from wsi_attention.viewer.library import Library
from wsi_attention.viewer.server import Server

AXE = "axe-core@4.14.1"
EVALUATION, MANY = "evaluation/evaluation.html", "report-of-many.html"
GRAVE = ("critical", "serious")
IMPACTS = (*GRAVE, "moderate", "minor")
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}
WIDE = {"viewport": {"width": 1280, "height": 800}}
State = tuple[str, dict[str, Any], Callable[[Any], None]]

USABLE = "a[href], button:not(:disabled), input:not(:disabled), select, textarea, summary, [tabindex='0']"
REACHED = f"""() => [...document.querySelectorAll("{USABLE}")].filter((each) => each.checkVisibility())
    .filter((each) => !each.dataset.reached).map((each) => each.outerHTML.slice(0, 120))"""


def axe_source(given: Path | None) -> str:
    """Return the program of axe-core, fetched with npm unless a file is given."""
    if given:
        return given.read_text(encoding="utf-8")
    with TemporaryDirectory() as folder:
        command = ["npm", "pack", AXE, "--silent", "--pack-destination", folder]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
        [packed] = Path(folder).glob("axe-core-*.tgz")
        with tarfile.open(packed) as archive:
            file = archive.extractfile("package/axe.min.js")
            assert file is not None
            return file.read().decode("utf-8")


def press(*keys: str) -> Callable[[Any], None]:
    """Return a step that presses keys."""

    def step(page: Any) -> None:
        for key in keys:
            page.keyboard.press(key)
            page.wait_for_timeout(300)

    return step


def panel(name: str) -> Callable[[Any], None]:
    """Return a step that opens a panel on a phone."""
    return lambda page: page.get_by_role("button", name=name, exact=True).tap()


def viewer_states(beside: bool) -> Iterator[State]:
    """Yield (name, window, what to do) of the viewer."""
    yield "viewer", WIDE, press()
    yield "viewer-dark", WIDE | {"color_scheme": "dark"}, press()
    yield "viewer-tile", WIDE, press("n")
    yield "viewer-alone", WIDE, press("n", "-", "v")
    yield "viewer-two-slides", WIDE, press("v", "v")
    if beside:
        yield "viewer-two-models", WIDE, press("v", "v", "v")
    yield "viewer-keys", WIDE, press("?")
    yield "viewer-keys-dark", WIDE | {"color_scheme": "dark"}, press("?")
    yield "viewer-phone", PHONE, press()
    for name in ("Slides", "Layers", "Result"):
        yield f"viewer-phone-{name.lower()}", PHONE, panel(name)
        yield f"viewer-phone-{name.lower()}-dark", PHONE | {"color_scheme": "dark"}, panel(name)


def open_two(page: Any) -> None:
    """Open two slides below their rows, and wait until they are as high as their content."""
    for number in range(2):
        page.locator("a.card-of").nth(number).click()
        page.locator("tr.card").nth(number).locator("iframe[style*=height]").wait_for()


def page_states(name: str, step: Callable[[Any], None]) -> Iterator[State]:
    """Yield (name, window, what to do) of a page: wide and on a phone, light and dark."""
    for size, window in (("", WIDE), ("-phone", PHONE)):
        yield f"{name}{size}", window, step
        yield f"{name}{size}-dark", window | {"color_scheme": "dark"}, step


def file_states(results: Path, many: Path) -> Iterator[tuple[str, State]]:
    """Yield (address, state) of the pages of a results folder; `many` is where the list of many slides goes."""
    pages = {"report": (results / "report.html", press()), "evaluation": (results / EVALUATION, press())}
    if any(results.glob("report/*.html")):
        pages["cohort"] = (write_page(results, path=many, few=1), open_two)
    for name, (path, step) in pages.items():
        if path.is_file():
            yield from ((path.resolve().as_uri(), state) for state in page_states(name, step))


def settle(page: Any) -> None:
    """Wait until the slides on the screen are sharp, where there are any."""
    page.wait_for_timeout(400)
    for view in page.locator("canvas.view:visible").all():
        page.wait_for_selector(f"#{view.get_attribute('id')}[data-waiting='0']", timeout=300_000)
    page.wait_for_timeout(200)


def unreached(page: Any) -> list[str]:
    """Press Tab through a page and return what can be used but was not reached."""
    for _ in range(int(page.evaluate(f'document.querySelectorAll("{USABLE}").length')) + 5):
        page.keyboard.press("Tab")
        page.evaluate("document.activeElement.dataset.reached = '1'")
    return list(page.evaluate(REACHED))


def looked_at(browser: Any, url: str, state: State, axe: str, pictures: Path | None) -> tuple[Any, list[str]]:
    """Return what axe-core says to a state of a page, and what Tab does not reach there."""
    name, window, step = state
    page = browser.new_context(**window, bypass_csp=True).new_page()
    page.set_default_timeout(300_000)
    page.goto(url)
    if name.startswith("viewer"):
        page.wait_for_selector("body[data-slide]:not([data-slide=''])", timeout=300_000)
    settle(page)
    step(page)
    settle(page)
    if pictures:
        page.screenshot(path=str(pictures / f"{name}.jpg"), type="jpeg", quality=80)
    for frame in page.frames:
        frame.evaluate(f"{axe};null")
    said = page.evaluate("axe.run(document, {resultTypes: ['violations'], iframes: true})")
    missed = unreached(page) if name in ("viewer", "report", "evaluation") else []
    page.context.close()
    return said, missed


def row(name: str, said: Any) -> list[str]:
    """Return the cells of a state: how many findings of each severity, which, and how many rules found nothing."""
    found = said["violations"]
    counts = [str(sum(len(one["nodes"]) for one in found if one["impact"] == impact)) for impact in IMPACTS]
    return [name, *counts, str(len(said["passes"])), " ".join(sorted({one["id"] for one in found}))]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--axe", type=Path, help="axe.min.js, instead of fetching it")
    parser.add_argument("--only", nargs="*", default=[""], help="states whose names begin so")
    options = parser.parse_args()
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright

    axe, grave, cells = axe_source(options.axe), 0, []
    content = Content(Library(options.results), Library(options.beside) if options.beside else None)
    with Server(content) as server, sync_playwright() as playwright:
        Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        pages = [(server.page, state) for state in viewer_states(bool(options.beside))]
        pages += file_states(options.results, options.results / MANY)
        for url, state in pages:
            if not state[0].startswith(tuple(options.only)):
                continue
            said, missed = looked_at(browser, url, state, axe, options.pictures)
            cells.append(row(state[0], said))
            print(" ".join(cells[-1]), flush=True)
            grave += sum(one["impact"] in GRAVE for one in said["violations"]) + len(missed)
            for one in said["violations"]:
                print(f"{state[0]}: {one['impact']}: {one['id']}: {one['help']}: {one['nodes'][0]['html'][:160]}")
            for one in missed:
                print(f"{state[0]}: not reached with Tab: {one}")
        browser.close()
        server.shutdown()
    (options.results / MANY).unlink(missing_ok=True)
    content.shelf.close()
    print(table(["state", *IMPACTS, "rules passed", "rules broken"], cells))
    return int(grave > 0)


if __name__ == "__main__":
    sys.exit(main())
