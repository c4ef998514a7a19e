"""Where the time of a batch went: lines that add up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wsi_attention.checkpoint import Classifier
from wsi_attention.inference.batch.classify import classify
from wsi_attention.inference.batch.summary import Profile, covered, profile_of, summary
from wsi_attention.timing import KINDS, Clock


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([], 0.0),
        ([(1.0, 2.0)], 1.0),
        ([(3.0, 4.0), (1.0, 2.0)], 2.0),
        ([(1.0, 3.0), (2.0, 4.0)], 3.0),
        ([(1.0, 9.0), (2.0, 3.0), (8.0, 10.0)], 9.0),
    ],
)
def test_time_that_several_share_counts_once(intervals: list[tuple[float, float]], expected: float) -> None:
    assert covered(intervals) == expected


def clock(seconds: dict[str, float], busy: list[tuple[float, float]]) -> Clock:
    made = Clock()
    made.seconds |= seconds  # type: ignore[arg-type]
    made.busy = busy
    return made


def test_waiting_is_when_no_slide_is_worked_on() -> None:
    """Of 10 s, the first slide takes 0-4, the second 2-3 and 5-9, waiting from 3 to 5 for its turn."""
    first = clock({"open": 1.0, "encode": 3.0}, [(100.0, 104.0)])
    second = clock({"open": 1.0, "encode": 4.0, "waiting": 2.0}, [(102.0, 103.0), (105.0, 109.0)])
    found = profile_of([first, second], 10.0)
    assert found.slides == 2
    assert (found.seconds["open"], found.seconds["encode"], found.seconds["waiting"]) == (2.0, 7.0, 2.0)
    assert found.sum == 11.0
    assert "1.10 at a time" in found.lines()[-1]


def test_shares_are_of_the_sum() -> None:
    lines = Profile(4, 8.0, dict.fromkeys(KINDS, 0.0) | {"read": 2.0, "encode": 6.0}).lines()
    assert [line.split()[0] for line in lines[1:]] == [*KINDS, "sum"]
    assert lines[4].split() == ["read", "0.500", "s", "2.00", "s", "25.0%"]
    assert len({len(line) for line in lines[:-1]}) == 1


def test_a_run_without_slides_has_a_profile() -> None:
    assert profile_of([], 0.0).lines()


def test_one_slide_and_one_worker_add_up_to_the_wall_time(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    write_slide(tmp_path / "x.tif")
    report = classify([tmp_path / "x.tif"], tmp_path / "results", tiny, workers=1, profile=True)
    found = report.profile
    assert found is not None
    assert found.sum == pytest.approx(report.seconds, rel=0.02)
    for kind in ("open", "overview", "attention", "read", "encode", "export"):
        assert found.seconds[kind] > 0, kind
    (record,) = (tmp_path / "results").glob("run_*.json")
    assert json.loads(record.read_text())["profile"] == json.loads(json.dumps(found.facts()))
    assert "export" in summary(report)


def test_several_slides_cover_the_wall_time(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    for name in "abc":
        write_slide(tmp_path / "in" / f"{name}.tif")
    report = classify([tmp_path / "in"], tmp_path / "results", tiny, workers=1, profile=True)
    found = report.profile
    assert found is not None
    assert found.slides == 3
    assert report.seconds * 0.98 <= found.sum <= 2 * report.seconds, "at most two slides are worked on at a time"
    assert found.seconds["waiting"] < report.seconds


def test_without_being_asked_nothing_is_measured(tmp_path: Path, write_slide, tiny: Classifier) -> None:
    write_slide(tmp_path / "x.tif")
    report = classify([tmp_path / "x.tif"], tmp_path / "results", tiny)
    assert report.profile is None
    assert "share" not in summary(report)
    (record,) = (tmp_path / "results").glob("run_*.json")
    assert "profile" not in json.loads(record.read_text())
