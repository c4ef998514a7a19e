"""Encode a batch of tiles: only the valid ones, in chunks that bound memory and shrink where it runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from wsi_attention.errors import OutOfMemoryError
from wsi_attention.structures import TileBatch
from wsi_attention.timing import spent_on

CHUNK = 64
"""Most tiles encoded at once in eval mode."""
CPU_PIXELS = 2**20
"""Most pixels encoded at once on the CPU, 16 tiles of 256²: more take more memory, but no less time."""
SCARCE = (
    "allocate memory",
    "out of memory",
    "ALLOC_FAILED",
    "could not create a primitive",
    "could not create a memory",
)
"""Texts by which libraries that have no error of their own say so: torch on the CPU, CUDA, cuBLAS, cuDNN, oneDNN."""


@spent_on("encode")
def encode(tiles: TileBatch, preprocess: nn.Module, encoder: nn.Module, chunk: int | None = None) -> Tensor:
    """Return the features (b, n, d) of all tiles; zeros where a tile is not valid.

    Args:
        tiles: pixels (b, n, c, h, w) and which of them are valid; at least one is.
        preprocess: (m, c, h, w) of any dtype -> floats on the device.
        encoder: (m, c, h, w) -> (m, d).
        chunk: tiles at a time in eval mode; where None, `CHUNK` or what `CPU_PIXELS` allows. In train mode all tiles go
            through at once, because their activations are kept anyway.

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
        device = _device_of(encoder, preprocess)
        chunk = chunk or _most_at_once(pixels, device)
        features = in_chunks(lambda part: encoder(preprocess(part)), pixels, chunk, device)
    if features.shape[0] < valid.numel():
        everywhere = features.new_zeros(valid.numel(), features.shape[-1])
        features = everywhere.index_put((valid.to(features.device).nonzero().squeeze(-1),), features)
    return features.reshape(*tiles.valid.shape, -1)


def _most_at_once(pixels: Tensor, device: torch.device | None) -> int:
    if device is not None and device.type != "cpu":
        return CHUNK
    return max(1, min(CHUNK, CPU_PIXELS // (pixels.shape[-2] * pixels.shape[-1])))


def in_chunks(
    network: Callable[[Tensor], Tensor], pixels: Tensor, chunk: int, device: torch.device | None = None
) -> Tensor:
    """Return a network's output for (n, …), `chunk` at a time; where memory runs out, half as many, down to one.

    The size of a chunk may change the last bits of a feature, because libraries order sums by the shape of a batch.

    Args:
        network: (m, …) -> (m, …).
        pixels: (n, …), n at least 1.
        chunk: m at first.
        device: where to bring the pixels; the network does it where None or the CPU.

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
            if not _out_of_memory(error):
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
    return torch.cat(done)


def _brought(parts: tuple[Tensor, ...], device: torch.device | None) -> Iterator[Tensor]:
    """Yield the parts on the device; on a GPU, a part is copied while the network still computes on the one before."""
    if device is None or device.type != "cuda" or parts[0].is_cuda:
        yield from parts
        return
    copies = torch.cuda.Stream(device)
    computes = torch.cuda.current_stream(device)
    for part in parts:
        with torch.cuda.stream(copies):
            moved = part.pin_memory().to(device, non_blocking=True)
        computes.wait_stream(copies)
        moved.record_stream(computes)
        yield moved


def _out_of_memory(error: MemoryError | RuntimeError) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in SCARCE)


def _give_back(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.empty_cache()


def _device_of(*networks: nn.Module) -> torch.device | None:
    held = (tensor for network in networks for tensor in (*network.parameters(), *network.buffers()))
    return next((tensor.device for tensor in held), None)
