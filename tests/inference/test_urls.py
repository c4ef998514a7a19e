"""A batch of URLs: the results of the files, one slide's server touches no other slide, and no secret is written."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsi_attention.checkpoint import Classifier
from wsi_attention.inference.batch.classify import classify
from wsi_attention.inference.results.state import read_states
from wsi_attention.slide.readers.remote import cache as remote_cache
from wsi_attention.slide.readers.remote import system as remote_system

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "slide"))

from servers import Manners, Server, serving

QUICK = remote_system.Patience(connect=1, silent=0.3, total=1.5, attempts=3, pause=0.02, rest=5)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, write_slide: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("served")
    for number in range(2):
        write_slide(folder / f"{number}.tif", seed=number)
    return folder


@pytest.fixture
def server(served: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(remote_system, "PATIENCE", QUICK)
    with serving(served) as running:
        yield running


def rows(folder: Path) -> dict[str, dict[str, str]]:
    return {state.name: state.row for state in read_states(folder)}


def test_the_same_results_as_from_the_files(server: Server, served: Path, tmp_path: Path, tiny: Classifier) -> None:
    urls = [server.url(f"{number}.tif") for number in range(2)]
    far = classify(urls, tmp_path / "far", tiny, what=["tiles"])
    near = classify([served], tmp_path / "near", tiny, what=["tiles"], in_process=True)
    assert far.statuses == near.statuses == {"done": 2}
    for name, row in rows(tmp_path / "far").items():
        here = rows(tmp_path / "near")[name]
        assert {key: row[key] for key in row if "prob" in key or key in ("label", "spread")} == {
            key: here[key] for key in here if "prob" in key or key in ("label", "spread")
        }
    server.reset()
    again = classify(urls, tmp_path / "far", tiny, what=["tiles"])
    assert again.kept == 2


def test_a_slide_that_was_replaced_at_its_url_is_done_again(
    server: Server, served: Path, tmp_path: Path, tiny: Classifier, write_slide: Callable[..., Path]
) -> None:
    import shutil

    def run() -> tuple[int, list[str]]:
        report = classify([server.url("changing.tif")], tmp_path / "out", tiny, what=["tiles"], in_process=True)
        return report.kept, [why for _, why in report.again]

    path = served / "changing.tif"
    shutil.copy(served / "0.tif", path)
    run()
    assert run() == (1, [])
    write_slide(path, seed=0, mpp=0.4)
    assert run() == (0, ["the file has mpp 0.4, had 0.5"])
    assert run() == (1, [])


def test_urls_of_a_slides_csv(server: Server, tmp_path: Path, tiny: Classifier) -> None:
    (tmp_path / "slides.csv").write_text(f"slide,mpp\n{server.url('0.tif?token=abc')},0.25\n")
    report = classify([tmp_path / "slides.csv"], tmp_path / "out", tiny, what=[])
    assert report.statuses == {"done": 1}
    assert [state.name for state in read_states(tmp_path / "out")] == ["0"]


def test_a_server_that_fails_takes_no_other_slide_with_it(
    server: Server, served: Path, tmp_path: Path, tiny: Classifier
) -> None:
    with serving(served, Manners(fails=0, status=0)) as silent:
        started = time.monotonic()
        inputs = [silent.url("1.tif"), server.url("0.tif"), server.url("none.svs")]
        report = classify(inputs, tmp_path / "out", tiny, what=[], in_process=True)  # patience is short in this one
    assert report.statuses == {"done": 1, "failed": 2}
    reasons = dict(report.failures)
    assert "did not answer in time" in reasons["1"]
    assert "no such file" in reasons["none"]
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("after", [1, 2, 4, 6, 7])
def test_a_server_that_fails_at_any_moment(after: int, server: Server, tmp_path: Path, tiny: Classifier) -> None:
    server.manners = Manners(fails=after)
    report = classify([server.url("0.tif")], tmp_path / "out", tiny, what=["tiles"], in_process=True)
    (state,) = read_states(tmp_path / "out")
    assert state.status in ("done", "partial", "failed")
    assert "\n" not in state.reason
    if state.status != "done":
        assert "answers 500" in state.reason
    assert report.statuses == {state.status: 1}


def test_no_secret_is_written(server: Server, tmp_path: Path, tiny: Classifier) -> None:
    url = server.url("0.tif?sig=hushhush").replace("//", "//ann:hushhush@")
    classify([url], tmp_path / "out", tiny)
    server.manners = Manners(password="other")
    classify([url, url.replace("0.tif", "1.tif")], tmp_path / "out", tiny, what=[])
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len(files) > 5
    assert [file for file in files if b"hushhush" in file.read_bytes()] == []


def test_a_server_without_ranges_needs_the_cache(
    server: Server, tmp_path: Path, tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsi_attention.cli.app import app

    server.manners.ranges = False
    monkeypatch.setenv(remote_cache.FOLDER_VARIABLE, "")
    command = ["classify", "-i", server.url("0.tif"), "-o", str(tmp_path / "out"), "-m", str(tiny.folder), "--what", ""]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 1
    assert "--cache FOLDER" in ran.output
    ran = CliRunner().invoke(app, [*command, "--cache", str(tmp_path / "cache")])
    assert ran.exit_code == 0, ran.output
    assert len(list((tmp_path / "cache").glob("*/whole"))) == 1
