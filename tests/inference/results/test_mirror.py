"""Results behind URLs: the same files as in a folder, resumed after a kill, with nothing stale left."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest
import warm_python
from fsspec.registry import _registry as registered

from wsi_attention.checkpoint import Classifier
from wsi_attention.cli import main
from wsi_attention.defaults import EXPORTS, PICTURES
from wsi_attention.errors import MissingExtraError, ResultsError
from wsi_attention.inference.batch.classify import classify as classify_apart
from wsi_attention.inference.batch.summary import summary
from wsi_attention.inference.results.mirror import WORK_VARIABLE, Mirror
from wsi_attention.slide.readers.remote import system as remote_system

classify = partial(classify_apart, in_process=True)
"""What is asked here is of results, however they come about: no process is needed."""

QUICK = remote_system.Patience(connect=1, silent=1, total=4, attempts=2, pause=0.02, rest=5)

KILLED_AT_AN_UPLOAD = """
import os, signal, sys
from pathlib import Path
from fsspec.implementations.local import LocalFileSystem
from wsi_attention.inference.batch.classify import classify
from wsi_attention.checkpoint import load_model

def until(self, source, target, **options):
    if name in target:
        os.kill(os.getpid(), signal.SIGKILL)
    return put(self, source, target, **options)

put, LocalFileSystem.put_file = LocalFileSystem.put_file, until
for name in sys.argv[4:]:
    child = os.fork()  # nothing has been computed yet, so no thread is lost
    if child == 0:
        classify([sys.argv[1]], Path(sys.argv[2]).as_uri(), load_model(sys.argv[3]), what=("geojson", "heatmap-zarr"))
    ended = os.waitpid(child, 0)[1]
    print(os.WTERMSIG(ended), *sorted(path.name for path in Path(sys.argv[2]).glob("states/*")))
"""

SERVER = (
    "import sys; from moto.server import ThreadedMotoServer; s = ThreadedMotoServer('127.0.0.1', 0, verbose=False);"
    " s.start(); print(*s.get_host_and_port(), flush=True); sys.stdin.read()"
)


@pytest.fixture
def slides(tmp_path: Path, write_slide) -> Path:
    for seed in range(2):
        write_slide(tmp_path / f"slides/{seed}.tif", seed=seed)
    return tmp_path / "slides"


@pytest.fixture
def url() -> Iterator[str]:
    """A place in memory of its own."""
    url = f"memory://{uuid4().hex}/results"
    yield url
    system = fsspec.filesystem("memory")
    if system.exists(url):
        system.rm(url, recursive=True)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket on a server in a process of its own; fsspec is set up for it as a user would do it."""
    pytest.importorskip("moto", reason="needs moto[server] and s3fs (tox run -e remote)")
    s3fs = pytest.importorskip("s3fs", reason="needs moto[server] and s3fs (tox run -e remote)")
    from fsspec.config import conf

    process = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        endpoint = "http://{}:{}".format(*process.stdout.readline().split())
        monkeypatch.setitem(conf, "s3", {"endpoint_url": endpoint})
        s3fs.S3FileSystem().mkdir("ward")
        yield "s3://ward"
    finally:
        process.communicate()


def everything(folder: Path) -> dict[str, Any]:
    """All files of a results folder but the lock, the page and the runs; without times."""
    found: dict[str, Any] = {}
    for path in (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith((".lock", "run_"))):
        name = path.relative_to(folder).as_posix()
        if name == "predictions.csv":
            with path.open(newline="", encoding="utf-8") as file:
                found[name] = [{**row, "seconds": ""} for row in csv.DictReader(file)]
        elif name.startswith("states/"):
            found[name] = json.loads(path.read_text(), object_hook=lambda o: {k: o[k] for k in o if k != "seconds"})
        elif name != "report.html":
            found[name] = path.read_bytes()
    return found


def download(url: str, folder: Path) -> Path:
    """What lies behind a URL, file by file."""
    system, root = fsspec.url_to_fs(url)
    for path in system.find(root):
        target = folder / path.removeprefix(root).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        system.get_file(path, str(target))
    return folder


