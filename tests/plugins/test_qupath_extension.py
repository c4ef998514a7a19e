"""The extension of plugins/qupath/extension inside QuPath's own classes: found, run, cancelled, imported, shown.

QUPATH_APP names the folder with the jars of a QuPath (`lib/app` of an installation). The menu needs JavaFX among them,
and a screen: `xvfb-run` makes one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from wsi_attention.export.geojson import GeoJSONExporter
from wsi_attention.files import write_text
from wsi_attention.geometry import Box
from wsi_attention.inference.results.qupath_project import SCRIPT, write_project
from wsi_attention.inference.results.state import RunKey, SlideKey, State, to_text
from wsi_attention.structures import Glimpse, Prediction, TileSet
from wsi_attention.testing.exporters import example_prediction
from wsi_attention.testing.slides import SlideSpec, write_slide

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SIZE, LESION = (403, 311), Box(120, 90, 64, 48)
Json = dict[str, Any]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The class path of QuPath, the extension as its build makes it, and the drivers of these tests."""
    app = os.environ.get("QUPATH_APP")
    if not app or not shutil.which("javac"):
        pytest.skip("no QuPath at hand (QUPATH_APP names the folder of its jars) or no javac")
    folder = tmp_path_factory.mktemp("extension")
    jar, build = folder / "wsi-attention.jar", ROOT / "plugins" / "qupath" / "extension" / "build.py"
    subprocess.run([sys.executable, str(build), "--qupath", app, "-o", str(jar)], check=True)
    path = os.pathsep.join((str(folder), str(jar), str(Path(app) / "*")))
    sources = [str(one) for one in (HERE / "qupath_extension").glob("*.java")]
    subprocess.run(["javac", "-proc:none", "-nowarn", "-d", str(folder), "-cp", path, *sources], check=True)
    yield path


class Driver:
    """QuPath's classes and the extension in one Java process; a job goes in, its outcome comes out."""

    def __init__(self, classes: str) -> None:
        command = ["java", "-Djava.awt.headless=true", "-cp", classes, "Drive"]
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, **streams, text=True, encoding="utf-8")

    def __call__(self, do: str, **job: Any) -> Json:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **job}) + "\n")
        self.process.stdin.flush()
        answer: Json = json.loads(self.process.stdout.readline() or '{"failure": "Java has ended"}')
        assert "failure" not in answer, answer
        return answer


@pytest.fixture(scope="module")
def drive(classes: str) -> Iterator[Driver]:
    running = Driver(classes)
    yield running
    running.process.stdin.close()
    running.process.wait(30)
    running.process.stdout.close()


