"""Where the encoder's weights of a training come from, by what the recipe names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wsi_attention.config import Recipe
from wsi_attention.encoders.conversion import About, convert
from wsi_attention.encoders.libraries import timm_package
from wsi_attention.encoders.origin import NOBODY, Origin
from wsi_attention.encoders.table import entry_of
from wsi_attention.errors import InputError, MissingExtraError
from wsi_attention.methods.method import build_model, find_method
from wsi_attention.training.encoder_choice import settled
from wsi_attention.training.origin import encoder_origin
from wsi_attention.training.start import take_encoder

pytestmark = pytest.mark.usefixtures("warm_processes")
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


def test_a_copy_of_a_known_repository_gives_the_features_of_its_network(tmp_path: Path) -> None:
    known = entry_of("distillpath-ks16-hopt0")
    try:
        network = timm_package().create_model(known.architecture, num_classes=0).eval()
    except MissingExtraError as error:
        pytest.skip(str(error))
    repository = tmp_path / f"models--{known.repository.replace('/', '--')}"
    folder = repository / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architecture": known.architecture}))
    save_file(network.state_dict(), folder / "model.safetensors")
    found = settled(recipe(str(repository)))
    assert encoder_origin(found) == Origin(known.name, known.repository, COMMIT, known.licence, known.redistributable)
    model = build_model("ats", 2, **found.model)
    take_encoder(model, found.encoder_start)
    tiles = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model.eval().encoder(tiles), torch.nn.functional.normalize(network(tiles), dim=-1))
    options = find_method("ats").complete(found.model)
    assert options["encoder"]["name"] == known.name
    assert (options["tile_size"], options["mean"]) == (224, list(known.mean))
