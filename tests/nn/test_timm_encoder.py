"""Encoders of timm by name; what needs timm itself is skipped, with the reason, where it cannot be loaded."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from wsi_attention.checkpoint import build_model
from wsi_attention.encoders import libraries
from wsi_attention.encoders.encoder_weights import fill_encoder
from wsi_attention.encoders.libraries import timm_package
from wsi_attention.errors import InputError, MissingExtraError
from wsi_attention.nn.encoders import TileEncoder
from wsi_attention.nn.vit_attention import with_attention, with_class_rows
from wsi_attention.training.start import encoder_colours, take_encoder, without_hub

SMALL_VIT = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 64, "patch_size": 16}
VIT = f"timm:vit_tiny_patch16_224 {json.dumps(SMALL_VIT)}"
CONVNET = "timm:test_resnet.r160_in1k"


def timm() -> Any:
    try:
        return timm_package()
    except MissingExtraError as error:
        pytest.skip(str(error))


def images(side: int, seed: int = 0) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


def state(encoder: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in encoder.state_dict().items()}


def test_without_timm_one_line_tells_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'huggingface-hub>=.+' 'timm>=.+'$") as caught:
        build_model("ats", 2, encoder="timm:resnet50")
    assert "\n" not in str(caught.value)


def test_without_the_hubs_package_one_line_tells_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        MissingExtraError, match=r"hub:lab/encoder needs .*pip install 'huggingface-hub>=.+' 'timm>=.+'$"
    ):
        TileEncoder(name="hub:lab/encoder").build()


@pytest.mark.parametrize("name", ["timm:resnet18 {img", "timm:resnet18 3"])
def test_arguments_must_be_json(name: str) -> None:
    with pytest.raises(InputError, match="what follows the name must be"):
        TileEncoder(name=name).build()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet5O", r"timm has no encoder 'resnet5O'; did you mean .*resnet50"),
        ("timm:qqqq", r"timm.list_models\(\) names what there is"),
        ("timm:resnet50.nonsense", "timm cannot build resnet50.nonsense: Invalid pretrained tag"),
        ('timm:resnet18 {"nonsense": 1}', "timm cannot build resnet18 .*nonsense"),
    ],
)
def test_slips_are_named(name: str, message: str) -> None:
    timm()
    with pytest.raises(InputError, match=message):
        TileEncoder(name=name).build()


@pytest.mark.parametrize(
    "name",
    [CONVNET, VIT, "timm:test_efficientnet", "timm:test_convnext", "timm:test_vit3", "timm:mobilenetv3_small_050"],
)
def test_features_are_unit_of_each_tile_alone_and_of_any_size(name: str) -> None:
    timm()
    encoder = TileEncoder(name=name).build().eval()
    with torch.no_grad():
        for side in (96, 150):
            features = encoder(images(side))
            assert features.shape == (2, encoder.dim)
            torch.testing.assert_close(features.norm(dim=-1), torch.ones(2))
            torch.testing.assert_close(encoder(images(side)[1:]), features[1:], atol=1e-5, rtol=1e-4)


def test_a_network_of_one_size_says_so_and_takes_that_size() -> None:
    timm()
    name = "timm:swin_tiny_patch4_window7_224"
    small = {"embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}
    encoder = TileEncoder(name=f"{name} {json.dumps(small)}").build().eval()
    with pytest.raises(InputError, match=r"does not take tiles of 128 x 128 px .*\"img_size\": 128"):
        encoder(images(128))
    assert TileEncoder(name=f"{name} {json.dumps(small | {'img_size': 128})}").build().eval()(images(128)).shape == (
        2,
        96,
    )


def test_colours_are_the_published_weights_own() -> None:
    timm()
    encoder = TileEncoder(name="timm:vit_tiny_patch16_224").build()
    assert (encoder.mean, encoder.std) == ((0.5,) * 3, (0.5,) * 3)
    model = build_model("ats", 2, encoder="timm:resnet18", encoder_frozen=True)
    assert encoder_colours(model, "") == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def test_the_state_dict_has_timms_names_frozen_or_not_and_takes_a_file_with_its_classifier() -> None:
    published = timm().create_model("test_resnet", num_classes=7)
    plain, frozen = (TileEncoder(name=CONVNET, frozen=one).build() for one in (False, True))
    names = [name for name in published.state_dict() if not name.startswith("fc.")]
    assert list(plain.state_dict()) == list(frozen.state_dict()) == names
    for encoder in (plain, frozen):
        fill_encoder(encoder, published.state_dict(), "published")
        with torch.no_grad():
            expected = nn.functional.normalize(
                published.eval().forward_head(published.forward_features(images(64)), pre_logits=True)
            )
            torch.testing.assert_close(encoder.eval()(images(64)), expected)


def test_attention_matrices_are_the_layers_own_and_change_nothing() -> None:
    timm()
    encoder = TileEncoder(name=VIT).build().eval()
    layers = [part for part in encoder.modules() if type(part).__name__ == "Attention"]
    assert all(layer.fused_attn for layer in layers)
    with torch.no_grad():
        plain = encoder(images(80))
        features, matrices = with_attention(encoder, images(80))
        _, rows = with_class_rows(encoder, images(80))
        assert torch.equal(features, plain)
        assert torch.equal(encoder(images(80)), plain)
        assert not any(layer._forward_pre_hooks for layer in layers)
        inside = _unfused(encoder, layers, images(80))
    assert len(matrices) == len(rows) == SMALL_VIT["depth"]
    for matrix, row, own in zip(matrices, rows, inside, strict=True):
        assert matrix.shape == (2, 3, 26, 26)
        torch.testing.assert_close(matrix, own, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(row, own[:, :, 0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(matrix.sum(-1), torch.ones(2, 3, 26))


def _unfused(encoder: nn.Module, layers: list[nn.Module], x: Tensor) -> list[Tensor]:
    """The attention that the layers compute by themselves where fused kernels are switched off."""
    found: list[Tensor] = []
    for layer in layers:
        layer.fused_attn = False  # type: ignore[assignment]
        layer.attn_drop.register_forward_pre_hook(lambda _, given: found.append(given[0]))  # type: ignore[operator,union-attr]
    encoder(x)
    return found


def test_encoders_without_plain_attention_or_class_token_are_refused() -> None:
    with pytest.raises(InputError, match="no plain self-attention"):
        with_attention(TileEncoder(name="small").build(), images(64))
    timm()
    pooled = TileEncoder(
        name=f"timm:vit_tiny_patch16_224 {json.dumps(SMALL_VIT | {'class_token': False, 'global_pool': 'avg'})}"
    ).build()
    with pytest.raises(InputError, match="no class token"):
        with_class_rows(pooled, images(64))
    assert len(with_attention(pooled, images(64))[1]) == 2


def hub(
    folder: Path, monkeypatch: pytest.MonkeyPatch, config: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> Path:
    """A hub cache that holds one repository, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    snapshot = folder / "models--lab--encoder" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0" * 40)
    (snapshot / "config.json").write_text(json.dumps(config))
    if weights:
        save_file(dict(weights), snapshot / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


CONFIG = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 5,
    "model_args": {**SMALL_VIT, "init_values": 1e-5},
    "pretrained_cfg": {
        "mean": [0.7, 0.5, 0.6],
        "std": [0.2, 0.3, 0.1],
        "classifier": "head",
        "first_conv": "patch_embed.proj",
        "input_size": [3, 64, 64],
        "num_classes": 5,
    },
}


