"""Two results folders side by side: numbers go on, the same slide is found by its content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from wsi_attention.errors import InputError
from wsi_attention.viewer.content import Content
from wsi_attention.viewer.library import Library
from wsi_attention.viewer.shelf import Shelf


@pytest.fixture
def other(results: Path) -> Path:
    """Results of another model: the same slide under another name first, then under the same, then one of its own."""
    made = results.parent / "other"
    for name, fingerprint in (("0", None), ("a", None), ("z", "ff" * 32)):
        path = made / "states" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        state = json.loads((results / "states/a.json").read_text()) | {"name": name}
        if fingerprint:
            state["slide"]["fingerprint"] = fingerprint
        path.write_text(json.dumps(state))
    return made


def test_numbers_go_on_and_twins_have_the_same_content(results: Path, other: Path) -> None:
    shelf = Shelf([Library(results), Library(other)])
    assert [state.name for state in shelf.states] == ["a", "b", "0", "a", "z"]
    assert shelf.state(3).name == "a" and shelf.at(3)[0].results == other
    assert shelf.twins() == {0: 3}
    (other / "states/a.json").unlink()
    shelf = Shelf([Library(results), Library(other)])
    assert shelf.twins() == {0: 2}  # another name, the same content
    for number in (-1, 4):
        with pytest.raises(InputError, match=f"slide {number} was asked; there are 0 to 3"):
            shelf.state(number)


def test_a_review_goes_to_the_folder_of_its_slide(results: Path, other: Path) -> None:
    content = Content(Library(results), Library(other))
    listed = json.loads(content.slides())
    assert [one["twin"] for one in listed["slides"]] == [3, None] and listed["beside"] == ["other"]
    asked = {"person": "Anna", "number": 3, "verdict": "disagree", "note": "", "x": 1, "y": 2, "zoom": 1}
    content.say(asked)
    assert (other / "reviews/Anna.csv").exists() and not (results / "reviews").exists()
    assert json.loads(content.said())["people"]["Anna"].keys() == {"3"}
    content.shelf.close()


def test_the_picture_of_a_tile_is_of_the_slide_or_of_the_report(results: Path) -> None:
    import io

    import numpy as np
    from lesion_slide import BLUE
    from PIL import Image

    from wsi_attention.inference.results.export_again import export_again

    assert list(export_again(results, "report"))
    for moved in (False, True):
        if moved:
            shutil.move(results.parent / "slides", results.parent / "gone")
        content = Content(Library(results))
        picture = content.picture(0, 1)
        assert picture is not None
        pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
        assert abs(pixels.mean(axis=(0, 1)) - BLUE).max() < 12 and content.picture(0, 9) is None
        content.shelf.close()
