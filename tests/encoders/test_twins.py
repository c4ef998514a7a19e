"""Every encoder that can be built here: a twin with random weights, as its folder on the hub looks, gives the features
that its authors' documented way gives with timm, transformers and torchvision alone.

Twins have fewer and narrower blocks, so that they are small; whatever else makes them what they are stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wsi_attention.encoders.encoder_weights import fill_encoder
from wsi_attention.encoders.libraries import timm_package, transformers_class
from wsi_attention.encoders.table import entry_of
from wsi_attention.encoders.torchvision_guard import torchvision_problem
from wsi_attention.errors import InputError, MissingExtraError
from wsi_attention.nn.encoders import TileEncoder
from wsi_attention.nn.known_encoder import KnownEncoder
from wsi_attention.nn.preprocess import Normalise

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
BIOPTIMUS = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
LUNIT = ((0.70323, 0.53606, 0.66097), (0.21717, 0.26082, 0.20723))
SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}
NARROW = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16]}
SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
VIRCHOW = {"img_size": 224, "init_values": 1e-5, "num_classes": 0, "mlp_ratio": 5.3375, "global_pool": ""}
GPFM = {"img_size": 224, "init_values": 1e-5, "dynamic_img_size": True}

Features = Callable[[nn.Module, Tensor], Tensor]


def returned(model: nn.Module, tiles: Tensor) -> Tensor:
    out: Tensor = model(tiles)
    return out


def cls_and_mean(before: int) -> Features:
    def features(model: nn.Module, tiles: Tensor) -> Tensor:
        output = model(tiles)
        return torch.cat([output[:, 0], output[:, before:].mean(1)], dim=-1)

    return features


def first_state(model: nn.Module, tiles: Tensor) -> Tensor:
    out: Tensor = model(pixel_values=tiles).last_hidden_state[:, 0, :]
    return out


def first_and_mean_state(model: nn.Module, tiles: Tensor) -> Tensor:
    output = model(tiles).last_hidden_state
    return torch.cat([output[:, 0, :], output[:, 1:, :].mean(1)], dim=-1)


@dataclass(frozen=True)
class Authors:
    """How its authors say that an encoder is used, and how small the twin is.

    Attributes:
        architecture: in config.json of the hub.
        arguments: likewise; those that the authors' call gives again stand in `call`.
        call: further arguments of `timm.create_model`.
        small: arguments that make the twin small.
        dim: length of the twin's feature.
        colours: mean and deviation of the documented transform.
        resize: of the documented transform: side, interpolation.
        tile: side of the tiles that are read.
        features: what is done with the network.
    """

    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=lambda: SMALL)
    dim: int = 48
    colours: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    resize: tuple[int, str] | None = None
    tile: int = 224
    features: Features = returned


UNI = {"init_values": 1e-5, "dynamic_img_size": True}
UNI2 = {
    "img_size": 224, "patch_size": 14, "init_values": 1e-5, "mlp_ratio": 2.66667 * 2, "num_classes": 0,
    "no_embed_class": True, "reg_tokens": 8, "dynamic_img_size": True, **SWIGLU,
}  # fmt: skip
H_OPTIMUS = {"init_values": 1e-5, "dynamic_img_size": False}
KAIKO = {"dynamic_img_size": True, "num_classes": 0}
SMALL_BERT = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
TIMM = {
    "uni": Authors("vit_large_patch16_224", UNI, UNI, resize=(224, "BILINEAR"), tile=256),
    "uni2-h": Authors("vit_giant_patch14_224", {}, UNI2, resize=(224, "BILINEAR"), tile=256),
    "virchow": Authors(
        "vit_huge_patch14_224", VIRCHOW, SWIGLU, dim=96, resize=(224, "BICUBIC"), features=cls_and_mean(1)
    ),
    "virchow2": Authors(
        "vit_huge_patch14_224", {**VIRCHOW, "reg_tokens": 4}, SWIGLU, dim=96, features=cls_and_mean(5)
    ),
    "h-optimus-0": Authors(
        "vit_giant_patch14_reg4_dinov2", {"img_size": 224, "global_pool": "token"}, H_OPTIMUS, colours=BIOPTIMUS
    ),
    "h-optimus-1": Authors(
        "vit_giant_patch14_reg4_dinov2", {"img_size": 224, "global_pool": "token"}, H_OPTIMUS, colours=BIOPTIMUS
    ),
    "h0-mini": Authors(
        "vit_base_patch14_reg4_dinov2",
        {"img_size": 224, "mlp_ratio": 5.33334, "global_pool": "", "init_values": 1e-5},
        SWIGLU, dim=96, colours=BIOPTIMUS, features=cls_and_mean(5),
    ),
    "gigapath": Authors(
        "vit_giant_patch14_dinov2",
        {"img_size": 224, "in_chans": 3, "patch_size": 16, "init_values": 1e-5, "mlp_ratio": 5.33334, "num_classes": 0},
        resize=(256, "BICUBIC"), tile=256,
    ),
    "gpfm": Authors("vit_large_patch14_dinov2", GPFM, resize=(224, "BICUBIC")),
    "mstar": Authors("vit_large_patch16_224", UNI, UNI, resize=(224, "BILINEAR"), tile=256),
    **{
        f"kaiko-{name}": Authors(architecture, {}, KAIKO, colours=HALF, resize=(224, "BILINEAR"), tile=256)
        for name, architecture in {
            "vits8": "vit_small_patch8_224", "vits16": "vit_small_patch16_224", "vitb8": "vit_base_patch8_224",
            "vitb16": "vit_base_patch16_224",
        }.items()
    },
    "kaiko-vitl14": Authors(
        "vit_large_patch14_reg4_dinov2", {}, {**KAIKO, "img_size": 518}, colours=HALF, resize=(224, "BILINEAR"),
        tile=256,
    ),
    "lunit-vits8": Authors("vit_small_patch8_224", colours=LUNIT),
    "lunit-vits16": Authors("vit_small_patch16_224", colours=LUNIT),
    **{
        f"lunit-resnet50-{name}": Authors("resnet50", small=NARROW, dim=64, colours=LUNIT)
        for name in ("bt", "mocov2", "swav")
    },
    **{
        f"distillpath-ks16-{name}": Authors("vit_small_patch16_224", colours=HALF)
        for name in ("hopt0", "uni2h", "virchow2")
    },
}  # fmt: skip
TRANSFORMERS = {
    "phikon": Authors(
        "ViTModel", {"model_type": "vit", "image_size": 224, "patch_size": 16}, resize=(224, "BILINEAR"),
        small={**SMALL_BERT, "intermediate_size": 64}, features=first_state,
    ),
    "phikon-v2": Authors(
        "Dinov2Model", {"model_type": "dinov2", "image_size": 224, "patch_size": 16}, small=SMALL_BERT,
        features=first_state,
    ),
    "midnight-12k": Authors(
        "Dinov2Model", {"model_type": "dinov2", "image_size": 518, "patch_size": 14, "use_swiglu_ffn": True},
        small=SMALL_BERT, dim=96, colours=HALF, resize=(224, "BILINEAR"), features=first_and_mean_state,
    ),
}  # fmt: skip


def timm() -> Any:
    try:
        return timm_package()
    except MissingExtraError as error:
        pytest.skip(str(error))


def library_class(name: str) -> Any:
    try:
        return transformers_class(name)
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts a repository into a hub cache that is all there is: there is no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
        monkeypatch.setattr(constants, name, str(tmp_path), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WSI_ATTENTION_ENCODERS", str(tmp_path / "own"))

    def published(repository: str, config: Mapping[str, Any], weights: Mapping[str, Tensor], file: str) -> Path:
        home = tmp_path / f"models--{repository.replace('/', '--')}"
        snapshot = home / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (home / "refs").mkdir()
        (home / "refs" / "main").write_text("0" * 40)
        (snapshot / "config.json").write_text(json.dumps(config))
        save_file({key: value.contiguous() for key, value in weights.items()}, snapshot / file, {"format": "pt"})
        return snapshot

    return published


def random_weights(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """Weights of which none is negligible, whatever the network's own start makes of it."""
    chance = torch.Generator().manual_seed(seed)
    found = {}
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            found[name] = value.clone()
            continue
        drawn = torch.randn(value.shape, generator=chance)
        scale = 0.3 if value.ndim < 2 else 0.7 * value[0].numel() ** -0.5
        found[name] = scale * drawn + (1.0 if value.ndim < 2 and name.endswith(("weight", "gamma", "var")) else 0.0)
        if name.endswith("running_var"):
            found[name] = found[name].abs() + 0.5
    return found


