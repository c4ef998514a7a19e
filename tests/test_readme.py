"""Every code block of the README runs, in a folder that holds what a checkout holds."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import warm_python

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
SET_UP = "python -m pip install"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    (folder / "sample_slides").symlink_to(ROOT / "sample_slides")
    return folder


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ran = warm_python.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, f"{shlex.join(command)}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def test_it_has_at_most_900_words_with_code_and_tables() -> None:
    assert len(README.split()) <= 900


def test_every_block_says_its_language() -> None:
    assert BLOCKS
    assert {language for language, _ in BLOCKS} <= {"bash", "python"}


@pytest.mark.parametrize("block", [text for language, text in BLOCKS if language == "python"])
def test_python_blocks_run(block: str, checkout: Path) -> None:
    assert "tiles read" in run([sys.executable, "-c", block], checkout)


def test_shell_commands_run_in_order(checkout: Path) -> None:
    lines = [line for language, text in BLOCKS if language == "bash" for line in text.splitlines() if line.strip()]
    ran = [run(shlex.split(line), checkout) for line in lines if not line.startswith(SET_UP)]
    assert ran
    assert (checkout / "results" / "predictions.csv").is_file()
    assert (checkout / "my-model" / "model.safetensors").is_file()


def test_set_up_commands_name_what_tox_has() -> None:
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    commands = re.findall(r"python -m pip install tox && (tox.*)", README)
    assert commands == ["tox run -e demo", "tox"]
    assert "testenv:demo" in tox
    assert tox["tox"]["env_list"].split() == ["tests"]


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
