"""Where the encoder's weights of a training come from, by what the recipe names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wsi_attention.config import Recipe
from wsi_attention.encoders.conversion import About, convert
from wsi_attention.encoders.origin import NOBODY, Origin
from wsi_attention.errors import InputError
from wsi_attention.training.encoder_choice import settled
from wsi_attention.training.origin import encoder_origin

COMMIT = "e" * 40
LAB = Origin("lab-vit", "lab/vit", "", "CC-BY-NC-ND-4.0", False)


def recipe(encoder: str = "small", frozen: bool = True, **changes: str) -> Recipe:
    return Recipe(method="ats", model={"encoder": encoder, "encoder_frozen": frozen}, **changes)  # type: ignore[arg-type]


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in the cache of the hub."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--lab--net" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    save_file({"x": torch.ones(1)}, folder / "model.safetensors")
    return folder


def test_fresh_weights_are_nobodys() -> None:
    assert encoder_origin(recipe()) == NOBODY
    assert encoder_origin(recipe("hub:lab/net")) == NOBODY
    assert encoder_origin(recipe(encoder_start="demo")) == NOBODY


def test_a_published_encoder_comes_with_its_weights_unless_others_are_named() -> None:
    assert encoder_origin(settled(recipe("uni2-h"))).name == "uni2-h"
    assert encoder_origin(settled(recipe("uni2-h", start="demo"))) == NOBODY
    with pytest.raises(InputError, match=r"uni2-h: its licence \(CC-BY-NC-ND-4.0\) forbids"):
        encoder_origin(settled(recipe("uni2-h", frozen=False)))


def test_a_folder_is_where_its_weights_and_colours_come_from(snapshot: Path) -> None:
    found = settled(recipe(str(snapshot)))
    assert (found.encoder_start, found.statistics) == (str(snapshot), "encoder")
    assert settled(recipe(str(snapshot), encoder_start="x.safetensors")).encoder_start == "x.safetensors"
    assert settled(recipe(str(snapshot), statistics="tissue")).statistics == "tissue"
    assert encoder_origin(found).redistributable is True


def test_files_say_it_themselves_or_by_where_they_lie(tmp_path: Path, snapshot: Path) -> None:
    torch.save({"x": torch.ones(1)}, tmp_path / "w.bin")
    converted = convert(tmp_path / "w.bin", about=About(origin=LAB)).path
    assert encoder_origin(recipe(encoder_start=str(converted))) == LAB
    net = Origin(f"hub:lab/net@{COMMIT}", "lab/net", COMMIT, "mit", True)
    for start in (snapshot, snapshot.parent.parent, snapshot / "model.safetensors"):
        assert encoder_origin(recipe(encoder_start=str(start))) == net
    plain = convert(tmp_path / "w.bin").path
    assert encoder_origin(recipe(encoder_start=str(plain))) == NOBODY
    assert encoder_origin(recipe("uni2-h", encoder_start=str(plain))).name == "uni2-h"
