"""A model on weights that must not be given on holds none of them, finds them again, and says how to get them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from wsi_attention.checkpoint import README, WEIGHTS, build_model, load_model, save_model
from wsi_attention.encoders.encoder_weights import save_encoder
from wsi_attention.encoders.origin import Origin
from wsi_attention.encoders.places import VARIABLE
from wsi_attention.errors import InputError, ModelError
from wsi_attention.model_card import ModelCard
from wsi_attention.model_encoder import EncoderPart, tensors_sha256
from wsi_attention.tiles.tensors import TensorSource

GATED = Origin("lab-vit", "lab/vit", "v1", "CC-BY-NC-ND-4.0", False)
SMALL = {"overview_mpp": 4.0, "tile_mpp": 1.0, "tile_size": 32, "encoder_widths": [8, 16], "features": 16}
METHODS = {
    "ats": {**SMALL, "draws": 4, "attention_widths": [8, 8], "context": 3},
    "zoom-in": {},
    "tnet": {},
    "trt": {},
}


@pytest.fixture(autouse=True)
def encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of fetched encoders; the hub's cache is empty."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "encoders"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "encoders"


def model(method: str = "ats", *, frozen: bool = True, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(method, 2, **METHODS[method], encoder_frozen=frozen).eval()


def saved(folder: Path, trained: nn.Module, origin: Origin, method: str = "ats", *, frozen: bool = True) -> Path:
    arguments = {**METHODS[method], "encoder_frozen": frozen}
    save_model(folder, trained, ModelCard(method, arguments, ("a", "b"), encoder=origin))
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_a_folder_on_gated_weights_holds_none_of_them_and_is_the_same_model(
    method: str, tmp_path: Path, encoders: Path
) -> None:
    trained = model(method)
    encoder = trained.encoder.state_dict()
    folder = saved(tmp_path / "model", trained, GATED, method)
    held = load_file(folder / WEIGHTS)
    assert held
    assert not set(held) & {f"encoder.{name}" for name in encoder}
    for value in encoder.values():
        drawn = value.numel() > 1 and value.unique().numel() > 1  # fresh scales and biases are the same everywhere
        assert not (drawn and any(torch.equal(value, other) for other in held.values()))
    save_encoder(encoders / "lab-vit.safetensors", trained.encoder)
    again = load_model(folder).model
    assert all(torch.equal(again.state_dict()[name], value) for name, value in trained.state_dict().items())


def test_the_folder_says_origin_and_licence(tmp_path: Path) -> None:
    trained = model()
    folder = saved(tmp_path / "model", trained, GATED)
    stored = json.loads((folder / "config.json").read_text())["encoder_weights"]
    assert stored == {
        "name": "lab-vit",
        "repository": "lab/vit",
        "revision": "v1",
        "licence": "CC-BY-NC-ND-4.0",
        "redistributable": False,
        "sha256": tensors_sha256(trained.encoder.state_dict()),
        "contained": False,
    }
    page = (folder / README).read_text()
    assert "lab-vit (lab/vit, v1): licence CC-BY-NC-ND-4.0, must not be given on." in page
    assert "not in this folder; `wsi-attention encoders fetch lab-vit` gets them" in page
    assert EncoderPart.of(stored) == EncoderPart(GATED, stored["sha256"], False)


def test_without_the_weights_one_sentence_says_the_command(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", model(), GATED)
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert str(caught.value) == (
        f"model {folder} needs the weights of lab-vit, which it may not contain (licence CC-BY-NC-ND-4.0, must not be "
        "given on) and which are not on this machine; get them with: wsi-attention encoders fetch lab-vit"
    )


def test_other_weights_and_those_of_another_network_are_refused(tmp_path: Path, encoders: Path) -> None:
    folder = saved(tmp_path / "model", model(), GATED)
    save_encoder(encoders / "lab-vit.safetensors", model(seed=1).encoder)
    with pytest.raises(ModelError, match=r"has sha256 \w{12}…, .* expects \w{12}….*; get them with: wsi-att") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    save_encoder(encoders / "lab-vit.safetensors", nn.Linear(2, 2))
    with pytest.raises(ModelError, match=r"lab-vit.safetensors do not fit the encoder: .*encoders fetch lab-vit"):
        load_model(folder)


def test_weights_in_the_cache_of_the_hub_are_found(tmp_path: Path) -> None:
    trained = model()
    folder = saved(tmp_path / "model", trained, GATED)
    cached = tmp_path / "hub" / "models--lab--vit"
    save_encoder(cached / "snapshots" / ("1" * 40) / "model.safetensors", trained.encoder)
    (cached / "refs").mkdir()
    (cached / "refs" / "v1").write_text("1" * 40)
    assert load_model(folder).encoder == EncoderPart(GATED, tensors_sha256(trained.encoder.state_dict()), False)


def test_weights_that_may_be_given_on_or_are_nobodys_stay_in_the_folder(tmp_path: Path) -> None:
    free = Origin("lab-net", "lab/net", "", "Apache-2.0", True)
    for name, origin in (("free", free), ("own", Origin())):
        folder = saved(tmp_path / name, model(), origin)
        assert any(tensor.startswith("encoder.") for tensor in load_file(folder / WEIGHTS))
        assert load_model(folder).encoder == (
            EncoderPart(free, tensors_sha256(model().encoder.state_dict()), True) if origin else None
        )
    assert "licence Apache-2.0, may be given on" in (tmp_path / "free" / README).read_text()


def test_changed_weights_are_refused_or_kept_with_a_warning(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lab-vit: its licence \(CC-BY-NC-ND-4.0\) forbids .*encoder_frozen = true"):
        saved(tmp_path / "model", model(frozen=False), GATED, frozen=False)
    assert not (tmp_path / "model").exists()
    unknown = Origin("hub:lab/net", "lab/net")
    folder = saved(tmp_path / "model", model(frozen=False), unknown, frozen=False)
    assert "in this folder: do not give it on" in (folder / README).read_text()
    assert load_model(folder).encoder is not None


def test_a_model_is_the_same_after_a_prediction_and_pickling_goes_by_the_folder(tmp_path: Path, encoders: Path) -> None:
    import pickle

    trained = model()
    folder = saved(tmp_path / "model", trained, GATED)
    save_encoder(encoders / "lab-vit.safetensors", trained.encoder)
    images = torch.rand(1, 3, 100, 120)
    again = pickle.loads(pickle.dumps(load_model(folder)))
    with torch.no_grad():
        one, other = trained(TensorSource(images)), again.model(TensorSource(images))
    assert torch.equal(one.logits, other.logits)
