"""What notebooks show: self-contained HTML, everything escaped, pixels of the classified slide alone."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsi_attention import Classifier, Prediction, View, load_model, open_slide, predict
from wsi_attention.export.legend import Frame
from wsi_attention.testing import SlideSpec, example_prediction, write_slide
from wsi_attention.testing.exporters import EXAMPLES

NASTY = "<script>alert('x')</script>\u202e\" onload=\"y"
TAGS = {"div", "style", "p", "b", "dl", "dt", "dd", "span", "i", "img", "ul", "li"}


class Page(HTMLParser):
    """The tags, texts and pictures of a piece of HTML; every tag that opens must close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.pictures: list[Image.Image] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []
        assert self.tags <= TAGS

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert {name for name, _ in attrs} <= {"class", "style", "src", "alt"}
        if tag != "img":
            self._open.append(tag)
            return
        kind, _, raw = str(dict(attrs)["src"]).partition(",")
        assert kind == "data:image/jpeg;base64"
        self.pictures.append(Image.open(io.BytesIO(base64.b64decode(raw, validate=True))))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "a & b <i>.svs"
    write_slide(path, SlideSpec(size=(3072, 2560), seed=3))
    return path


@pytest.fixture(scope="module")
def demo() -> Classifier:
    return load_model("demo")


@pytest.fixture(scope="module")
def prediction(slide: Path, demo: Classifier) -> Prediction:
    return predict(slide, demo, device="cpu")


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_kind_of_prediction_is_shown(kind: str) -> None:
    prediction = example_prediction(kind=kind)
    page = Page(prediction._repr_html_())
    assert prediction.verdict in page.text
    assert all(name in page.text for name in prediction.classes)
    assert len(page.pictures) == 1
    assert "the slide is not at its path, or has changed" in page.text
    assert ("Demonstration model: the label means nothing" in page.text) == (kind == "demonstration")


def test_a_prediction_shows_its_slide(prediction: Prediction) -> None:
    page = Page(prediction._repr_html_())
    assert "over the slide." in page.text
    assert prediction.slide in page.text
    assert "Demonstration model: the label means nothing on real tissue." in page.text
    alone = Page(replace(prediction, slide="gone.svs")._repr_html_())
    assert difference(page.pictures[0], prediction) < 16 < difference(alone.pictures[0], prediction)


