"""A tile encoder compiled by OpenVINO for the processor, and kept on disk so that the next process only loads it.

What lies in the folder is checked by its sha256 before it is used, is never unpickled, and may be removed at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Lock, local
from types import ModuleType
from typing import TYPE_CHECKING
from weakref import ref

import torch
from torch import Tensor, nn

from wsi_attention.devices import openvino_version
from wsi_attention.errors import WsiAttentionError
from wsi_attention.feature_store.kind import ADDRESS, weights_sha256
from wsi_attention.files import publish, temporary
from wsi_attention.nn.encoders import bare

if TYPE_CHECKING:
    from openvino import CompiledModel, Core, InferRequest

MOST_KEPT = 2**31
"""Bytes of the folder; what was used longest ago leaves first."""
DIGEST = 32
"""Bytes of a sha256."""
Shape = tuple[int, ...]

_COMPILING = Lock()


class NotCompiledError(WsiAttentionError):
    """OpenVINO cannot convert or compile an encoder; the text says why."""


def cache_folder() -> Path:
    """Return the folder for compiled encoders; it need not exist."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "wsi-attention" / "openvino"


def key_of(encoder: nn.Module, shape: Shape) -> str:
    """Return what a compiled encoder depends on: weights, layers, input (c, h, w), versions and the processor."""
    encoder = bare(encoder)
    layers = ADDRESS.sub("", repr(encoder))
    parts = [weights_sha256(encoder), layers, list(shape), openvino_version(), torch.__version__, processor()]
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogateescape")).hexdigest()[:40]


def processor() -> str:
    """Return what the processor can do, as torch tells it."""
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {sorted(able.items(), key=str)}"


class _Requests(local):
    """What a thread computes with; one that another uses too would mix up their tiles."""

    def __init__(self) -> None:
        self.by_shape: dict[Shape, InferRequest] = {}


class CompiledEncoder:
    """An encoder in OpenVINO, in float32 and with as many threads as torch has. Thread-safe."""

    def __init__(self, encoder: nn.Module) -> None:
        """Compile nothing yet."""
        self._encoder = ref(encoder)
        self._models: dict[Shape, CompiledModel] = {}
        self._requests = _Requests()

    def __call__(self, encoder: nn.Module, tiles: Tensor) -> Tensor:
        """Return the features (m, d) of tiles (m, c, h, w); those of another encoder are left to torch.

        Raises:
            NotCompiledError: OpenVINO cannot do it.
        """
        if encoder is not self._encoder():
            features: Tensor = encoder(tiles)
            return features
        shape = tuple(tiles.shape[1:])
        requests = self._requests.by_shape
        if shape not in requests:
            requests[shape] = self.model(shape).create_infer_request()
        found = requests[shape].infer([tiles.float().contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(found[0].copy())

    def model(self, shape: Shape) -> CompiledModel:
        """Return the compiled model for inputs (c, h, w): from this process, from disk, or new."""
        with _COMPILING:
            if shape not in self._models:
                encoder = self._encoder()
                assert encoder is not None, "whoever asks holds the model"
                self._models[shape] = _compiled(encoder, shape)
            return self._models[shape]


def without_telemetry() -> ModuleType:
    """Import OpenVINO as if its telemetry were not there, which tells a server of it and writes to the home folder.

    Where the caller's own code has imported it before, it is as it is.
    """
    telemetry = "openvino_telemetry"
    if "openvino" in sys.modules or telemetry in sys.modules:
        return import_module("openvino")
    sys.modules[telemetry] = ModuleType(telemetry)
    try:
        return import_module("openvino")
    finally:
        del sys.modules[telemetry]


def _compiled(encoder: nn.Module, shape: Shape) -> CompiledModel:
    core, path = without_telemetry().Core(), cache_folder() / f"{key_of(encoder, shape)}.blob"
    stored = _stored(path)
    if stored is not None:
        with suppress(RuntimeError):  # of another build of the same version; it is compiled anew
            return core.import_model(stored, "CPU", _settings())
    model = _converted(encoder, shape, core)
    _keep(path, model)
    return model


def _settings() -> dict[str, str | int]:
    """Return how a model computes; without them OpenVINO takes all cores, and bfloat16 where there is some."""
    return {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }


def _converted(encoder: nn.Module, shape: Shape, core: Core) -> CompiledModel:
    """Trace an encoder and compile it, for any number of tiles.

    The parts of OpenVINO are called one by one, because its `convert_model` reports each use to a server.
    """
    openvino = without_telemetry()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            front = FrontEndManager().load_by_framework("pytorch")
            traced = TorchScriptPythonDecoder(encoder, example_input=torch.zeros(2, *shape))
            model = front.convert(front.load(traced))
            model.reshape(openvino.PartialShape([-1, *shape]))
            return core.compile_model(model, "CPU", _settings())
    except Exception as error:  # tracing runs the encoder's own code, and the converter raises whatever it meets
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise NotCompiledError(f"OpenVINO cannot convert the encoder: {line[:200]}") from error


def _stored(path: Path) -> bytes | None:
    """Return a compiled model from disk, None where there is none or it is damaged."""
    try:
        content = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    body = content[DIGEST:]
    return body if hashlib.sha256(body).digest() == content[:DIGEST] else None


def _keep(path: Path, model: CompiledModel) -> None:
    """Write a compiled model; a folder that cannot be written is no matter."""
    try:
        body = model.export_model()
        content = bytes(body) if isinstance(body, bytes) else body.getvalue()
        write_kept(path, hashlib.sha256(content).digest() + content)
    except RuntimeError:
        return


def write_kept(path: Path, content: bytes) -> None:
    """Write a file of the folder whole, and make room; nothing is raised where that is impossible."""
    with suppress(OSError, WsiAttentionError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary(path).write_bytes(content)
        publish(path)
        _make_room(path.parent)


def _make_room(folder: Path) -> None:
    files = sorted(((file.stat().st_mtime, file.stat().st_size, file) for file in folder.iterdir()), reverse=True)
    held = 0
    for _, size, file in files:
        held += size
        if held > MOST_KEPT:
            file.unlink(missing_ok=True)
