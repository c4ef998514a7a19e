"""`wsi-attention info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import typer
from typer.testing import CliRunner

from wsi_attention.cli import info as module

app = typer.Typer()
app.command()(module.info)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    pixels = np.full((256, 320, 3), 240, np.uint8)
    tifffile.imwrite(tmp_path / "s.tif", pixels, tile=(64, 64), photometric="rgb")
    return tmp_path / "s.tif"


def test_a_page_for_people(slide: Path) -> None:
    ran = run(slide, "--mpp", "0.25")
    assert ran.exit_code == 0, ran.output
    rows = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines() if line and not line.startswith("level"))
    assert rows["size"] == "320 x 256 px"
    assert rows["mpp"] == "0.25 x 0.25 µm/px (from: given)"
    assert "level 0      320 x 256 px, downsample 1, stored tiles 64x64" in ran.stdout.splitlines()


def test_a_bad_slide_is_a_line_and_the_others_are_shown(slide: Path) -> None:
    ran = run(slide.with_name("gone.svs"), slide, "--json")
    assert ran.exit_code == 1
    assert (
        ran.stderr == f"wsi-attention: error: {slide.with_name('gone.svs')}: no such file or folder; check the path\n"
    )
    assert json.loads(ran.stdout)["mpp"] is None
