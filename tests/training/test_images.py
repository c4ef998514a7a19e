"""Training on plain images: a model folder from a zarr array and from files, labels in a table, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray

from wsi_attention.checkpoint import load_model
from wsi_attention.config import Recipe, changed, default_recipe
from wsi_attention.csv_table import read_table
from wsi_attention.errors import InputError
from wsi_attention.evaluation.evaluation import evaluate
from wsi_attention.inference.images import classify_images
from wsi_attention.inference.predict import predict
from wsi_attention.slide.readers.array import ArrayLevels
from wsi_attention.slide.slide import open_slide
from wsi_attention.tiles.tensors import TensorSource
from wsi_attention.training.images import RememberedImage, Views
from wsi_attention.training.run import train

OPTIONS = {"networks": "fast", "tile_size": 36, "overview_mpp": 4.0, "draws": 4, "earlier_draws": [6], "channels": 1}


def recipe() -> Recipe:
    return changed(default_recipe("ats-mnist-fast"), epochs=2, batch=2, model=OPTIONS, validation_share=0.5)


def squares(count: int) -> NDArray[np.uint8]:
    """A bright block somewhere, striped along x for even numbers and along y for odd ones."""
    rng, images = np.random.default_rng(0), np.zeros((count, 96, 96), np.uint8)
    for number, image in enumerate(images):
        y, x = rng.integers(0, 72, 2)
        image[y : y + 24, x : x + 24] = 255
        image[y : y + 24, x : x + 24][(slice(None), slice(None, None, 2))[:: 1 if number % 2 else -1]] = 0
    return images


def labelled(folder: Path, names: list[str]) -> Path:
    rows = [f"{name},{'odd' if number % 2 else 'even'}" for number, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["slide,label", *rows, ""]), encoding="utf-8")
    return folder / "labels.csv"


def test_an_array_is_learnt_and_labelled(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=squares(8))
    labels = labelled(tmp_path, [str(number) for number in range(8)])
    result = train(labels, None, tmp_path / "model", recipe(), images=tmp_path / "a.zarr", device="cpu")
    assert (result.epochs, dict(result.failed)) == (2, {})
    again = train(labels, None, tmp_path / "model", recipe(), images=tmp_path / "a.zarr", device="cpu")
    assert again.finished_before
    assert classify_images(tmp_path / "a.zarr", tmp_path / "model", tmp_path / "out", device="cpu") == {}
    first = read_table(tmp_path / "out" / "predictions.csv")
    assert classify_images(tmp_path / "a.zarr", tmp_path / "model", tmp_path / "out", device="cpu") == {}
    second = read_table(tmp_path / "out" / "predictions.csv")
    assert [cells | {"seconds": ""} for _, cells in first.rows] == [cells | {"seconds": ""} for _, cells in second.rows]
    assert evaluate(tmp_path / "out", labels, split="all").scores.n == 8
    slide = open_slide(ArrayLevels((np.full((96, 96, 3), 200, np.uint8),)), mpp=1.0)
    with pytest.raises(InputError, match="model model learnt from plain images"):
        predict(slide, tmp_path / "model", device="cpu")


def test_models_of_slides_and_folders_of_their_results_are_refused(tmp_path: Path) -> None:
    tiny = load_model("demo")
    np.save(tmp_path / "a.npy", squares(1)[0])
    with pytest.raises(InputError, match=f"model {tiny.name} learnt from slides"):
        classify_images(tmp_path, tiny, tmp_path / "out", device="cpu")
    of_images = replace(tiny, config={**tiny.config, "plain_images": True})
    (tmp_path / "out/states").mkdir(parents=True)
    with pytest.raises(InputError, match="holds results of slides"):
        classify_images(tmp_path, of_images, tmp_path / "out", device="cpu")


def test_an_overview_is_computed_once_while_there_is_room() -> None:
    images, views = torch.from_numpy(squares(2)[:, None]), Views(24 * 24)
    for number, times in ((0, 1), (1, 2)):  # the second finds no room
        plain = TensorSource(images[number : number + 1])
        source = RememberedImage(plain, str(number), views)
        for _ in range(2):
            assert torch.equal(source.overview(4.0), TensorSource(plain.images).overview(4.0))
        assert plain.counters.pixels == times * 24 * 24


def test_an_image_that_does_not_fit_is_left_out_by_name(tmp_path: Path) -> None:
    for number, image in enumerate(squares(8)):
        np.save(tmp_path / f"i{number}.npy", image if number != 3 else image.astype(np.float32))
    labels = labelled(tmp_path, [f"i{number}.npy" for number in range(8)])
    result = train(labels, None, tmp_path / "model", recipe(), images=tmp_path, device="cpu")
    assert list(result.failed) == ["i3.npy"]
    assert "image i3: float32" in result.failed["i3.npy"]


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=squares(3))
    labels = labelled(tmp_path, ["0", "1", "2", "7"])
    with pytest.raises(InputError, match=r"1 of 4 images not in .*a.zarr: 7; it has 0 to 2"):
        train(labels, None, tmp_path / "model", recipe(), images=tmp_path / "a.zarr", device="cpu")
    with pytest.raises(InputError, match="leave out -i and --features"):
        train(labels, tmp_path, tmp_path / "model", recipe(), images=tmp_path / "a.zarr", device="cpu")
    with pytest.raises(InputError, match='take bag = "slide"'):
        patient = changed(recipe(), bag="patient")
        train(labels, None, tmp_path / "model", patient, images=tmp_path / "a.zarr", device="cpu")
