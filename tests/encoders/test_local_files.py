"""Folders of encoders as they lie on an offline cluster: what they say of the network, the weights and the colours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wsi_attention.encoders.local_files import (
    is_encoder_folder,
    is_folder,
    local_encoder,
    name_of_folder,
    weights_of_folder,
)
from wsi_attention.errors import InputError

PUBLISHED = {"mean": [0.7, 0.5, 0.6], "std": [0.2, 0.3, 0.1], "classifier": "head"}
TIMM = {"architecture": "vit_tiny_patch16_224", "model_args": {"depth": 2}, "pretrained_cfg": PUBLISHED}


def folder_with(folder: Path, config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_folder_of_timm_says_network_and_colours(tmp_path: Path) -> None:
    for config in (TIMM, {"architecture": TIMM["architecture"], **PUBLISHED}):
        found = local_encoder(str(folder_with(tmp_path, config)))
        assert found.entry is None
        assert found.architecture == "vit_tiny_patch16_224"
        assert found.colours == ((0.7, 0.5, 0.6), (0.2, 0.3, 0.1))
        assert not found.origin
    assert local_encoder(str(folder_with(tmp_path, TIMM))).arguments == {"depth": 2}


def test_a_snapshot_of_a_known_repository_is_that_encoder(tmp_path: Path) -> None:
    repository = tmp_path / "models--MahmoodLab--UNI2-h"
    folder_with(repository / "snapshots" / ("a" * 40), TIMM)
    for path in (repository, repository / "snapshots" / ("a" * 40)):
        found = local_encoder(str(path))
        assert found.entry is not None
        assert found.entry.name == "uni2-h"
        assert (found.origin.repository, found.origin.revision) == ("MahmoodLab/UNI2-h", "a" * 40)
        assert is_encoder_folder(path)


def test_a_folder_of_transformers_says_where_it_was_copied_from(tmp_path: Path) -> None:
    copied = {"model_type": "vit", "_name_or_path": "MahmoodLab/UNI2-h"}
    found = local_encoder(str(folder_with(tmp_path, copied))).entry
    assert found is not None
    assert found.name == "uni2-h"
    with pytest.raises(InputError, match=r"\(model_type vit\) does not say which timm network .*encoder_start"):
        local_encoder(str(folder_with(tmp_path, {"model_type": "vit"})))


def test_the_weights_of_a_folder(tmp_path: Path) -> None:
    folder_with(tmp_path, TIMM)
    with pytest.raises(InputError, match="holds no file of weights"):
        weights_of_folder(tmp_path)
    torch.save({"x": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"as pytorch_model.bin, .*convert it once: wsi-attention encoders convert /"):
        weights_of_folder(tmp_path)
    save_file({"x": torch.ones(1)}, tmp_path / "uni.safetensors")
    assert weights_of_folder(tmp_path) == tmp_path / "uni.safetensors"
    (tmp_path / "pytorch_model.bin").unlink()
    save_file({"x": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"holds several: other.safetensors, uni.safetensors; give one of them"):
        weights_of_folder(tmp_path)


def test_what_is_no_encoder_is_said(tmp_path: Path) -> None:
    assert not is_encoder_folder(tmp_path)
    assert not is_encoder_folder(tmp_path / "nowhere")
    model = folder_with(tmp_path / "model", {"format": 2, "method": "ats"})
    assert not is_encoder_folder(model)
    with pytest.raises(InputError, match="is the folder of a model, not of an encoder"):
        local_encoder(str(model))
    with pytest.raises(InputError, match=r"has no config\.json that can be read"):
        local_encoder(str(tmp_path))
    (model / "config.json").write_text("{")
    with pytest.raises(InputError, match="is no JSON"):
        local_encoder(str(model))


@pytest.mark.parametrize("name", ["/data/uni", "uni/", "models/uni", "./uni", "~/uni", "/data/a:b/c"])
def test_a_path_is_a_folder(name: str) -> None:
    assert is_folder(name)


@pytest.mark.parametrize(
    "name",
    ["small", "uni2-h", "timm:resnet50", "timm:hf-hub:lab/net", "hf_hub:a/b", 'h0 {"a": "b/c"}', ""],
)
def test_a_name_is_no_folder(name: str) -> None:
    assert not is_folder(name)


def test_a_folder_has_a_name_that_builds_it_anywhere(tmp_path: Path) -> None:
    assert name_of_folder(str(folder_with(tmp_path / "a", TIMM))) == 'timm:vit_tiny_patch16_224 {"depth": 2}'
    assert name_of_folder(str(folder_with(tmp_path / "b", {"architecture": "resnet18"}))) == "timm:resnet18"
    known = folder_with(tmp_path / "models--MahmoodLab--UNI2-h" / "snapshots" / ("a" * 40), TIMM)
    assert name_of_folder(str(known)) == "uni2-h"
    assert name_of_folder(str(folder_with(tmp_path / "c", {"_name_or_path": "owkin/phikon"}))).startswith("phikon")
