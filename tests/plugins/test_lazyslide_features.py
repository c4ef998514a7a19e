"""Features that LazySlide itself extracted: read from its store, equal to those of the pixels, and trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsi_attention import Classifier, TileSet, load_model, open_slide, predict, tile_features, train
from wsi_attention.bags import read_bag
from wsi_attention.checkpoint import save_model
from wsi_attention.config import Recipe
from wsi_attention.encoders.torchvision_guard import without_torchvision
from wsi_attention.inference import encoder_name
from wsi_attention.inference.alone import predict_alone
from wsi_attention.methods.method import build_model
from wsi_attention.model_card import ModelCard
from wsi_attention.protocols import contract_of

wsidata = pytest.importorskip("wsidata", reason="pip install lazyslide")
pytest.importorskip("wsi_attention_lazyslide", reason="pip install plugins/lazyslide")
with without_torchvision():
    zs = pytest.importorskip("lazyslide", reason="pip install lazyslide")
    pytest.importorskip("lazyslide_models")

ROOT = Path(__file__).resolve().parents[2]
SLIDES = ("sample_01.svs", "sample_02.svs")
SIDE, MPP = 256, 0.5
"""As fine as the sample slides' level 0, so that no one resizes pixels."""
pytestmark = [
    pytest.mark.filterwarnings("ignore:zarr v3 autosharding"),
    pytest.mark.filterwarnings("ignore:Consolidated metadata"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def mil(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = tmp_path_factory.mktemp("model") / "mil"
    encoder = {"widths": [8, 8], "features": 8, "frozen": True}
    options = {"tile_size": SIDE, "tile_mpp": MPP, "encoder": encoder, "hidden": 8}
    torch.manual_seed(0)
    card = ModelCard(method="mil", classes=("benign", "lesion"), arguments=options)
    save_model(folder, build_model("mil", 2, **options), card)
    return load_model(folder)


class Encoder(torch.nn.Module):
    """The model's encoder as LazySlide calls one: pixels (b, h, w, 3) in, features out."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        contract = contract_of(classifier.model)
        assert contract.encoder is not None
        self.preprocess, self.encoder = contract.preprocess, contract.encoder

    def forward(self, pixels: torch.Tensor) -> Any:
        return self.encoder(self.preprocess(pixels.permute(0, 3, 1, 2)))


@pytest.fixture(scope="module")
def stores(mil: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores that LazySlide's own functions leave."""
    folder = tmp_path_factory.mktemp("stores")
    for name in SLIDES:
        store = folder / f"{Path(name).stem}.zarr"
        wsi = wsidata.open_wsi(ROOT / "sample_slides" / name, reader="wsi-attention", store=store)
        zs.pp.find_tissues(wsi)
        zs.pp.tile_tissues(wsi, SIDE, mpp=MPP)
        own = {"model": Encoder(mil), "model_name": "own", "transform": None, "device": "cpu"}
        zs.tl.feature_extraction(wsi, **own, num_workers=0, pbar=False)
        wsi.tables["own_tiles"].uns["wsi_attention_encoder"] = encoder_name(mil)
        wsi.write()
    return folder


def test_a_genuine_store_gives_the_probabilities_of_the_pixels(stores: Path, mil: Classifier, tmp_path: Path) -> None:
    slide = ROOT / "sample_slides" / SLIDES[0]
    bag = read_bag(stores / "sample_01.zarr")
    assert bag.features is not None and len(bag) > 50
    assert (bag.side, bag.pixels, bag.mpp, bag.encoder) == (SIDE, SIDE, MPP, encoder_name(mil))
    with open_slide(slide) as opened:
        assert bag.extent == opened.dimensions
    tiles = TileSet(bag.locations[None], (SIDE, SIDE), 1.0)
    pixels, valid = tile_features(slide, mil, tiles, device="cpu", precision="32")
    assert valid.all()
    unit = bag.features / np.linalg.norm(bag.features, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, pixels / np.linalg.norm(pixels, axis=1, keepdims=True), atol=1e-5, rtol=0)
    alone = predict_alone(stores / "sample_01.zarr", mil, device="cpu", precision="32")
    beside = predict(slide, mil, device="cpu", precision="32", features=stores / "sample_01.zarr")
    np.testing.assert_allclose(alone.probabilities, beside.probabilities, atol=1e-6)
    with torch.inference_mode():
        features = torch.nn.functional.normalize(torch.from_numpy(pixels), dim=-1)
        model: Any = mil.model
        weights = model.attention(features).softmax(-1)
        found = model.classifier((weights[:, None] * features).sum(0)).softmax(-1).numpy()
    np.testing.assert_allclose(alone.probabilities, found, atol=1e-5, rtol=0)


def test_training_takes_genuine_stores(stores: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "slide,label,split\nsample_01,benign,train\nsample_02,lesion,train\n"
        "sample_01b,benign,validation\nsample_02b,lesion,validation\n"
    )
    folder = tmp_path / "stores"
    folder.mkdir()
    for name in ("sample_01", "sample_02"):
        (folder / f"{name}.zarr").symlink_to(stores / f"{name}.zarr")
        (folder / f"{name}b.zarr").symlink_to(stores / f"{name}.zarr")
    train(labels, None, tmp_path / "out", Recipe(method="mil", epochs=1, precision="32"), features=folder, device="cpu")
    assert load_model(tmp_path / "out").config["options"]["tile_size"] == SIDE
