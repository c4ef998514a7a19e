"""The results folder."""

from __future__ import annotations

import copy
import errno
import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from wsi_attention.errors import ResultsError
from wsi_attention.files import temporary
from wsi_attention.inference.results.folder import open_results
from wsi_attention.inference.results.state import RunKey, SlideKey, State

RUN = RunKey("demo", "ab" * 32, {"classes": ["benign", "lesion"]})


def a_state(name: str, status: str = "done", exports: tuple[str, ...] = (), reason: str = "") -> State:
    return State(name, f"/in/{name}.svs", status, reason, RUN, SlideKey("f"), {"label": "lesion"}, 1.0, exports)


def export(folder: Path, relative: str, text: str = "") -> str:
    path = temporary(folder / relative)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return relative


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != ".lock")


def test_table_is_sorted_and_survives_reopening(tmp_path: Path) -> None:
    with open_results(tmp_path, RUN) as results:
        results.add(a_state("b"))
        results.add(replace(a_state("a", "failed", reason="broken, sadly"), row={}))
        results.write_table()
    header = (
        "slide,status,label,prob_benign,prob_lesion,set,spread,unread_mass,certified,unlike_training,"
        "tiles_read,area_read,seconds,reason,notes"
    )
    lines = [header, 'a,failed,,,,,,,,,,,1.000,"broken, sadly",', "b,done,lesion,,,,,,,,,,1.000,,"]
    assert (tmp_path / "predictions.csv").read_text().splitlines() == lines
    with open_results(tmp_path, RUN) as results:
        assert sorted(results.states) == ["a", "b"]


def test_exports_get_their_names_and_stale_ones_go(tmp_path: Path) -> None:
    with open_results(tmp_path, RUN) as results:
        results.add(a_state("x", exports=(export(tmp_path, "tiles/x.csv"), export(tmp_path, "heatmaps/x.png"))))
        results.add(a_state("x", exports=(export(tmp_path, "tiles/x.csv", "new"),)))
    assert files(tmp_path) == ["predictions.csv", "states/x.json", "tiles/x.csv"]
    assert (tmp_path / "tiles/x.csv").read_text() == "new"


def test_leftovers_of_a_killed_run_go(tmp_path: Path) -> None:
    with open_results(tmp_path, RUN) as results:
        results.add(a_state("x", exports=(export(tmp_path, "tiles/x.csv"),)))
    for name in ("tiles/y.csv", "states/y.json", "predictions.csv", "run_1.json"):
        temporary(tmp_path / name).touch()
    (tmp_path / ".tmp-mine").touch()
    with open_results(tmp_path, RUN) as results:
        results.clean(["tiles"])
    assert files(tmp_path) == [".tmp-mine", "predictions.csv", "states/x.json", "tiles/x.csv"]


def test_another_model_is_refused_unless_told(tmp_path: Path) -> None:
    with open_results(tmp_path, RUN) as results:
        results.add(a_state("x", exports=(export(tmp_path, "tiles/x.csv"),)))
    (tmp_path / "tiles/mine.txt").touch()
    other = replace(RUN, model="other", weights_sha256="cd" * 32)
    with (
        pytest.raises(ResultsError, match=r"holds results of model demo .*asked for other .*-o, or --overwrite"),
        open_results(tmp_path, other),
    ):
        pass
    with open_results(tmp_path, other, "overwrite") as results:
        assert results.states == {}
    assert files(tmp_path) == ["tiles/mine.txt"]


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    with (
        open_results(tmp_path, RUN),
        pytest.raises(ResultsError, match=rf"another run is writing it now \(process {os.getpid()} on"),
        open_results(tmp_path, RUN),
    ):
        pass
    with open_results(tmp_path, RUN):
        pass


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        with (
            pytest.raises(ResultsError, match=r"cannot be written \(.*\); give another folder"),
            open_results(folder, RUN),
        ):
            pass


def test_a_disk_that_is_full_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(lock: int, text: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ResultsError, match=r"\.lock: cannot be written: the disk is full"), open_results(tmp_path, RUN):
        pass


def test_slides_keep_their_name_while_they_are_there(tmp_path: Path) -> None:
    slide = tmp_path / "x.svs"
    slide.touch()
    with open_results(tmp_path / "out", RUN) as results:
        results.add(replace(a_state("x"), path=str(slide)))
        results.add(a_state("moved"))
        assert results.known() == {str(slide): "x"}


def test_a_state_takes_little_memory(tmp_path: Path) -> None:
    settings = {"classes": ["benign", "lesion"], "arguments": {f"argument_{n}": [n, n] for n in range(20)}}
    row = {f"column_{n}": f"{n / 7:.6f}" for n in range(12)}
    seen = {"mpp": "0.25", "tags": "c" * 32, "levels": "512×512", "downsamples": "1", "bounds": "none"}

    def state(number: int) -> State:  # as it comes from a worker process: nothing shared
        key = SlideKey(f"{number:064}", seen=dict(seen), written="1" * 40, changed="1" * 60, content=f"{number:064}")
        made = State(f"folder/slide_{number}", f"/in/folder/slide_{number}.svs", "done", "", RUN, key, dict(row), 1.0)
        run = replace(RUN, settings=copy.deepcopy(settings))
        return replace(
            made, run=run, exports=(export(tmp_path, f"tiles/{number}.csv"),), record={"tiles": ["x"] * 1000}
        )

    with open_results(tmp_path, replace(RUN, settings=settings)) as results:
        results.add(state(0))
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(1, 201):
                results.add(state(number))
            assert (tracemalloc.get_traced_memory()[0] - before) / 200 < 1500
        finally:
            tracemalloc.stop()
        assert results.states["folder/slide_7"] == state(7).without_record()
