"""Accessibility of pages by axe-core, in a real browser: findings of every impact, light, dark and on a phone.

    npm install --prefix FOLDER axe-core
    python tests/benchmarks/report_accessibility.py --axe FOLDER/node_modules/axe-core/axe.min.js PAGE [PAGE ...]

A page is a file, or an address such as that of `wsi-attention view`. Slides that open on demand are opened first, two
of them. Prints each finding with its rule, impact and first place; exit status 1 where one is serious or critical.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SIZES = {"desk": (1280, 900), "phone": (390, 844)}
SERIOUS = ("serious", "critical")


def findings(browser: Any, address: str, axe: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(how the page was shown, a rule that it breaks)."""
    for size, (width, height) in SIZES.items():
        for scheme in ("light", "dark"):
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme, bypass_csp=True
            )
            context.set_default_timeout(300_000)
            page = context.new_page()
            page.goto(address)
            for link in page.locator("a.card-of").all()[:2]:
                link.click()
            page.wait_for_timeout(1_500)
            for frame in page.frames:
                frame.evaluate(axe)
            for one in page.evaluate("async () => (await axe.run(document, { iframes: true })).violations"):
                yield f"{size}, {scheme}", one
            context.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pages", nargs="+", help="files or addresses")
    parser.add_argument("--axe", type=Path, required=True, help="axe.min.js of the package axe-core")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    axe, serious = options.axe.read_text(encoding="utf-8"), 0
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for page in options.pages:
            address = page if "://" in page else Path(page).resolve().as_uri()
            for shown, one in findings(browser, address, axe):
                serious += one["impact"] in SERIOUS
                places = one["nodes"]
                print(
                    f"{page}, {shown}: {one['impact']}: {one['id']} at {len(places)} places: {places[0]['html'][:160]}"
                )
        browser.close()
    print(f"{serious} serious or critical findings")
    sys.exit(bool(serious))


if __name__ == "__main__":
    main()
