"""The stream of Megapixel MNIST: the published rules, and the pixels that a tensor of the whole canvas would give."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsi_attention.structures import TileSet
from wsi_attention.tiles.tensors import TensorSource

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def canvases(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import megapixel_canvases

    monkeypatch.setattr(megapixel_canvases, "SET", 20)
    return megapixel_canvases


def made(canvases: Any, seed: int = 0) -> Any:
    labels = np.repeat(np.arange(10), 3)
    images = np.random.default_rng(1).integers(1, 255, (30, 28, 28)).astype(np.uint8)
    return canvases.Stream(canvases.Digits(images, labels), seed)


def test_three_digits_are_of_the_label_and_no_two_overlap(canvases: Any) -> None:
    stream = made(canvases)
    plan = stream.plan(0)
    same = stream.digits.labels[plan.digits] == plan.labels[:, None]
    assert same[:, :3].all()
    assert not same[:, 3:].any()
    apart = np.abs(plan.digit_places[:, :, None] - plan.digit_places[:, None]).max(-1)
    assert apart[:, ~np.eye(5, dtype=bool)].min() >= 28
    assert plan.digit_places.min() >= 0
    assert plan.digit_places.max() <= 1500 - 28
    assert plan.scribbles.shape == (20, 50)
    assert plan.scribble_places.min() >= 28
    assert plan.scribble_places.max() < 1500 - 28
    assert set(np.unique(plan.labels)) <= set(range(10))


def test_it_shows_what_the_whole_canvas_shows(canvases: Any) -> None:
    source = canvases.CanvasSource(made(canvases), 4)
    for numbers in (np.arange(4), np.arange(18, 22)):  # the second batch crosses into the next set
        labels = source.show(numbers)
        whole = TensorSource(source.painted())
        assert torch.equal(source.overview(1500 / 180), whole.overview(1500 / 180))
        corners = np.random.default_rng(2).integers(-40, 1500, (4, 6, 2))
        tiles = TileSet(corners, (50, 50), 1.0)
        assert torch.equal(source.read(tiles).pixels, whole.read(tiles).pixels)
        again = canvases.CanvasSource(made(canvases), 2)
        assert np.array_equal(again.show(numbers[2:]), labels[2:])
        assert torch.equal(again.painted(), source.painted()[2:])


def test_later_blocks_replace_what_they_cover(canvases: Any) -> None:
    blocks, places = np.full((1, 2, 28, 28), 9, np.uint8), np.array([[[10, 10], [20, 5]]])
    left = canvases.visible(blocks, places)
    assert int((left[0, 0] == 0).sum()) == 18 * 23
    assert (left[0, 1] == 9).all()


def test_a_canvas_is_what_painting_one_block_after_the_other_gives(canvases: Any) -> None:
    stream = made(canvases)
    source, numbers = canvases.CanvasSource(stream, 3), np.arange(3)
    source.show(numbers)
    _, blocks, places = stream.canvases(numbers)
    for canvas, own, corners in zip(source.painted()[:, 0].numpy(), blocks, places, strict=True):
        painted = np.zeros((1500, 1500), np.uint8)
        for block, (y, x) in zip(own, corners, strict=True):
            painted[y : y + 28, x : x + 28] = block
        assert np.array_equal(canvas, painted)


def test_idx_files_are_read_with_and_without_gzip(canvases: Any, tmp_path: Path) -> None:
    pixels = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    packed = struct.pack(">HBB3I", 0, 8, 3, 2, 28, 28) + pixels.tobytes()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(packed))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 2) + bytes([7, 1]))
    digits = canvases.load_digits(tmp_path, "train")
    assert digits.labels.tolist() == [1, 7]
    assert np.array_equal(digits.images, pixels[::-1])