@pytest.mark.parametrize("name", ["hub:lab/encoder", "timm:hf-hub:lab/encoder", "hub:lab/encoder@main"])
def test_a_hub_model_with_its_weights_and_colours_is_rebuilt_without_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = timm().create_model(CONFIG["architecture"], num_classes=5, **CONFIG["model_args"]).eval()
    hub(tmp_path / "cache", monkeypatch, CONFIG, published.state_dict())
    before = torch.random.get_rng_state()
    model = build_model("ats", 2, encoder=name, encoder_frozen=True)
    drawn = torch.random.get_rng_state()
    assert not torch.equal(before, drawn)
    assert encoder_colours(model, "pretrained") == {"mean": [0.7, 0.5, 0.6], "std": [0.2, 0.3, 0.1]}
    take_encoder(model, "pretrained")
    assert torch.equal(torch.random.get_rng_state(), drawn)
    with torch.no_grad():
        expected = nn.functional.normalize(
            published.forward_head(published.forward_features(images(64)), pre_logits=True)
        )
        torch.testing.assert_close(model.encoder(images(64)), expected)
    arguments = without_hub(model, {"encoder": name, "encoder_frozen": True})
    (tmp_path / "cache").rename(tmp_path / "gone")
    again = build_model("ats", 2, **arguments)
    again.load_state_dict(model.state_dict())
    with pytest.raises(InputError, match=r"config.json of hub:lab/encoder.* cannot be had"):
        TileEncoder(name=name).build()


def test_a_repository_with_a_pickle_only_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm()
    hub(tmp_path, monkeypatch, CONFIG, {})
    torch.save({}, next(tmp_path.rglob("config.json")).with_name("pytorch_model.bin"))
    with pytest.raises(
        InputError, match=r"model.safetensors of hub:lab/encoder cannot be had .*give it as encoder_start"
    ):
        take_encoder(build_model("ats", 2, encoder="hub:lab/encoder"), "pretrained")


def test_a_foreign_repository_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm()
    hub(tmp_path, monkeypatch, {"architectures": ["BertModel"]}, {})
    with pytest.raises(InputError, match="is no timm model"):
        TileEncoder(name="hub:lab/encoder").build()


@pytest.mark.parametrize("name", ["timm:resnet18", "uni"])
@pytest.mark.parametrize("key", ["checkpoint_path", "pretrained_cfg_overlay", "pretrained"])
def test_no_argument_makes_timm_read_weights_by_itself(name: str, key: str) -> None:
    timm()
    with pytest.raises(InputError, match=f"{key} is no argument of the network; weights come by encoder_start"):
        TileEncoder(name=f'{name} {{"{key}": "x.pth"}}').build()
