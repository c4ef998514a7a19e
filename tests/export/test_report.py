"""A slide's part of the report, and the page made of parts."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsi_attention.export.layers import MAPS, STEPS, attention_layer, boxes, unseen_layer
from wsi_attention.export.measures import above_average, main_map, read_boxes
from wsi_attention.export.report import LARGE, ReportExporter, shown_boxes, shown_downsample
from wsi_attention.export.report_page import page
from wsi_attention.export.report_part import DATA, END, TOP, is_whole, read_part
from wsi_attention.export.report_rows import Row
from wsi_attention.export.report_section import VIEWER, Section
from wsi_attention.testing.exporters import EXAMPLES, ExporterContract, example_prediction

HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class TestContract(ExporterContract):
    exporter = ReportExporter()


def written(tmp_path: Path, kind: str = "usual", **pixels: Any) -> Path:
    path = tmp_path / "part.html"
    ReportExporter()(example_prediction(kind=kind), path, **pixels)
    return path


def values_in(path: Path) -> dict[str, Any]:
    """What a slide's page says besides its pictures."""
    found: dict[str, Any] = json.loads(path.read_text().partition(DATA)[2].partition("</script>")[0])
    return found


def put(path: Path, values: dict[str, Any]) -> None:
    before, _, after = path.read_text().partition(DATA)
    path.write_text(
        before + DATA + json.dumps(values).replace("<", "\\u003c") + "</script>" + after.partition("</script>")[2]
    )


def picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def rendered(path: Path, name: str = "a", **more: Any) -> str:
    part = read_part(path)
    assert part is not None
    row = Row(1, name, "done", part["label"], 0.5, 0.1, 3, 0.2, more.get("reason", ""), True)
    return "".join(page([row], [Section(row, part)], more.get("about", [])))


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_kind_becomes_a_page(tmp_path: Path, kind: str) -> None:
    text = rendered(written(tmp_path, kind))
    assert text.count("<article") == 1 and text.endswith("</html>")
    assert "not calibrated" in text and "Research use only" in text


def test_pictures_are_bounded_and_tiles_keep_their_order(tmp_path: Path) -> None:
    prediction = example_prediction()
    overview = np.full((2000, 2500, 3), 200, np.uint8)
    tiles = [np.full((64, 64, 3), 40 * rank, np.uint8) for rank in range(TOP)]
    part = read_part(written(tmp_path, overview=overview, tiles=[*tiles[:-1], None]))
    assert part is not None and part["from_slide"]
    assert max(picture(part["overview"]).size) == LARGE
    assert [tile["rank"] for tile in part["tiles"]] == list(range(1, TOP + 1))
    assert part["tiles"][-1]["jpeg"] is None
    for rank, tile in enumerate(part["tiles"][:-1]):
        assert abs(np.asarray(picture(tile["jpeg"])).mean() - 40 * rank) < 3
    weights = [box["weight"] for box in boxes(prediction)]
    assert shown_boxes(prediction).shape == (TOP, 4) and weights == sorted(weights, reverse=True)


def test_a_large_tile_is_shown_coarser() -> None:
    assert shown_downsample(np.array([0, 0, 256, 200])) == 1.0
    assert shown_downsample(np.array([0, 0, 1536, 768])) == 4.0


def test_boxes_are_what_was_read() -> None:
    for kind in ("usual", "zoomed", "levels"):
        prediction = example_prediction(kind=kind)
        listed = {(box["x"], box["y"], box["w"], box["h"]) for box in boxes(prediction)}
        assert listed == {tuple(box) for box in read_boxes(prediction).tolist()}
        assert [box["rank"] for box in boxes(prediction) if box["rank"]][:3] == [1, 2, 3]


def test_attention_is_grey_by_its_place_on_the_scale() -> None:
    prediction = example_prediction()
    layer, found = attention_layer(prediction), main_map(prediction)
    assert layer is not None and found is not None
    ratio = above_average(found).values
    grey, alpha = (np.asarray(band) for band in Image.open(io.BytesIO(layer.png)).split())
    assert grey.shape == ratio.shape
    assert layer.place == (
        *found.grid.origin,
        found.grid.cols * found.grid.step[0],
        found.grid.rows * found.grid.step[1],
    )
    above = np.nan_to_num(ratio) > 1
    assert (alpha[~above] == 0).all() and (alpha[above] > 0).all()
    expected = 255 * np.log(ratio[above]) / np.log(layer.top)
    assert np.abs(grey[above] - expected).max() <= 0.51


def test_tissue_that_was_read_is_not_marked_as_unseen() -> None:
    prediction = example_prediction()
    layer = unseen_layer(prediction)
    assert layer is not None
    unseen = np.asarray(Image.open(io.BytesIO(layer.png)))
    step = layer.place[2] / unseen.shape[1]
    for x, y, w, h in read_boxes(prediction):
        if min(w, h) > 2 * step:
            assert not unseen[round((y + h / 2) / step - 0.5), round((x + w / 2) / step - 0.5)]
    assert unseen.any()
    assert unseen_layer(example_prediction(kind="no_glimpses")) is None


def test_colour_maps_run_from_the_first_to_the_last_stop() -> None:
    assert len({each.name for each in MAPS}) == len(MAPS)
    for each in MAPS:
        assert len(each.colours) == STEPS
        assert (each.colours[0], each.colours[-1]) == (each.stops[0][1], each.stops[-1][1])
        assert all(len(table.split()) == STEPS for table in each.tables)


