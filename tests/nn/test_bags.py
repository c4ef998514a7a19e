"""Encoding a bag: chunks change nothing, failed tiles never reach the encoder."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from wsi_attention.errors import OutOfMemoryError
from wsi_attention.nn.bags import encode
from wsi_attention.nn.preprocess import Normalise
from wsi_attention.structures import TileBatch


class Recording(nn.Module):
    """Mean of each channel; remembers how many tiles came at once, and the largest value."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.largest = 0.0

    def forward(self, tiles: Tensor) -> Tensor:
        """(m, c, h, w) -> (m, c)."""
        self.sizes.append(len(tiles))
        self.largest = max(self.largest, float(tiles.detach().max()))
        return tiles.mean((-1, -2))


def bag(valid: list[list[bool]]) -> TileBatch:
    mask = torch.tensor(valid)
    pixels = torch.rand(*mask.shape, 3, 4, 4, requires_grad=True)
    return TileBatch(torch.where(mask[..., None, None, None], pixels, 99.0), mask)


def test_only_valid_tiles_are_encoded_in_chunks() -> None:
    tiles, encoder = bag([[True, False, True], [True, True, True]]), Recording().eval()
    features = encode(tiles, nn.Identity(), encoder, chunk=2)
    assert encoder.sizes == [2, 2, 1]
    assert encoder.largest <= 1.0
    assert features.shape == (2, 3, 3)
    assert features[0, 1].tolist() == [0.0, 0.0, 0.0]
    torch.testing.assert_close(features[1], tiles.pixels[1].mean((-1, -2)))
    torch.testing.assert_close(features[0, 2], tiles.pixels[0, 2].mean((-1, -2)))


def test_training_takes_all_at_once() -> None:
    encoder = Recording().train()
    encode(bag([[True] * 5]), nn.Identity(), encoder, chunk=2)
    assert encoder.sizes == [5]


class Narrow(Recording):
    """Fails for more tiles than fit, as a real encoder does."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.most, self.error = most, error

    def forward(self, tiles: Tensor) -> Tensor:
        """(m, c, h, w) -> (m, c)."""
        features = super().forward(tiles)
        if len(tiles) > self.most:
            raise self.error
        return features


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("could not create a primitive"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_where_memory_runs_out_chunks_are_halved_from_there_on(error: Exception) -> None:
    tiles, encoder = bag([[True] * 11]), Narrow(3, error).eval()
    features = encode(tiles, nn.Identity(), encoder, chunk=8)
    assert encoder.sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    assert torch.equal(features[0], tiles.pixels[0].mean((-1, -2)))


def test_what_is_done_is_not_done_again() -> None:
    class Filling(Recording):
        """Memory that another process takes away after the first chunk."""

        def forward(self, tiles: Tensor) -> Tensor:
            if self.sizes and len(tiles) > 2:
                self.sizes.append(-len(tiles))
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(tiles)

    tiles, encoder = bag([[True] * 9]), Filling().eval()
    features = encode(tiles, nn.Identity(), encoder, chunk=5)
    assert encoder.sizes == [5, -4, 2, 2]
    assert torch.equal(features[0], tiles.pixels[0].mean((-1, -2)))


def test_a_tile_that_does_not_fit_is_one_clear_line() -> None:
    encoder = Narrow(0, RuntimeError("DefaultCPUAllocator:\n can't allocate memory")).eval()
    with pytest.raises(OutOfMemoryError) as caught:
        encode(bag([[True] * 5]), nn.Identity(), encoder, chunk=4)
    assert encoder.sizes == [4, 2, 1]
    assert "not even one tile of 4 × 4 px fits into memory: DefaultCPUAllocator: can't allocate" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, MemoryError)


def test_other_errors_and_training_are_left_alone() -> None:
    encoder = Narrow(1, RuntimeError("mat1 and mat2 shapes cannot be multiplied")).eval()
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        encode(bag([[True] * 4]), nn.Identity(), encoder, chunk=2)
    assert encoder.sizes == [2]
    with pytest.raises(torch.OutOfMemoryError):
        encode(bag([[True] * 4]), nn.Identity(), Narrow(1, torch.OutOfMemoryError("CUDA out of memory.")).train())


LIMITED = """
import resource, sys, torch
from pathlib import Path
from wsi_attention.nn.bags import encode
from wsi_attention.nn.preprocess import Normalise
from wsi_attention.nn.preprocess import Normalise
from wsi_attention.nn.resnet import ResNet18
from wsi_attention.structures import TileBatch

torch.set_num_threads(1)
torch.manual_seed(0)
encoder, sizes = ResNet18().eval(), []
encoder.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
pixels = torch.randint(0, 256, (1, 64, 3, 128, 128), dtype=torch.uint8)
tiles = TileBatch(pixels, torch.ones(1, 64, dtype=torch.bool))
with torch.inference_mode():
    expected = encode(tiles, Normalise(), encoder)
    sizes.clear()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 120 * 2**20, resource.RLIM_INFINITY))
    found = encode(tiles, Normalise(), encoder)
print(sizes, float((found - expected).abs().max()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space and /proc are Linux's")
def test_a_real_limit_of_memory_gives_the_same_features() -> None:
    """ResNet-18 with 120 MB to spare: the first chunk fails in the library, and smaller ones give the same numbers."""
    ran = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    sizes, difference = ran.stdout.strip().rsplit(" ", 1)
    taken = [int(size) for size in sizes.strip("[]").split(", ")]
    assert taken[0] == 64 > taken[-1], "memory did run out"
    assert float(difference) < 1e-6


@pytest.mark.parametrize(("side", "expected"), [(32, 64), (256, 16), (2048, 1)])
def test_large_tiles_come_a_few_at_a_time_on_the_cpu(side: int, expected: int) -> None:
    sizes: list[int] = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            return x[:, :, 0, 0] * self.weight

    pixels = torch.zeros(1, 1, 1, side, side, dtype=torch.uint8).expand(1, 65, 1, side, side)
    encode(TileBatch(pixels, torch.ones(1, 65, dtype=torch.bool)), nn.Identity(), Counting().eval())
    assert sizes[0] == expected
    assert sum(sizes) == 65


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_chunks_copied_beside_the_computing_are_the_right_ones() -> None:
    device = torch.device("cuda")
    tiles = TileBatch(
        torch.randint(0, 256, (1, 50, 3, 256, 256), dtype=torch.uint8), torch.ones(1, 50, dtype=torch.bool)
    )
    preprocess, encoder = Normalise().to(device), nn.Sequential(nn.AvgPool2d(256), nn.Flatten()).eval()
    features = encode(tiles, preprocess, encoder, chunk=3)
    expected = Normalise()(tiles.pixels[0]).mean((-1, -2))
    torch.testing.assert_close(features[0].cpu(), expected, atol=1e-4, rtol=1e-4)
