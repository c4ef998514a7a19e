"""A tile encoder compiled by OpenVINO for the processor, and kept on disk so that the next process only loads it.

What lies in the folder is checked by its sha256 before it is used, is never unpickled, and may be removed at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import stat
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import mkstemp
from threading import Lock, local
from types import ModuleType
from typing import TYPE_CHECKING
from weakref import ref

import torch
from torch import Tensor, nn

from wsi_attention.devices import openvino_version
from wsi_attention.errors import WsiAttentionError
from wsi_attention.feature_store.kind import ADDRESS, weights_sha256, with_effect
from wsi_attention.files import PREFIX
from wsi_attention.nn.encoders import bare

if TYPE_CHECKING:
    from openvino import CompiledModel, Core, InferRequest, Model

MOST_KEPT = 2**31
"""Bytes of the folder; what was used longest ago leaves first."""
DIGEST = 32
"""Bytes of a sha256."""
EQUAL = 1e-6
"""Largest difference of a feature, relative to the largest feature."""
NOISE = 2
"""Tiles that each compiled encoder is compared with torch on before it is used."""
Shape = tuple[int, ...]

_COMPILING = Lock()


class NotCompiledError(WsiAttentionError):
    """OpenVINO cannot convert or compile an encoder, or not equally; the text says why."""


def cache_folder() -> Path | None:
    """Return the folder for compiled encoders, which need not exist; None where there is no home, as in containers.

    A relative XDG_CACHE_HOME is ignored, as its specification says.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():
        try:
            cache = Path.home() / ".cache"
        except RuntimeError:
            return None
    return cache / "wsi-attention" / "openvino" if cache.is_absolute() else None


def kept_at(name: str) -> Path | None:
    """Return the path of a file of the folder; None where nothing can be kept."""
    folder = cache_folder()
    return None if folder is None else folder / name