def test_text_from_files_is_escaped_everywhere(tmp_path: Path) -> None:
    path = written(tmp_path)
    values = values_in(path)
    values |= {"label": HOSTILE, "classes": [HOSTILE, HOSTILE], "notes": [HOSTILE]}
    values["provenance"] = {"reader": HOSTILE, "seed": HOSTILE, "fingerprint": HOSTILE, "mpp_source": HOSTILE}
    values["attention"]["name"] = values["bar"]["text"] = values["boxes"][0]["glimpse"] = HOSTILE
    put(path, values)
    text = rendered(path, name=HOSTILE, reason=HOSTILE, about=[(HOSTILE, HOSTILE)])
    assert "<img src=x" not in text and text.count("<script>") == 1 and "alert(1)</script>" not in text
    assert text.count("alert(2)&gt;") >= 12


def test_the_page_fetches_nothing(tmp_path: Path) -> None:
    path = written(tmp_path)
    for text in (rendered(path), path.read_text()):
        check_fetches_nothing(text)


def check_fetches_nothing(text: str) -> None:
    assert "default-src 'none'" in text and "img-src data:" in text
    text = text.replace(f'href="{VIEWER}#slide=', "")  # a link for people, to this computer alone
    for word in ("http://", "https://", "@import", 'src="/', 'url("', "fetch("):
        assert word not in text, word


@pytest.mark.parametrize(
    "damage",
    [
        {"format": 99},
        {"tiles": [{"rank": '"><script>alert(1)</script>', "mpp": 1, "jpeg": ""}]},
        {"width": "0"},
        {"mpp": float("inf")},
        {"boxes": [{"x": "1; evil"}]},
        {"attention": {"png": ""}},
        {"provenance": None},
    ],
)
def test_a_part_that_is_not_ours_is_left_out(tmp_path: Path, damage: dict[str, Any]) -> None:
    path = written(tmp_path)
    put(path, {**values_in(path), **damage})
    assert read_part(path) is None


@pytest.mark.parametrize("picture", ["overview", "attention", "unseen", "tile-1"])
@pytest.mark.parametrize("bytes_", ["", "<script>", "a\nb", "===="])
def test_a_picture_that_is_not_ours_is_left_out(tmp_path: Path, picture: str, bytes_: str) -> None:
    path = written(tmp_path, tiles=[np.zeros((8, 8, 3), np.uint8)])
    before, found, after = path.read_text().partition(f'data-picture="{picture}"')
    kind, mark, rest = after.partition(";base64,")
    assert found and read_part(path) is not None
    path.write_text(before + found + kind + mark + bytes_ + rest[rest.index('"') :])
    assert read_part(path) is None


def test_a_missing_torn_or_linked_part_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "link.html").symlink_to(path)
    assert read_part(tmp_path / "link.html") is None and read_part(tmp_path / "gone.html") is None
    assert is_whole(path) and not is_whole(tmp_path / "link.html") and not is_whole(tmp_path / "gone.html")
    path.write_text(path.read_text()[:500])
    assert read_part(path) is None and not is_whole(path)
    path.write_text(path.read_text()[:20])
    assert not is_whole(path)


def test_a_slides_own_page_says_what_its_section_says(tmp_path: Path) -> None:
    tiles = [np.full((64, 64, 3), 40 * rank, np.uint8) for rank in range(TOP)]
    path = tmp_path / "part.html"
    ReportExporter()(example_prediction(), path, tiles=tiles, slide_name=f"ward/{HOSTILE}")
    # whole numbers lose their ".0" on the way through the file
    text, section = (re.sub(r"\.0\b", "", one) for one in (path.read_text(), rendered(path, name=f"ward/{HOSTILE}")))
    assert text.endswith(END) and text.count("<article") == 1
    assert text[text.index("<article") : text.index("</article>")] in section
    assert "<img src=x" not in text and text.count("<script>") == 1 and "alert(1)</script>" not in text
    assert "Research use only" in text


def test_heavier_tiles_have_thicker_outlines(tmp_path: Path) -> None:
    part = read_part(written(tmp_path))
    assert part is not None
    section = Section(Row(1, "a/b c", "done"), part)
    top = [box for box in part["boxes"] if box["rank"]]
    assert section.strength(top[0]) == 1.0
    for box in top[:TOP]:
        assert section.strength(box) ** 2 == pytest.approx(box["weight"] / top[0]["weight"])
        x, y = box["x"] + box["w"] // 2, box["y"] + box["h"] // 2
        assert section.viewer_at(box) == f"{VIEWER}#slide=a%2Fb%20c&x={x}&y={y}&zoom=0.781"


def test_a_demonstration_says_so_at_the_head_and_at_each_slide(tmp_path: Path) -> None:
    warning = "demonstration model: the label means nothing on real tissue"
    part = read_part(written(tmp_path, "demonstration"))
    assert part is not None
    row = Row(1, "a", "done", "tumour (demonstration model)", 0.5, warning=warning, shown=True, unread=0.625)
    text = "".join(page([row], [Section(row, part)], []))
    head, _, rest = text.partition("<main>")
    assert f'<p class="warning">D{warning[1:]}.</p>' in head
    article = rest.partition("<article")[2]
    assert "<b>tumour (demonstration model)</b>" in article
    assert f'<p class="note">{warning}</p>' in article
    assert "62.5 %" in article
    assert 'class="warning"' not in rendered(written(tmp_path))


def test_without_chance_there_is_no_error_to_show(tmp_path: Path) -> None:
    path = written(tmp_path, "overview_alone")
    assert "±" not in rendered(path).partition("<article")[2]
    assert "± 0.021" in rendered(written(tmp_path)).partition("<article")[2]
    old = values_in(path) | {"spread": 0.0}
    del old["unread_mass"], old["purpose"]
    put(path, old)
    part = read_part(path)
    assert part is not None
    assert (part["spread"], part["unread_mass"], part["purpose"]) == (None, None, "")
