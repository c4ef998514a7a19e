"""What PyPI shows of the README: every link and picture has a host, and nothing else is changed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from long_description import absolute

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "https://host/lab/wsi/blob/v1.2.0"


def test_links_and_pictures_of_the_readme_have_a_host() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    made = absolute(text, REPOSITORY + "/")
    targets = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", made)
    assert {sign for sign, _ in targets} == {"", "!"}
    for sign, target in targets:
        kind, _, path = target.removeprefix("https://host/lab/wsi/").partition("/v1.2.0/")
        assert kind == ("raw" if sign else "blob"), target
        assert (ROOT / path.partition("#")[0]).exists(), target
    assert made.replace(REPOSITORY + "/", "").replace(REPOSITORY.replace("blob", "raw") + "/", "") == text


def test_addresses_and_places_on_the_page_stay() -> None:
    text = "[a](https://x/y), [b](#there), [c](docs/a.md#b), `[d]` and ![e](p.png)"
    assert absolute(text, REPOSITORY) == (
        f"[a](https://x/y), [b](#there), [c]({REPOSITORY}/docs/a.md#b), `[d]` and ![e](https://host/lab/wsi/raw/v1.2.0/p.png)"
    )