def program(folder: Path, text: str, name: str = "wsi-attention") -> str:
    """A program in the place of the command; `$OUT` is the results folder that it is given."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    version = '[ "$1" = --version ] && { echo 0.1.0; exit; }'
    path.write_text(f'#!/bin/sh\n{version}\nOUT=$(echo "$@" | sed "s/.* -o \\([^ ]*\\) .*/\\1/")\n{text}\n')
    path.chmod(0o755)
    return str(path)


def on_lesion(slide: str) -> Prediction:
    """A prediction with one tile that is the lesion."""
    tiles = TileSet(np.array([[LESION.x, LESION.y]]), (LESION.w, LESION.h), 1.0)
    glimpse = Glimpse(tiles, np.ones(1), np.array([0.5]), np.array([True]))
    base = replace(example_prediction(), slide=slide, extent=SIZE, bounds=(0, 0), maps=())
    return replace(base, glimpses=(glimpse,))


def results(folder: Path, slide: Path) -> Path:
    """A results folder with one slide."""
    prediction = on_lesion(str(slide))
    path = folder / "geojson" / f"{slide.stem}.geojson"
    path.parent.mkdir(parents=True)
    GeoJSONExporter()(prediction, path)
    row = {"label": prediction.label, f"prob_{prediction.label}": "0.9"}
    state = State(slide.stem, str(slide), "done", "", RunKey("mine", "0" * 64, {}), SlideKey(fingerprint="f"), row)
    write_text(folder / "states" / f"{slide.stem}.json", to_text(state))
    return folder


def test_the_command_is_found_and_its_version_is_checked(drive: Driver, tmp_path: Path) -> None:
    good = program(tmp_path / "bin", "exit 1")
    assert drive("find", command="", path=f"/nowhere{os.pathsep}{tmp_path / 'bin'}")["path"] == good
    assert drive("find", command=good, path="")["version"] == "0.1.0"
    real = shutil.which("wsi-attention")
    assert real is None or drive("find", command=real, path="")["version"] == "0.1.0"
    absent = drive("find", command="", path=str(tmp_path))["problem"]
    assert absent.startswith("wsi-attention is not found; install it in a Python environment")
    wrong = drive("find", command=str(tmp_path / "no"), path="")["problem"]
    assert wrong == f"{tmp_path / 'no'}: no such file; set the full path of the command wsi-attention in the settings"
    for said, words in (
        ("0.0.9", "is version 0.0.9, this extension needs 0.1.0 or later"),
        ("hello", 'it said "hello"'),
    ):
        old = program(tmp_path / said, "")
        Path(old).write_text(f"#!/bin/sh\necho {said}\n")
        assert words in drive("find", command=old, path="")["problem"]
    broken = program(tmp_path / "broken", "")
    Path(broken).write_text("#!/bin/sh\nexit 3\n")
    assert "ended with status 3" in drive("find", command=broken, path="")["problem"]


def test_an_image_is_classified_by_the_real_command(drive: Driver, tmp_path: Path) -> None:
    slide, out = tmp_path / "a b.svs", tmp_path / "out"
    write_slide(slide, SlideSpec((1024, 1000), seed=3, label="lesion", lesion_scale=8))
    drive("open", uri=slide.as_uri(), w=1024, h=1000)
    command = program(tmp_path, f'exec "{sys.executable}" -m wsi_attention.cli "$@"')
    given = {"command": command, "results": str(out), "options": "--what geojson -n 1"}
    assert drive("classify", **given, model="")["problem"].startswith("no model is set")
    done = drive("classify", **given, model="demo")
    assert done["counts"] == ["1/1"], done
    assert any("looking for slides" in line for line in done["lines"])
    assert done["label"].endswith("(demonstration model)")
    assert done["outcome"] == f"{done['label']}: {len(done['objects'])} objects imported"
    assert {"PathTileObject", "PathAnnotationObject"} <= set(done["objects"])
    shown = drive("map")
    assert shown["valid"] and shown["hidden"] and 0 <= shown["min"] < shown["max"] <= 100
    script = drive("script")["script"]
    assert f"command: '{command}'" in script and "wsi.classifyImage(getCurrentImageData(), settings)" in script
    assert drive("remove")["objects"] == []
    again = drive("run", script=script)
    assert sorted(again["objects"]) == sorted(done["objects"]) and again["label"] == done["label"]
    assert "1 had been finished by an earlier run and were kept" in again["said"]


def test_a_run_is_cancelled_with_all_that_it_started(drive: Driver, tmp_path: Path) -> None:
    drive("open", uri=(tmp_path / "x.svs").as_uri(), w=SIZE[0], h=SIZE[1])
    pids = tmp_path / "pids"
    text = f"""sh -c 'trap "" TERM; sleep 600 & echo $! >> {pids}; echo $$ >> {pids}; wait; sleep 600' &