def test_the_same_files_as_in_a_folder(
    slides: Path, url: str, tiny: Classifier, tmp_path: Path, write_slide, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slide(slides / "empty.tif", tissue=False)
    monkeypatch.setenv(WORK_VARIABLE, str(tmp_path / "work"))
    report = classify([slides], url, tiny)
    assert report.statuses == {"done": 2, "no_tissue": 1}
    assert f"results:  {url}" in summary(report)
    classify([slides], tmp_path / "near", tiny)
    far = download(url, tmp_path / "far")
    assert everything(far) == everything(tmp_path / "near")
    assert (far / "report.html").stat().st_size == (tmp_path / "near/report.html").stat().st_size
    assert not list((tmp_path / "work").iterdir())


def test_a_second_run_does_what_is_missing(
    slides: Path, url: str, tiny: Classifier, write_slide, tmp_path: Path
) -> None:
    classify([slides / "0.tif"], url, tiny)
    assert classify([slides], url, tiny).kept == 1
    fsspec.filesystem("memory").rm(f"{url}/geojson/1.geojson")
    assert classify([slides], url, tiny).kept == 1
    write_slide(slides / "0.tif", seed=7)
    assert classify([slides], url, tiny).kept == 1
    classify([slides], tmp_path / "near", tiny)
    far = download(url, tmp_path / "far")
    assert everything(far) == everything(tmp_path / "near")
    assert len(list(far.glob("run_*.json"))) == 4
    page = (far / "report.html").read_text()
    assert page.count("data:image/jpeg") == (tmp_path / "near/report.html").read_text().count("data:image/jpeg") > 0


def test_nothing_stale_is_left(slides: Path, url: str, tiny: Classifier, tmp_path: Path) -> None:
    system, every = fsspec.filesystem("memory"), EXPORTS + PICTURES
    classify([slides], url, tiny, what=every)
    store = next(
        path.partition(".zarr/")[0] + ".zarr" for path in system.find(url) if "/0" in path and ".zarr/" in path
    )
    system.pipe_file(f"{store}/9/c/0/0", b"stale")
    system.pipe_file(f"{url}/notes.txt", b"not ours")
    system.rm_file(f"{url}/geojson/0.geojson")
    classify([slides], url, tiny, what=every)
    assert system.exists(f"{store}/zarr.json") and not system.exists(f"{store}/9/c/0/0")
    report = classify([slides / "1.tif"], url, tiny, what=("tiles",), existing="overwrite")
    assert (report.kept, report.total) == (0, 1)
    left = {path.partition("/results/")[2] for path in system.find(url)}
    assert {name for name in left if not name.startswith("run_")} == {
        *("notes.txt", "predictions.csv", "report.html", "states/1.json", "tiles/1.csv"),
    }


def test_other_settings_are_not_mixed_in(slides: Path, url: str, tiny: Classifier) -> None:
    classify([slides / "0.tif"], url, tiny, what=())
    with pytest.raises(ResultsError, match=rf"^{url} holds results of snap yes, asked for no"):
        classify([slides / "0.tif"], url, tiny, what=(), snap=False)


def test_killed_at_an_upload(slides: Path, tiny: Classifier, tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    what = ("geojson", "heatmap-zarr")
    classify([slides / "0.tif"], out.as_uri(), tiny, what=what)
    names = ["states/1.json", "predictions.csv"]
    command = [sys.executable, "-c", KILLED_AT_AN_UPLOAD, slides, out, tiny.folder, *names]
    environment = {**os.environ, WORK_VARIABLE: str(work)}
    ran = warm_python.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["9 0.json", "9 0.json 1.json"], ran.stderr
    report = classify([slides], out.as_uri(), tiny, what=what)
    assert (report.kept, report.statuses["done"]) == (2, 2)
    classify([slides], tmp_path / "fresh", tiny, what=what)
    assert everything(out) == everything(tmp_path / "fresh")


def test_a_failure_that_passes_and_one_that_lasts(
    slides: Path, url: str, tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    original, left = MemoryFileSystem.put_file, [2]

    def flaky(self: object, source: str, target: str, **options: object) -> None:
        if "/1.geojson" in target and left[0]:
            left[0] -= 1
            raise ConnectionResetError(f"reset by https://me:secret@host/{target}")
        original(self, source, target, **options)

    monkeypatch.setattr(remote_system, "PATIENCE", QUICK)
    monkeypatch.setattr(MemoryFileSystem, "put_file", flaky)
    classify([slides / "0.tif"], url, tiny, what=("geojson",))
    with pytest.raises(ResultsError, match=r"1\.geojson: cannot be written .*goes on from there") as caught:
        classify([slides], url, tiny, what=("geojson",))
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
    left[0] = 1
    report = classify([slides], url, tiny, what=("geojson",))
    assert (report.kept, report.statuses["done"], left) == (1, 2, [0])


def test_names_that_leave_the_folder_are_not_followed(url: str, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file(f"{url}/states/../../evil.json", b"{}")
    mirror = Mirror(url)
    (tmp_path / "work").mkdir()
    mirror.open(tmp_path / "work")
    assert not (tmp_path / "evil.json").exists()


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (
            "https://me:pw@host/results",
            r"https://\*\*\*@host/results: https:// can be read, not written; give a folder",
        ),
        ("nonsense://bucket/results", "nonsense://bucket/results: cannot be asked for .*check the URL"),
        (Path("s3://bucket/results"), "s3:/bucket/results: a URL has two slashes, and a Path keeps one"),
    ],
)
def test_places_that_take_no_results(place: str | Path, told: str, slides: Path, tiny: Classifier) -> None:
    with pytest.raises(ResultsError, match=told):
        classify([slides], place, tiny)


def test_what_is_not_installed_is_named(slides: Path, tiny: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.delitem(registered, "gs", raising=False)  # it is there where another test has used it
    with pytest.raises(MissingExtraError, match=r"gs://bucket/r: gs:// needs a package .*'gcsfs>=\S+' 's3fs>=\S+'$"):
        classify([slides], "gs://bucket/r", tiny)


@pytest.mark.parametrize(
    "arguments",
    [["report", "URL"], ["export", "URL"], ["view", "URL"], ["evaluate", "-p", "URL", "-l", "labels.csv"]],
    ids=lambda arguments: arguments[0],
)
def test_other_commands_want_a_folder(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["wsi-attention", *(one.replace("URL", "s3://b/results") for one in arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and "results behind s3:// are not looked at in place; download them" in line


def test_a_bucket(
    slides: Path,
    bucket: str,
    tiny: Classifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["wsi-attention", "classify", "-i", str(slides), "-o", f"{bucket}/2026/results", "-m", str(tiny.folder)]
    monkeypatch.setattr(sys, "argv", command)
    for expected in (f"results:  {bucket}/2026/results", "2 had been finished by an earlier run"):
        with pytest.raises(SystemExit) as stopped:
            main()
        told = capsys.readouterr()
        assert (stopped.value.code, told.err) == (0, "") and expected in told.out
    far = everything(download(f"{bucket}/2026/results", tmp_path / "far"))
    assert [classify([slides], url, tiny).kept for url in (tmp_path / "near", f"{bucket}/2026/results/")] == [0, 2]
    assert far == everything(tmp_path / "near")
    report = classify([slides], f"{bucket}/2026/results", tiny, what=(), existing="overwrite")
    assert (report.kept, report.statuses["done"]) == (0, 2)
    left = {path.name for path in download(f"{bucket}/2026/results", tmp_path / "left").rglob("*") if path.is_file()}
    assert {name for name in left if not name.startswith("run_")} == {
        "0.json",
        "1.json",
        "predictions.csv",
        "report.html",
    }
    with pytest.raises(ResultsError, match=r"^s3://none/r/\.write-test: cannot be written \(.*bucket does not exist"):
        classify([slides], "s3://none/r", tiny)