def tiles_of(side: int) -> list[Image.Image]:
    """Two tiles with structure at many scales."""
    chance = np.random.default_rng(side)
    made = []
    for _ in range(2):
        coarse = Image.fromarray(chance.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((side, side))
        noise = chance.normal(0, 20, (side, side, 3))
        made.append(Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)))
    return made


def transformed(authors: Authors, images: list[Image.Image]) -> Tensor:
    """The tiles through the documented transform: torchvision's, or the same steps where that is not at hand."""
    if torchvision_problem():
        return torch.stack([by_steps(authors, image) for image in images])
    from torchvision import transforms

    steps: list[Any] = []
    if authors.resize:
        side, mode = authors.resize
        interpolation = getattr(transforms.InterpolationMode, mode)
        steps = [transforms.Resize(side, interpolation=interpolation), transforms.CenterCrop(224)]
    steps += [transforms.ToTensor(), transforms.Normalize(*authors.colours)]
    transform = transforms.Compose(steps)
    return torch.stack([transform(image) for image in images])


def by_steps(authors: Authors, image: Image.Image) -> Tensor:
    if authors.resize:
        side, mode = authors.resize
        edge = (side - 224) // 2
        image = image.resize((side, side), Image.Resampling[mode]).crop((edge, edge, edge + 224, edge + 224))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in authors.colours)
    return (pixels - mean) / std