echo $$ >> {pids}; sleep 600 & echo $! >> {pids}
while [ $(wc -l < {pids}) -lt 4 ]; do sleep 0.05; done
echo 'wsi-attention: started'; wait"""
    given = {"command": program(tmp_path, text), "model": "demo", "results": str(tmp_path / "out")}
    ended = drive("classify", **given, cancelAt="wsi-attention: started")
    assert ended["problem"].startswith("cancelled; slides that are finished are kept"), ended
    numbers = [int(line) for line in pids.read_text().split()]
    assert len(numbers) == 4
    deadline = time.monotonic() + 10
    while (left := [one for one in numbers if _alive(one)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def _alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_call_that_is_refused_says_why(drive: Driver, tmp_path: Path) -> None:
    drive("open", uri=(tmp_path / "x.svs").as_uri(), w=SIZE[0], h=SIZE[1])
    command = program(tmp_path, "echo 'wsi-attention: error: no model folder'; exit 2")
    said = drive("classify", command=command, model="none", results=str(tmp_path / "out"))["problem"]
    assert said == "wsi-attention ended with status 2: wsi-attention: error: no model folder"
    assert "no results folder is set" in drive("import")["problem"]


def test_a_project_of_results_opens_and_takes_them_in(drive: Driver, tmp_path: Path) -> None:
    slide = tmp_path / "my slides" / "s 1.tif"
    slide.parent.mkdir()
    tifffile.imwrite(slide, np.full((SIZE[1], SIZE[0], 3), 200, np.uint8), photometric="rgb")
    written = write_project(results(tmp_path / "out", slide))
    opened = drive("project", file=str(written.path))
    [image] = opened["images"]
    assert (image["name"], image["id"], image["objects"]) == ("s 1", "1", 0)
    label = image["metadata"]["wsi-attention label"]
    imported = drive("run", script=(written.path.parent / SCRIPT).read_text(encoding="utf-8"))
    assert sorted(imported["objects"]) == ["PathAnnotationObject", "PathTileObject"]
    assert drive("project", file=str(written.path))["images"][0]["objects"] == 2
    before = json.loads(written.path.read_text(encoding="utf-8"))["images"]  # as QuPath itself has written it now
    write_project(tmp_path / "out")
    assert json.loads(written.path.read_text(encoding="utf-8"))["images"] == before
    fresh = drive("project", file=str(written.path))["images"][0]
    assert fresh["objects"] == 2 and fresh["metadata"]["wsi-attention label"] == label
    removed = drive("remove")
    assert removed["objects"] == [] and "listed" not in removed


def test_a_project_is_classified_in_one_run(drive: Driver, tmp_path: Path) -> None:
    slide = tmp_path / "s.tif"
    tifffile.imwrite(slide, np.full((SIZE[1], SIZE[0], 3), 200, np.uint8), photometric="rgb")
    prepared = results(tmp_path / "prepared", slide)
    written = write_project(prepared, folder=tmp_path / "project")
    drive("project", file=str(written.path))
    command = program(tmp_path, f'mkdir -p "$OUT"; cp -r {prepared}/. "$OUT"; echo "wsi-attention: 1 of 1: s: x"')
    given = {"command": command, "model": "mine", "results": str(tmp_path / "out")}
    done = drive("classify", **given, project=True)
    assert done["outcome"] == "1 of 1 images have results" and done["listed"] == done["label"] != ""
    assert done["lines"][-2:] == ["wsi-attention: 1 of 1: s: x", "importing into 1 images"]
    assert "wsi.classifyProject(getProject(), getCurrentImageData(), settings)" in drive("script")["script"]


def test_the_menu_is_used_as_a_person_does(classes: str, tmp_path: Path) -> None:
    """On a screen that xvfb-run makes: items, dialog, progress, map, clipboard; pictures of the windows are kept."""
    if not shutil.which("xvfb-run"):
        pytest.skip("no xvfb-run, which makes a screen for the menu")
    slide = tmp_path / "s.svs"
    prepared = results(tmp_path / "prepared", slide)
    text = f'mkdir -p "$OUT"; cp -r {prepared}/. "$OUT"; echo "wsi-attention: 1 of 1: s: lesion 0.90"; sleep 0.2'
    given = [slide.as_uri(), *map(str, SIZE), program(tmp_path, text), "mine", str(tmp_path / "out"), str(tmp_path)]
    java = ["java", f"-Djava.util.prefs.userRoot={tmp_path}", "-Dprism.order=sw", "-cp", classes]
    ran = subprocess.run(
        ["xvfb-run", "-a", *java, "qupath.ext.wsiattention.DriveMenu", *given],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    classify = ["Classify image…", "Classify project…", "-", "Import results…", "Remove results", "-"]
    assert found["items"] == [*classify, "Show attention map", "Hide attention map", "Copy as script"]
    assert found["early script"] == "nothing was done yet that a script could do again"
    assert found["early map"].startswith("no tile in this image has the measurement Attention percentile or Weight")
    assert found["outcome"].endswith(": 2 objects imported") and found["objects"] == 2
    assert found["map"] and found["hidden"]
    assert f"results: '{tmp_path / 'out'}'" in found["script"] and "wsi.classifyImage" in found["script"]
    assert (found["removed"], found["kept"]) == ("2 objects removed", "mine")
    for name in ("settings", "classified", "removed"):
        assert (tmp_path / f"{name}.png").stat().st_size > 2000