def key_of(encoder: nn.Module, shape: Shape, options: object = None) -> str:
    """Return what a compiled encoder depends on: weights, layers, options, input, versions and the processor.

    Args:
        encoder: (m, c, h, w) -> (m, d).
        shape: of its input, (c, h, w).
        options: it was built with, plain values; layers alone do not tell all, such as how a library pools.
    """
    encoder = bare(encoder)
    layers = ADDRESS.sub("", repr(encoder))
    parts = [weights_sha256(encoder), layers, list(shape), openvino_version(), torch.__version__, processor()]
    text = json.dumps([*parts, with_effect(options)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def processor() -> str:
    """Return what the processor can do, as torch tells it."""
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {sorted(able.items(), key=str)}"


Compiling = Callable[[nn.Module, Shape], "CompiledModel"]


class _Requests(local):
    """What a thread computes with; one that another uses too would mix up their tiles."""

    def __init__(self) -> None:
        self.by_shape: dict[Shape, InferRequest | None] = {}


class CompiledEncoder:
    """An encoder in OpenVINO, by default in float32, and with as many threads as torch has. Thread-safe."""

    def __init__(self, encoder: nn.Module, options: object = None, compiling: Compiling | None = None) -> None:
        """Compile nothing yet.

        Args:
            encoder: as in `key_of`.
            options: as in `key_of`.
            compiling: takes the encoder and the shape (c, h, w) of a tile, and returns what computes it; where None,
                it is compiled in float32 and compared with torch.
        """
        self._encoder = ref(encoder)
        self._compiling = compiling or partial(_compiled, options=options)
        self._models: dict[Shape, CompiledModel | str] = {}
        self._requests = _Requests()

    def __call__(self, encoder: nn.Module, tiles: Tensor) -> Tensor:
        """Return the features (m, d) of tiles (m, c, h, w).

        Those of another encoder are left to torch; so are tiles of a size that OpenVINO cannot do, with a warning.
        """
        request = self._request(tuple(tiles.shape[1:])) if encoder is self._encoder() else None
        if request is None:
            features: Tensor = encoder(tiles)
            return features
        return inferred(request, tiles)

    def model(self, shape: Shape) -> CompiledModel:
        """Return the compiled model for inputs (c, h, w): from this process, from disk, or new; compared with torch.

        Raises:
            NotCompiledError: OpenVINO cannot do it, or its features differ from those of torch.
        """
        with _COMPILING:
            if shape not in self._models:
                encoder = self._encoder()
                assert encoder is not None, "whoever asks holds the model"
                try:
                    self._models[shape] = self._compiling(encoder, shape)
                except NotCompiledError as error:
                    self._models[shape] = str(error)
            found = self._models[shape]
        if isinstance(found, str):
            raise NotCompiledError(found)
        return found

    def _request(self, shape: Shape) -> InferRequest | None:
        """Return what this thread computes with; None where torch has to."""
        requests = self._requests.by_shape
        if shape not in requests:
            try:
                requests[shape] = self.model(shape).create_infer_request()
            except NotCompiledError as error:
                size = " x ".join(map(str, shape))
                logging.getLogger(__name__).warning("tiles of %s are encoded by torch, not OpenVINO: %s", size, error)
                requests[shape] = None
        return requests[shape]


def without_telemetry(name: str = "openvino") -> ModuleType:
    """Import OpenVINO, or a package on it, as if its telemetry were not there, which tells a server and writes home.

    Where the caller's own code has imported it before, it is as it is.
    """
    telemetry = "openvino_telemetry"
    if name in sys.modules or telemetry in sys.modules:
        return import_module(name)
    sys.modules[telemetry] = ModuleType(telemetry)
    try:
        return import_module(name)
    finally:
        del sys.modules[telemetry]


def _compiled(encoder: nn.Module, shape: Shape, options: object) -> CompiledModel:
    core, path = without_telemetry().Core(), kept_at(f"{key_of(encoder, shape, options)}.blob")
    stored = _stored(path)
    if stored is not None:
        with suppress(RuntimeError, NotCompiledError):  # of another build of the same version; it is compiled anew
            return _compared(core.import_model(stored, "CPU", settings()), encoder, shape)
    model = _compared(_converted(encoder, shape, core), encoder, shape)
    _keep(path, model)
    return model


def _compared(model: CompiledModel, encoder: nn.Module, shape: Shape) -> CompiledModel:
    """Return a compiled model whose features of noise, uniform from -2 to 2, are those of torch.

    Raises:
        NotCompiledError: they are not.
    """
    noise = torch.rand(NOISE, *shape, generator=torch.Generator().manual_seed(0)) * 4 - 2
    try:
        found = inferred(model.create_infer_request(), noise)
        with torch.inference_mode():
            off = difference(found, encoder(noise))
    except RuntimeError as error:
        raise NotCompiledError(f"OpenVINO cannot compute the encoder: {_first_line(error)}") from error
    if not off <= EQUAL:
        raise NotCompiledError(unequal(off))
    return model


def inferred(request: InferRequest, tiles: Tensor) -> Tensor:
    """Return the features (m, d) of tiles (m, c, h, w)."""
    found = request.infer([tiles.float().contiguous().numpy()], share_inputs=True)
    return torch.from_numpy(found[0].copy())


def difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference of a feature, relative to the largest feature; infinite for another shape."""
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


def unequal(off: float) -> str:
    """Return why features with such a difference are not used."""
    return f"features of OpenVINO differ by {off:.1g} of the largest; {EQUAL:g} is allowed"


def settings() -> dict[str, str | int]:
    """Return how a model computes; what is quantised stays so. Without them OpenVINO takes all cores, and bfloat16
    where there is some."""
    return {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }


def _converted(encoder: nn.Module, shape: Shape, core: Core) -> CompiledModel:
    """Trace an encoder and compile it, for any number of tiles."""
    model = traced(encoder, shape)
    try:
        return core.compile_model(model, "CPU", settings())
    except RuntimeError as error:
        raise NotCompiledError(f"OpenVINO cannot compile the encoder: {_first_line(error)}") from error


def traced(encoder: nn.Module, shape: Shape) -> Model:
    """Return an encoder as OpenVINO's own, for any number of tiles (c, h, w).

    The parts of OpenVINO are called one by one, because its `convert_model` reports each use to a server.

    Raises:
        NotCompiledError: OpenVINO cannot convert it.
    """
    openvino = without_telemetry()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            front = FrontEndManager().load_by_framework("pytorch")
            decoder = TorchScriptPythonDecoder(encoder, example_input=torch.zeros(2, *shape))
            model = front.convert(front.load(decoder))
            model.reshape(openvino.PartialShape([-1, *shape]))
            return model
    except Exception as error:  # tracing runs the encoder's own code, and the converter raises whatever it meets
        raise NotCompiledError(f"OpenVINO cannot convert the encoder: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def _stored(path: Path | None) -> bytes | None:
    """Return a compiled model from disk, None where there is none or it is damaged."""
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError:
        return None
    with suppress(OSError):  # a folder that can only be read keeps its times
        os.utime(path)
    body = content[DIGEST:]
    return body if hashlib.sha256(body).digest() == content[:DIGEST] else None


def _keep(path: Path | None, model: CompiledModel) -> None:
    """Write a compiled model; a folder that cannot be written is no matter."""
    try:
        body = model.export_model()
        content = bytes(body) if isinstance(body, bytes) else body.getvalue()
        write_kept(path, hashlib.sha256(content).digest() + content)
    except RuntimeError:
        return


def write_kept(path: Path | None, content: bytes) -> None:
    """Write a file of the folder whole, and make room; nothing is raised where that is impossible."""
    if path is None:
        return
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content)
        _make_room(path.parent)


def _replace(path: Path, content: bytes) -> None:
    """Write a file under a name that no other process has, never through a link, and rename it."""
    number, name = mkstemp(prefix=PREFIX, dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(number)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def _make_room(folder: Path) -> None:
    """Remove what was used longest ago; folders and links, which are not ours, stay and count for nothing."""
    files: list[tuple[float, int, Path]] = []
    for path in folder.iterdir():
        with suppress(OSError):  # another process makes room too
            facts = path.lstat()
            if stat.S_ISREG(facts.st_mode):
                files.append((facts.st_mtime, facts.st_size, path))
    held = 0
    for _, size, path in sorted(files, reverse=True):
        held += size
        if held > MOST_KEPT:
            with suppress(OSError):
                path.unlink()
