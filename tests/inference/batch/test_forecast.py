"""What a batch would do and cost: nothing is written, and it is what the batch then does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wsi_attention.checkpoint import Classifier
from wsi_attention.errors import ResultsError
from wsi_attention.export.chosen import exporters_of
from wsi_attention.inference.batch.classify import Order, classify
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.inference.batch.forecast import Forecast, foresee, in_the_middle
from wsi_attention.inference.batch.runners import Threads
from wsi_attention.inference.batch.wishes import Wishes


def forecast(slides: Path, results: str | Path, classifier: Classifier, *what: str, **more: Any) -> Forecast:
    wishes = Wishes(exporters_of(what or ("tiles",)))
    return foresee(Order((slides,), **more), results, classifier, wishes, Threads(1))


def test_nothing_is_written_and_the_cost_is_that_of_one_slide(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    slides, results = tmp_path / "slides", tmp_path / "out"
    for number in range(3):
        write_slide(slides / f"{number}.tif", seed=number)
    (slides / "notes.txt").touch()
    first = forecast(slides, results, tiny, workers=2)
    assert not results.exists()
    assert (first.slides, first.missing, first.others) == (3, ("0", "1", "2"), 1)
    assert first.cost is not None and first.cost.of.endswith("in the middle by size")
    assert first.cost.seconds > 0 and first.cost.written
    classify([slides / "0.tif"], results, tiny, what="tiles", in_process=True)
    after = forecast(slides, results, tiny)
    assert after.missing == ("1", "2") and after.cost is not None
    assert after.cost.of == "the 1 that are there" and after.cost.tiles == first.cost.tiles
    lines = after.lines()
    assert lines[0].startswith("would classify 2 of 3 slides with model ")
    assert f"1 have a result in {results} that stands" in lines
    assert lines[-1].startswith("nothing was written")
    more = forecast(slides, results, tiny, "tiles", "geojson")
    assert dict(more.again) == {"--what asks for geojson as well": 1} and len(more.missing) == 3
    other = replace(tiny, weights_sha256="f" * 64)
    with pytest.raises(ResultsError, match="give another folder with -o"):
        forecast(slides, results, other)


def test_a_slide_that_cannot_be_read_is_no_cost(tmp_path: Path, tiny: Classifier) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "bad.tif").write_bytes(b"II*\0 and then nothing")
    found = forecast(tmp_path / "slides", tmp_path / "out", tiny)
    assert found.cost is None and found.why_unknown.startswith("what was tried has no result: ")
    assert "bad.tif" in found.why_unknown
    assert any(line.startswith("the cost is not known: ") for line in found.lines())


def test_results_behind_a_url_are_not_looked_at(tiny: Classifier, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="a dry run looks into a results folder of this machine"):
        forecast(tmp_path, "s3://bucket/out", tiny)


def test_the_slides_in_the_middle(tmp_path: Path) -> None:
    sizes = (5, 900, 40, 60, 700)
    for size in sizes:
        (tmp_path / f"{size}.svs").write_bytes(bytes(size))
    local = [SlideFile(str(tmp_path / f"{size}.svs"), f"{size}.svs") for size in sizes]
    tried = in_the_middle([*local, SlideFile("s3://b/x.svs", "x.svs")])
    assert tried[-1].relative == "60.svs" and {one.relative for one in tried[:-1]} == {"40.svs", "700.svs"}
    other = [replace(one, mpp=0.25) if one.relative == "60.svs" else one for one in local]
    assert [one.relative for one in in_the_middle(other)] == ["60.svs"]
