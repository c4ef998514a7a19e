"""What the commands write where: terminals that lack characters, readers that go away, Ctrl-C while they start."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import warm_python

from wsi_attention.testing.slides import SlideSpec, write_slide

MAIN = "from wsi_attention.cli import main; main()"
ENCODINGS = ("cp932", "cp1252", "ascii")
MORE_ENCODINGS = ("cp936", "cp949", "cp1250", "koi8-r")
ODD = ("a\nb", "c\x85d", "e\u202ef", "g\x1b[31mh", "中µ", ":bug:")
CLASSES = ("beni\u202egn", "les\x85i\non")
RECIPE = """
epochs = 1
validation_share = 0.34
[model]
draws = 2
tile_size = 64
tile_mpp = 1.0
overview_mpp = 8.0
encoder_widths = [8, 16]
features = 16
attention_widths = [8, 8]
context = 3
"""
INTERRUPTED = """
import importlib.abc, os, signal, sys, time

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            os.kill(os.getpid(), signal.SIGINT)
            try:
                time.sleep(60)
            except KeyboardInterrupt:  # as some libraries do
                raise ImportError(name)

MODULE = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupting())
"""


def run(
    *arguments: str, encoding: str | None = None, code: str = MAIN, start: Callable[..., Any] = warm_python.run
) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"PYTHONUTF8": "0", "PYTHONIOENCODING": encoding} if encoding else {**os.environ}
    ran: subprocess.CompletedProcess[bytes] = start(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True
    )
    return ran


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "a.svs"
    write_slide(path, SlideSpec((1024, 1024), seed=1))
    return path


@pytest.mark.parametrize(
    "encoding", [*ENCODINGS, *(pytest.param(one, marks=pytest.mark.slow) for one in MORE_ENCODINGS)]
)
def test_characters_that_a_terminal_lacks_do_not_end_a_command(slide: Path, encoding: str) -> None:
    ran = run("info", str(slide), encoding=encoding, start=subprocess.run)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"m/px" in ran.stdout


@pytest.mark.parametrize("encoding", ["cp1250", "koi8-r"])
def test_every_page_of_text_can_be_written(encoding: str, tmp_path: Path) -> None:
    assert run("methods", encoding=encoding).returncode == 0
    assert run("classify", "--help", encoding=encoding).returncode == 0
    ran = run("info", str(tmp_path / "中µ.svs"), encoding=encoding)
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert rb"\u4e2d" in ran.stderr and ran.stderr.count(b"\n") == 1


def test_a_folder_whose_name_the_terminal_lacks(slide: Path, tmp_path: Path) -> None:
    out = tmp_path / "结果"
    ran = run("classify", str(slide), "-o", str(out), "-m", "demo", "--what", "tiles", encoding="cp1252")
    assert ran.returncode == 0
    assert ran.stderr.splitlines() == [b"wsi-attention: demonstration model: the label means nothing on real tissue"]
    assert (out / "tiles/a.csv").is_file()
    assert rb"\u7ed3\u679c" in ran.stdout


def test_a_reader_that_has_had_enough(slide: Path) -> None:
    command = f'"{sys.executable}" -c "{MAIN}" info {"$SLIDE " * 20} | head -1; echo "${{PIPESTATUS[0]}}"'
    ran = subprocess.run(
        ["bash", "-c", command], env=os.environ | {"SLIDE": str(slide)}, capture_output=True, text=True
    )
    assert ran.stderr == ""
    assert ran.stdout.splitlines()[1:] == ["0"]


@pytest.mark.parametrize("module", ["typer", "torch"])
def test_ctrl_c_while_a_library_is_imported(module: str, slide: Path, tmp_path: Path) -> None:
    arguments = [module, "classify", str(slide), "-o", str(tmp_path / "out"), "-m", "demo"]
    ran = run(*arguments, code=INTERRUPTED + MAIN, start=subprocess.run)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, b"", b"wsi-attention: interrupted\n")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels, predictions and GeoJSON that are full of line ends, direction marks and escape sequences."""
    folder = tmp_path_factory.mktemp("odd")
    rows = [(name, CLASSES[index % 2], f"p{name}") for index, name in enumerate(ODD)]
    tables = {
        "labels.csv": [("slide", "label", "patient"), *rows],
        "predictions.csv": [("slide", "status", *(f"prob_{name}" for name in CLASSES))]
        + [(name, "done", "0.2", "0.8") for name in ODD],
    }
    for name, content in tables.items():
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(content)
    geometry = {"type": "Po\u202eint\n", "coordinates": [5, 5]}
    feature = {"type": "Feature", "id": "x\n\x85", "geometry": geometry, "properties": {"objectType": "an\x1b"}}
    (folder / "odd.geojson").write_text(json.dumps(feature, ensure_ascii=False), encoding="utf-8")
    return folder


def harmless(ran: subprocess.CompletedProcess[bytes], encoding: str) -> list[str]:
    lines = b"".join((ran.stdout, ran.stderr)).decode(encoding).split(os.linesep)
    assert [line for line in lines if not line.isprintable()] == []
    return lines


@pytest.mark.parametrize("encoding", ["cp932", "cp1252"])
def test_odd_names_among_results_are_one_line_each(odd: Path, encoding: str) -> None:
    ran = run("evaluate", "-p", str(odd / "predictions.csv"), "-l", str(odd / "labels.csv"), encoding=encoding)
    lines = harmless(ran, encoding)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert lines[-5:-3] == [rf"{name:<20}{'0':>14}{'3':>14}" for name in (r"beni\u202egn", r"les\x85i\non")]
    assert lines[-2].startswith("page  ")
    ran = run("validate", str(odd / "odd.geojson"), encoding=encoding)
    assert (ran.returncode, ran.stderr) == (1, b"")
    lines = harmless(ran, encoding)
    assert len(lines) == 5 and r"Po\u202eint\n" in lines[1]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
def test_odd_names_in_training_are_one_line_each(odd: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(ODD):
        write_slide(tmp_path / f"s/{name}.svs", SlideSpec(size=(1024, 1000), seed=seed, label="lesion", lesion_scale=8))
    (tmp_path / f"s/{ODD[-1]}.svs").write_bytes(b"II*\0")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    given = {"-l": odd / "labels.csv", "-i": tmp_path / "s", "-o": tmp_path / "m\n\x85", "--negative": CLASSES[0]}
    given |= {"--config": tmp_path / "recipe.toml", "--device": "cpu", "--method": "ats"}
    ran = run("train", *(str(part) for pair in given.items() for part in pair), encoding="cp1252")
    lines = harmless(ran, "cp1252")
    assert ran.returncode == 0
    assert any(line.startswith("left out: :bug:: ") for line in lines)
    assert rf"{tmp_path}{os.sep}m\n\x85: best of 1 epochs is 1" in "\n".join(lines)