def ours(name: str, given: Mapping[str, Any]) -> KnownEncoder:
    """The encoder by our own way: by name, its published weights, in eval mode."""
    encoder = TileEncoder(name=f"{name} {json.dumps(dict(given))}").build().eval()
    assert isinstance(encoder, KnownEncoder)
    fill_encoder(encoder, encoder.published_weights().tensors, name)
    return encoder


def check_equal(encoder: KnownEncoder, authors: Authors, model: nn.Module, sides: tuple[int, ...]) -> None:
    preprocess = Normalise(encoder.mean, encoder.std)
    assert (encoder.mean, encoder.std) == authors.colours
    for side in sides:
        images = tiles_of(side)
        pixels = torch.stack([torch.from_numpy(np.array(image)) for image in images]).permute(0, 3, 1, 2)
        with torch.no_grad():
            expected = authors.features(model.eval(), transformed(authors, images))
            raw, features = encoder.raw(preprocess(pixels)), encoder(preprocess(pixels))
        assert raw.shape == expected.shape == (2, encoder.dim)
        assert float(expected.std()) > 0.05 and float((expected[0] - expected[1]).abs().max()) > 1e-3
        assert float((raw - expected).abs().max() / expected.abs().max().clamp_min(1)) <= 1e-6
        torch.testing.assert_close(features, nn.functional.normalize(expected, dim=-1), atol=1e-6, rtol=1e-6)


def classes(arguments: Mapping[str, Any]) -> dict[str, Any]:
    known = {"SwiGLUPacked": timm().layers.SwiGLUPacked, "SiLU": nn.SiLU}
    return {key: known.get(value, value) if isinstance(value, str) else value for key, value in arguments.items()}


@pytest.mark.parametrize("name", TIMM)
def test_a_timm_twin_gives_what_its_authors_call_gives(name: str, hub: Callable[..., Path]) -> None:
    authors, entry = TIMM[name], entry_of(name)
    made = timm().create_model(
        authors.architecture, **classes({"num_classes": 0, **authors.arguments, **authors.call, **authors.small})
    )
    weights = random_weights(made, seed=len(name))
    config: dict[str, Any] = {
        "architecture": authors.architecture,
        "num_classes": 0,
        "model_args": {**authors.arguments, **authors.small},
        "pretrained_cfg": {
            "mean": list(authors.colours[0]), "std": list(authors.colours[1]), "input_size": [3, 224, 224],
            "num_classes": 0, "first_conv": "patch_embed.proj", "classifier": "head",
        },
    }  # fmt: skip
    if authors.architecture == "resnet50":
        config["pretrained_cfg"] |= {"first_conv": "conv1", "classifier": "fc"}
    file = "GPFM.safetensors" if name == "gpfm" else "model.safetensors"
    folder = hub(entry.repository, config, weights, file)
    if name == "gpfm":
        model = timm().create_model(authors.architecture, pretrained=False, **GPFM, **authors.small, num_classes=0)
        model.load_state_dict(load_file(folder / file), strict=True)
    else:
        model = timm().create_model(f"hf-hub:{entry.repository}", pretrained=True, **classes(authors.call))
    small = {} if entry.config else authors.small
    whole = {224} if authors.resize is None or authors.resize[0] == 224 else set()
    check_equal(ours(name, {**small, "dim": authors.dim}), authors, model, tuple(whole | {authors.tile}))


