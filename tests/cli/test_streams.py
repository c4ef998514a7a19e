"""What the commands write where: terminals that lack characters, readers that go away, Ctrl-C while they start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wsi_attention.testing.slides import SlideSpec, write_slide

MAIN = "from wsi_attention.cli import main; main()"
ENCODINGS = ["cp932", "cp936", "cp949", "cp1250", "cp1252", "koi8-r", "ascii"]
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


def run(*arguments: str, encoding: str | None = None, code: str = MAIN) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"PYTHONUTF8": "0", "PYTHONIOENCODING": encoding} if encoding else {**os.environ}
    return subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "a.svs"
    write_slide(path, SlideSpec((1024, 1024), seed=1))
    return path


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_characters_that_a_terminal_lacks_do_not_end_a_command(slide: Path, encoding: str) -> None:
    ran = run("info", str(slide), encoding=encoding)
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
    ran = run(*arguments, code=INTERRUPTED + MAIN)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, b"", b"wsi-attention: interrupted\n")
