"""Encode a batch of tiles: only the valid ones, in chunks that bound memory and shrink where it runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from threading import local
from time import perf_counter

import torch
from torch import Tensor, nn

from wsi_attention.errors import OutOfMemoryError
from wsi_attention.nn.batch_size import BatchSizes, largest_useful, out_of_memory
from wsi_attention.nn.engines import features_of
from wsi_attention.structures import TileBatch
from wsi_attention.timing import spent_on

CHUNK = 64
"""Tiles encoded at once in eval mode, where a larger number has not proved faster."""
MOST = 256
"""Most tiles encoded at once on a GPU; as many as are read in one request (`methods.rounds.PART`)."""
CPU_MOST = CHUNK
"""The same on the CPU."""
CPU_PIXELS = 2**20
"""Most pixels encoded at once on the CPU, 16 tiles of 256²: more take more memory, but no less time."""
SIZES = BatchSizes()
"""What this process has found."""


@spent_on("encode")
def encode(tiles: TileBatch, preprocess: nn.Module, encoder: nn.Module, chunk: int | None = None) -> Tensor:
    """Return the features (b, n, d) of all tiles; zeros where a tile is not valid.

    Args:
        tiles: pixels (b, n, c, h, w) and which of them are valid; at least one is.
        preprocess: (m, c, h, w) of any dtype -> floats on the device.
        encoder: (m, c, h, w) -> (m, d).
        chunk: tiles at a time in eval mode; where None, what `CPU_PIXELS` allows on the CPU, and on a GPU what proves
            fastest and fits. In train mode all tiles go through at once, because their activations are kept anyway.

    Raises:
        OutOfMemoryError: in eval mode, not even one tile fits.
    """
    valid = tiles.valid.flatten()
    pixels = tiles.pixels.flatten(0, 1)
    if not bool(valid.all()):
        pixels = pixels[valid.to(pixels.device)]
    if encoder.training:
        features: Tensor = encoder(preprocess(pixels))
    else:
        features = _in_best_chunks(pixels, preprocess, encoder, chunk)
    if features.shape[0] < valid.numel():
        everywhere = features.new_zeros(valid.numel(), features.shape[-1])
        features = everywhere.index_put((valid.to(features.device).nonzero().squeeze(-1),), features)
    return features.reshape(*tiles.valid.shape, -1)


def _in_best_chunks(pixels: Tensor, preprocess: nn.Module, encoder: nn.Module, chunk: int | None) -> Tensor:
    def network(part: Tensor) -> Tensor:
        return features_of(encoder, preprocess(part))

    device = _device_of(encoder, preprocess)
    first, most = _range_on(device, pixels)
    if chunk or len(pixels) <= first or first == most:
        return in_chunks(network, pixels, chunk or first, device)
    kind = device, tuple(pixels.shape[1:]), torch.is_autocast_enabled((device or pixels.device).type)
    search = partial(_search, network, pixels[:1], device, first, most)
    size = SIZES.of(encoder, kind, search)
    return in_chunks(network, pixels, size, device, partial(SIZES.lower, encoder, kind))


def _range_on(device: torch.device | None, pixels: Tensor) -> tuple[int, int]:
    """Return how many tiles to try first, and at most."""
    if device is not None and device.type != "cpu":
        return CHUNK, MOST if device.type == "cuda" else CHUNK  # elsewhere `_wait` cannot tell when work has ended
    fit = max(1, CPU_PIXELS // (pixels.shape[-2] * pixels.shape[-1]))
    return min(CHUNK, fit), min(CPU_MOST, fit)


def _search(
    network: Callable[[Tensor], Tensor], tile: Tensor, device: torch.device | None, first: int, most: int
) -> int:
    """Return how many tiles at once are fastest, tried on copies of one; the first run of a size is not timed."""

    def seconds(size: int) -> float:
        copies = tile.repeat(size, *(1,) * (tile.dim() - 1))
        with torch.no_grad():
            in_parts = _brought((copies, copies), device)
            network(next(in_parts))
            _wait(device)
            start = perf_counter()
            network(next(in_parts))
            _wait(device)
        return perf_counter() - start

    return largest_useful(seconds, first, most, partial(_give_back, device))


def in_chunks(
    network: Callable[[Tensor], Tensor],
    pixels: Tensor,
    chunk: int,
    device: torch.device | None = None,
    told: Callable[[int], None] | None = None,
) -> Tensor:
    """Return a network's output for (n, …), `chunk` at a time; where memory runs out, half as many, down to one.

    The size of a chunk may change the last bits of a feature, because libraries order sums by the shape of a batch.

    Args:
        network: (m, …) -> (m, …).
        pixels: (n, …), n at least 1.
        chunk: m at first.
        device: where to bring the pixels; the network does it where None or the CPU.
        told: is told how many tiles are tried next, where memory ran out.

    Raises:
        OutOfMemoryError: not even one fits.
    """
    done: list[Tensor] = []
    start = 0
    while start < len(pixels):
        failed = ""
        try:
            for part in _brought(torch.split(pixels[start:], chunk), device):
                done.append(network(part))
                start += len(part)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            failed = " ".join(str(error).split())[:200] or type(error).__name__
        if failed and chunk == 1:  # outside `except`, where the traceback still holds the memory
            raise OutOfMemoryError(
                f"not even one tile of {pixels.shape[-1]} × {pixels.shape[-2]} px fits into memory: {failed};"
                " take fewer workers, or a smaller encoder or tile"
            )
        if failed:
            chunk = -(-min(chunk, len(pixels) - start) // 2)
            _give_back(device)
            if told:
                told(chunk)
    return torch.cat(done)


class _Copies(local):
    """A thread's streams that bring pixels to GPUs: the memory that a stream was given is used by no other."""

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def on(self, device: torch.device) -> torch.cuda.Stream:
        """Return the stream to a GPU."""
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        return self._streams[device]


_COPIES = _Copies()


def _brought(parts: tuple[Tensor, ...], device: torch.device | None) -> Iterator[Tensor]:
    """Yield the parts on the device; on a GPU, a part is copied while the network still computes on the one before."""
    if device is None or device.type != "cuda" or parts[0].is_cuda:
        yield from parts
        return
    copies = _COPIES.on(device)
    computes = torch.cuda.current_stream(device)
    for part in parts:
        with torch.cuda.stream(copies):
            moved = part.pin_memory().to(device, non_blocking=True)
        computes.wait_stream(copies)
        moved.record_stream(computes)
        yield moved


def computes_aside(*networks: nn.Module) -> bool:
    """Return whether networks compute while this thread goes on: on a GPU, until somebody looks at the result."""
    device = _device_of(*networks)
    return device is not None and device.type == "cuda"


def _wait(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def _give_back(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.empty_cache()


def _device_of(*networks: nn.Module) -> torch.device | None:
    held = (tensor for network in networks for tensor in (*network.parameters(), *network.buffers()))
    return next((tensor.device for tensor in held), None)