def test_a_tile_of_the_networks_own_side_is_seen_as_the_centre_of_a_larger_one() -> None:
    """GigaPath's authors cut 224 px out of 256; who reads 224 px at the same scale reads what is cut out."""
    timm()
    encoder = TileEncoder(name=f"gigapath {json.dumps({**SMALL, 'dim': 48})}").build()
    assert isinstance(encoder, KnownEncoder)
    pixels = torch.from_numpy(np.array(tiles_of(256)[0])).permute(2, 0, 1)[None]
    seen = [encoder.prepared(Normalise(*IMAGENET)(one)) for one in (pixels, pixels[..., 16:240, 16:240])]
    torch.testing.assert_close(*seen, atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="'gigapath' takes tiles of 256 or 224 px, not of 128 x 128 px"):
        encoder.prepared(torch.zeros(1, 3, 128, 128))


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_twin_of_transformers_gives_what_its_authors_call_gives(name: str, hub: Callable[..., Path]) -> None:
    authors, entry = TRANSFORMERS[name], entry_of(name)
    kind = library_class(authors.architecture)
    options = library_class({"ViTModel": "ViTConfig", "Dinov2Model": "Dinov2Config"}[authors.architecture])
    arguments = {**authors.arguments, **authors.small}
    without = {"add_pooling_layer": False} if name == "phikon" else {}
    weights = random_weights(kind(options(**arguments), **without), seed=len(name))
    if name == "phikon":
        weights["pooler.dense.weight"] = torch.zeros(48, 48)  # the file has it, the network has not
    hub(entry.repository, {"architectures": [authors.architecture], **arguments}, weights, "model.safetensors")
    call = kind if without else library_class("AutoModel")
    model = call.from_pretrained(entry.repository, **without)
    small = {} if entry.config else authors.small
    check_equal(ours(name, {**small, "dim": authors.dim}), authors, model, (224,))


class Keep(nn.Module):
    """The image tower of KEEP, as its authors' code has it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.visual = timm().create_model(
            "vit_large_patch16_224", pretrained=False, img_size=224, patch_size=16, init_values=1e-5, num_classes=0,
            dynamic_img_size=True, **SMALL,
        )  # fmt: skip
        self.visual_head = nn.Sequential(nn.Linear(self.visual.num_features, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, tiles: Tensor) -> Tensor:
        out: Tensor = self.visual_head(self.visual(tiles))
        return out


def test_keep_with_its_head_and_its_names(hub: Callable[..., Path]) -> None:
    """On the hub, layer scales are called weight instead of gamma, and the text tower stands beside."""
    authors = Authors("", resize=(224, "BICUBIC"), tile=256, dim=32)
    model = Keep(32)
    weights = random_weights(model, seed=1)
    model.load_state_dict(weights)
    published = {name.replace("ls1.gamma", "ls1.weight").replace("ls2.gamma", "ls2.weight"): value
                 for name, value in weights.items()}  # fmt: skip
    assert published.keys() != weights.keys()
    published |= {"text.embeddings.word.weight": torch.zeros(4, 4), "logit_scale": torch.zeros(())}
    hub("Astaxanthin/KEEP", {"model_type": "keep"}, published, "model.safetensors")
    check_equal(ours("keep", {**SMALL, "dim": 32}), authors, model, (224, 256))


def test_at_least_eighteen_encoders_are_compared() -> None:
    assert len({*TIMM, *TRANSFORMERS, "keep"}) >= 18


@pytest.mark.parametrize("name", ["h0-mini", "mstar"])
def test_an_encoder_that_config_json_completes_is_built_again_without_it(
    name: str, hub: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    authors, entry = TIMM[name], entry_of(name)
    timm()
    folder = hub(entry.repository, {"architecture": authors.architecture, "model_args": {**authors.arguments, **SMALL}},
                 {"x": torch.zeros(1)}, "model.safetensors")  # fmt: skip
    first = TileEncoder(name=f'{name} {{"dim": {authors.dim}}}').build()
    assert isinstance(first, KnownEncoder)
    (folder / "config.json").unlink()
    again = TileEncoder(name=first.name).build()
    assert isinstance(again, KnownEncoder) and again.name == first.name
    again.load_state_dict(first.state_dict())
    with torch.no_grad():
        x = torch.randn(1, 3, 224, 224)
        assert torch.equal(again.eval()(x), first.eval()(x))
