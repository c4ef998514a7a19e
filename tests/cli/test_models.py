"""`wsi-attention models`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from wsi_attention.checkpoint import SHIPPED
from wsi_attention.cli import models as module
from wsi_attention.encoders.places import VARIABLE

app = typer.Typer()
app.command()(module.models)


def test_shipped_local_and_fetched_models_and_encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local, hub = tmp_path / "work" / "models" / "mine", tmp_path / "hub"
    fetched = hub / "models--lab--camelyon" / "snapshots" / "0123"
    for folder in (local, fetched):
        shutil.copytree(SHIPPED / "demo", folder)
    broken = tmp_path / "work" / "broken"
    shutil.copytree(local, broken)
    (broken / "config.json").write_text('{"format": 99, "method": "ats"}')
    (tmp_path / "work" / "other").mkdir()
    (tmp_path / "work" / "other" / "config.json").write_text('{"format": 1}')
    (tmp_path / "encoders").mkdir()
    (tmp_path / "encoders" / "uni2-h.safetensors").touch()
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "encoders"))
    ran = CliRunner().invoke(app, [str(tmp_path / "work")])
    assert ran.exit_code == 0, ran.output
    shipped, here, away, encoders = ran.stdout.strip().split("\n\n")
    assert "demo" in shipped and "demonstration" in shipped
    assert "lymph-node-mosaic" in shipped and "research example" in shipped
    head, *rows = here.splitlines()
    assert head == f"in {tmp_path / 'work'}:"
    assert [row.split()[0] for row in rows] == ["model", str(local), "cannot"]
    assert "lesion" in rows[1] and f"cannot be used: {broken / 'config.json'} has format 99" in rows[2]
    assert str(fetched) in away
    assert encoders.splitlines()[1].split() == ["uni2-h", str(tmp_path / "encoders" / "uni2-h.safetensors")]


def test_a_folder_must_be_one(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, [str(tmp_path / "nowhere")])
    assert "no such folder" in str(ran.exception)
