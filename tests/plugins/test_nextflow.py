"""The Nextflow module: its commands in bash as Nextflow would stage them, and Nextflow where there is one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "plugins" / "nextflow"
MODULE = PLUGIN / "modules" / "wsi-attention" / "classify"
TEXT = (MODULE / "main.nf").read_text(encoding="utf-8")
DEMO = ROOT / "wsi_attention" / "shipped" / "demo"
TEXTS = {".md", ".nf", ".yml", ".yaml", ".toml", ".smk"}
SLIDE = ROOT / "sample_slides" / "sample_01.svs"


def commands(block: str) -> str:
    """The bash text of a block, with the variables that Nextflow would fill in."""
    found = re.search(rf'{block}:.*?"""\n(.*?)"""', TEXT, re.DOTALL)
    assert found, f"no {block} block"
    text = found[1].replace("\\\\\n", "\\\n")
    asked = "--device cpu --what geojson,tiles,report,heatmap"
    values = {"prefix": "sample", "model": "demo", "task.cpus": "1", "args": asked}
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value)
    assert "${" not in text, "a variable that this test does not know"
    return text


def outputs() -> dict[str, str]:
    """emit name -> declared path, with the prefix filled in."""
    rows = re.findall(r'path\("([^"]+)"\), emit: (\w+)', TEXT)
    return {name: path.replace("${prefix}", "sample") for path, name in rows}


def run(block: str, folder: Path) -> None:
    (folder / "slides").mkdir()
    (folder / "slides" / SLIDE.name).symlink_to(SLIDE)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = f"set -euo pipefail\n{commands(block)}"
    subprocess.run(["bash", "-c", script], cwd=folder, env=os.environ | {"PATH": path}, check=True, capture_output=True)


@pytest.mark.parametrize("block", [pytest.param("script", marks=pytest.mark.slow), "stub"])
def test_commands_leave_every_declared_output(block: str, tmp_path: Path) -> None:
    run(block, tmp_path)
    for name, pattern in outputs().items():
        assert list(tmp_path.glob(pattern)), f"{name}: nothing at {pattern}"
    if block == "script":
        table = (tmp_path / "sample" / "predictions.csv").read_text(encoding="utf-8")
        assert table.splitlines()[1].startswith("sample_01,done,")


def test_the_description_names_the_inputs_and_outputs_of_the_process() -> None:
    meta = yaml.safe_load((MODULE / "meta.yml").read_text(encoding="utf-8"))
    emitted = re.findall(r"emit: (\w+)", TEXT)
    assert list(meta["output"]) == emitted and len(emitted) == 7
    paths = {name: next(key for key in channel[0][1]) for name, channel in meta["output"].items() if name in outputs()}
    assert {name: path.replace("${prefix}", "sample") for name, path in paths.items()} == outputs()
    slides, model = meta["input"]
    assert [next(iter(part)) for part in slides] == ["meta", "slides"] and next(iter(model)) == "model"


def test_our_version_stands_in_the_package_alone() -> None:
    from wsi_attention import __version__

    named = re.compile(rf"wsi.attention(_version)?[:=]+{re.escape(__version__)}", re.IGNORECASE)
    texts = [path for room in ("plugins", "packaging") for path in (ROOT / room).rglob("*") if path.suffix in TEXTS]
    texts.append(PLUGIN / "Dockerfile")
    assert len(texts) > 20
    assert [path for path in texts if named.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.skipif(shutil.which("nextflow") is None, reason="nextflow is not installed")
@pytest.mark.parametrize("mode", [[], ["-stub"]])
def test_nextflow_runs_the_workflow(mode: list[str], tmp_path: Path) -> None:
    subprocess.run(["nextflow", "run", PLUGIN, "--slides", SLIDE, "--model", DEMO, *mode], cwd=tmp_path, check=True)
    assert (tmp_path / "predictions.csv").is_file()
