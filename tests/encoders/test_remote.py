"""Encoders of other people's code: refused in one sentence, and run only where the user asks for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from wsi_attention.encoders import authors
from wsi_attention.encoders.libraries import transformers_class
from wsi_attention.errors import InputError, MissingExtraError
from wsi_attention.nn.encoders import TileEncoder

CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling


class TheirConfig(PretrainedConfig):
    model_type = "their-encoder"

    def __init__(self, width=8, **more):
        super().__init__(**more)
        self.width = width


class TheirModel(PreTrainedModel):
    config_class = TheirConfig

    def __init__(self, config):
        super().__init__(config)
        self.project = torch.nn.Linear(3, config.width)
        self.post_init()

    def forward(self, pixel_values):
        return BaseModelOutputWithPooling(pooler_output=self.project(pixel_values.mean((-2, -1))))
"""


@pytest.mark.parametrize("name", ["hibou-b", "hibou-l", "conch-v1.5", "genbio-pathfm", "tinypath"])
def test_code_of_a_repository_is_not_run_unless_the_user_says_so(name: str) -> None:
    with pytest.raises(InputError) as caught:
        TileEncoder(name=name).build()
    text = str(caught.value)
    assert "\n" not in text
    assert "built by Python code in its repository" in text or "is not established" in text


@pytest.mark.parametrize(
    ("name", "package"), [("conch", "git+https://github.com/mahmoodlab/CONCH.git"), ("musk", "fairscale git+https://")]
)
def test_a_package_of_the_authors_is_named_where_it_is_missing(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authors, "find_spec", lambda _: None)
    with pytest.raises(
        MissingExtraError, match=f"needs the package {name} of its authors, .*: pip install {re.escape(package)}"
    ):
        TileEncoder(name=name).build()


def test_code_that_is_in_no_package_is_said_to_be_so() -> None:
    with pytest.raises(InputError, match=r"'ctranspath'.* (cannot be driven from here|is not established)"):
        TileEncoder(name="ctranspath").build()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub cache with code under the name of Hibou-B's repository, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    try:
        transformers_class("AutoModel")
    except MissingExtraError as error:
        pytest.skip(str(error))
    from transformers import dynamic_module_utils

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    home = tmp_path / "models--histai--hibou-b"
    snapshot = home / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0" * 40)
    kinds = {"AutoConfig": "theirs.TheirConfig", "AutoModel": "theirs.TheirModel"}
    (snapshot / "config.json").write_text(json.dumps({"model_type": "their-encoder", "width": 8, "auto_map": kinds}))
    (snapshot / "theirs.py").write_text(CODE)
    yield snapshot


def test_code_of_a_repository_runs_where_the_user_trusts_it(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSI_ATTENTION_TRUSTED", "lab/other, histai/hibou-b")
    encoder = TileEncoder(name='hibou-b {"dim": 8}').build()
    tiles = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = encoder.network.project(tiles.mean((-2, -1)))
        torch.testing.assert_close(encoder.raw(tiles), expected)
    assert TileEncoder(name=encoder.name).build().dim == 8
    monkeypatch.setenv("WSI_ATTENTION_TRUSTED", "histai/hibou")
    with pytest.raises(InputError, match="set the environment variable WSI_ATTENTION_TRUSTED=histai/hibou-b, else"):
        TileEncoder(name=encoder.name).build()