def difference(picture: Image.Image, prediction: Prediction) -> float:
    """Median difference, of 255, between the slide's darkest tenth and the same places of a picture of it."""
    frame = Frame.around(prediction.extent)
    (x, y), (w, h) = frame.origin, frame.slide
    with open_slide(prediction.slide) as opened:
        overview = View(opened, max(opened.dimensions) / 800).read_whole()
    expected = np.asarray(Image.fromarray(overview).resize((w // 8, h // 8), Image.Resampling.BOX), np.float64)
    shown = np.asarray(picture.crop((x, y, x + w, y + h)).resize((w // 8, h // 8), Image.Resampling.BOX), np.float64)
    dark = expected.mean(-1) <= np.quantile(expected.mean(-1), 0.1)
    return float(np.median(np.abs(expected - shown)[dark]))


@pytest.mark.parametrize("changed", [{"fingerprint": "0" * 64}, {"reader": "nope"}, {"series": "7"}])
def test_pixels_of_another_slide_are_not_shown(prediction: Prediction, changed: dict[str, str]) -> None:
    other = replace(prediction, provenance={**prediction.provenance, **changed})
    assert "the slide is not at its path, or has changed" in Page(other._repr_html_()).text


def test_a_slide_that_was_exchanged_is_not_shown(tmp_path: Path, slide: Path, prediction: Prediction) -> None:
    other = tmp_path / "a.svs"
    other.write_bytes(slide.read_bytes())
    assert "over the slide." in Page(replace(prediction, slide=str(other))._repr_html_()).text
    write_slide(other, SlideSpec(size=(3072, 2560), seed=4))
    assert "over the slide." not in Page(replace(prediction, slide=str(other))._repr_html_()).text


def test_no_server_is_asked_for_a_prediction(prediction: Prediction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_attention.notebook.open_slide", lambda *_, **__: pytest.fail("opened"))
    assert Page(replace(prediction, slide="https://host.invalid/a.svs")._repr_html_()).pictures


def test_everything_is_escaped(prediction: Prediction, demo: Classifier) -> None:
    classes = (NASTY, *prediction.classes[1:])
    nasty = replace(prediction, slide=NASTY, classes=classes, notes=(NASTY,), shortfalls=(NASTY,), purpose=NASTY)
    page = Page(nasty._repr_html_())
    assert "\u202e" not in page.text
    assert page.text.count("<script>alert('x')</script>\\u202e\" onload=\"y") >= 4
    model = replace(demo, classes=classes, name=NASTY, config={**demo.config, "method": NASTY, "purpose": NASTY})
    assert "script" not in Page(model._repr_html_()).tags


def test_a_slide_shows_itself_open_or_closed(slide: Path) -> None:
    with open_slide(slide) as opened:
        first = opened._repr_html_()
        assert opened.levels_compared is False
        assert opened.read((0, 0), 0, (8, 8)).shape == (8, 8, 3)
    page = Page(first)
    w, h = opened.dimensions
    assert all(text in page.text for text in (str(slide), f"{w:,} × {h:,} pixels", "µm/px", opened.reader))
    picture = page.pictures[0]
    assert abs(picture.width / picture.height - w / h) < 0.02
    assert opened._repr_html_() == first


def test_a_slide_of_pixels_without_scale_shows_itself() -> None:
    page = Page(open_slide(np.full((64, 96, 3), 200, np.uint8))._repr_html_())
    assert page.pictures[0].size == (96, 64)
    assert "scaleunknown" in page.text.replace("\n", "")


def test_a_slide_that_is_gone_says_so(tmp_path: Path, slide: Path) -> None:
    path = tmp_path / "a.svs"
    path.write_bytes(slide.read_bytes())
    with open_slide(path) as opened:
        pass
    path.unlink()
    page = Page(opened._repr_html_())
    assert not page.pictures
    assert "No picture: " in page.text


def test_a_slide_without_small_levels_is_not_read_whole(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_attention.notebook.AFFORDABLE", 100)
    with open_slide(slide) as opened:
        page = Page(opened._repr_html_())
    assert not page.pictures
    assert "every level is too large" in page.text


def test_a_model_shows_what_it_knows_and_is_for(demo: Classifier) -> None:
    text = Page(demo._repr_html_()).text
    assert all(part in text for part in ("Model demo", "ats", *demo.classes, "1 µm/px", demo.weights_sha256[:16]))
    assert "Demonstration model: the label means nothing on real tissue." in text
    made = Classifier(demo.model, demo.classes, {}, "0" * 64, "mine")
    assert "in memory" in Page(made._repr_html_()).text
    assert "emonstration" not in Page(made._repr_html_()).text


def test_reprs_fit_on_a_screen(prediction: Prediction, demo: Classifier) -> None:
    many = replace(demo, classes=tuple(f"class number {i}" for i in range(500)))
    glimpse = prediction.glimpses[0]
    values = [prediction, demo, many, prediction.tissue, prediction.maps[0], glimpse, glimpse.tiles]
    values += [open_slide(np.zeros((64, 64, 3), np.uint8))]
    values += [
        value for kind in EXAMPLES for value in (example_prediction(kind=kind), *example_prediction(kind=kind).maps)
    ]
    for value in values:
        text = repr(value)
        assert text.startswith(type(value).__name__ + "(")
        assert text.endswith(")")
        assert len(text) < 400
        assert "array(" not in text
        assert "\n" not in text
    assert "nothing on real tissue" in repr(demo)
    assert "(500 in all)" in repr(many)
    assert repr(glimpse.tiles) == f"TileSet({len(glimpse.tiles)} tiles of 128×128 pixels at downsample 2)"
