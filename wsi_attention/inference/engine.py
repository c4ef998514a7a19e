"""What computes a model's tile encoder on the processor: torch, or OpenVINO where it is installed, faster and equal.

"auto" tries it once for each encoder, size of tile and number of threads, and keeps what it found on disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from time import perf_counter
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from wsi_attention.checkpoint import Classifier
from wsi_attention.devices import Precision, Used, openvino_version, placed, precision_on
from wsi_attention.inference.compiled import (
    EQUAL,
    CompiledEncoder,
    NotCompiledError,
    difference,
    kept_at,
    key_of,
    unequal,
    write_kept,
)
from wsi_attention.inference.quantised import INT8, quantised
from wsi_attention.methods.encoder_facts import SIDES
from wsi_attention.nn.engines import Engine
from wsi_attention.protocols import contract_of

VARIABLE = "WSI_ATTENTION_ENGINE"
"""Environment variable: "torch" keeps "auto" from trying anything else."""
FASTER = 1.1
"""Times by which OpenVINO must be faster; less is not worth loading it."""
LEAST = 0.005
"""Seconds that a tile takes in torch, below which nothing is gained."""
ROUNDS, TILES = 5, 8
"""Of a trial: how often both encode, and how many tiles."""
LOOKS_INSIDE = frozenset({"tnet"})
"""Methods that look at a layer inside the encoder, which only torch can show."""


@dataclass(frozen=True)
class Trial:
    """What was found.

    Attributes:
        better: whether OpenVINO is faster and equal.
        why: a reason for people.
    """

    better: bool
    why: str


_TRIALS: WeakKeyDictionary[nn.Module, dict[str, Trial]] = WeakKeyDictionary()
_ENGINES: WeakKeyDictionary[nn.Module, tuple[str, CompiledEncoder]] = WeakKeyDictionary()
_INT8_ENGINES: WeakKeyDictionary[nn.Module, tuple[str, CompiledEncoder]] = WeakKeyDictionary()
_LOCK = Lock()


def used_on(classifier: Classifier, device: torch.device, wanted: Precision) -> tuple[Used, str]:
    """Return what a model computes in on a device, and why it is OpenVINO or why not; empty where nobody asked.

    An encoder that OpenVINO cannot convert, or not equally, stays in torch, even where it was asked for. "int8" is used
    where it was asked for, and only from the model's own folder.

    Args:
        classifier: the model.
        device: where it computes.
        wanted: as in `predict`.

    Raises:
        InputError: there is no such precision, or it cannot be had here; the model has no int8 encoder.
    """
    used = precision_on(device, wanted)
    if wanted == "openvino" or used == "32":
        placed(classifier.model, device)  # as it computes: channels last, or torch would look slower than it is
    if wanted == INT8:
        placed(classifier.model, device)
        return INT8, quantised(classifier).why
    if wanted == "openvino":
        trial = _convertible(classifier)
    elif wanted == "auto" and used == "32" and device.type == "cpu" and _may_try():
        trial = _tried(classifier)
    else:
        return used, ""
    return "openvino" if trial.better else "32", trial.why


def used_by_all(classifier: Classifier, device: torch.device, wanted: Precision) -> Used:
    """Return what one of several processes computes in, as `used_on` but without trials, which might end differently.

    Raises:
        InputError: there is no such precision, or it cannot be had here.
    """
    asked = wanted in ("openvino", INT8)
    return used_on(classifier, device, wanted)[0] if asked else precision_on(device, wanted)


def engine_for(classifier: Classifier, used: Used) -> Engine | None:
    """Return what computes the model's encoder; None for torch."""
    encoder = contract_of(classifier.model).encoder
    if encoder is None or used not in ("openvino", INT8):
        return None
    return _int8_engine(classifier, encoder) if used == INT8 else _engine(classifier, encoder)


def facts_of(why: str) -> dict[str, object]:
    """Return what a result says of the choice; nothing where there was none."""
    return {"engine": {"openvino": openvino_version(), "why": why}} if why else {}


def _may_try() -> bool:
    return bool(openvino_version()) and os.environ.get(VARIABLE, "") != "torch"


def _convertible(classifier: Classifier) -> Trial:
    """Return whether OpenVINO can do what was asked of it, with the features of torch."""
    encoder = contract_of(classifier.model).encoder
    reason = hindrance(classifier, encoder)
    if reason or encoder is None:
        return Trial(False, reason)
    try:
        _engine(classifier, encoder).model(tuple(_tiles_for(classifier, 1).shape[1:]))
    except NotCompiledError as error:
        return Trial(False, str(error))
    return Trial(True, "as asked")


def _tried(classifier: Classifier) -> Trial:
    """Return what a trial finds, or found before: in this process, or on this machine."""
    encoder = contract_of(classifier.model).encoder
    reason = hindrance(classifier, encoder)
    if reason or encoder is None:
        return Trial(False, reason)
    tiles = _tiles_for(classifier, TILES)
    shape = tuple(tiles.shape[1:])
    key = f"{key_of(encoder, shape, _options(classifier))}-{torch.get_num_threads()}"
    with _LOCK:
        known = _TRIALS.setdefault(encoder, {})
        if key not in known:
            path, engine = kept_at(f"{key}.json"), _engine(classifier, encoder)
            found = _read(path)
            known[key] = _still(found, engine, shape) if found else _written(path, _trial(encoder, engine, tiles))
        return known[key]


def _still(found: Trial, engine: CompiledEncoder, shape: tuple[int, ...]) -> Trial:
    """Return what was found on this machine before, unless OpenVINO is no longer equal in this process."""
    if found.better:
        try:
            engine.model(shape)
        except NotCompiledError as error:
            return Trial(False, str(error))
    return found


def _options(classifier: Classifier) -> object:
    """Return the options of the encoder."""
    return classifier.config["options"].get("encoder")


def _tiles_for(classifier: Classifier, count: int) -> Tensor:
    """Return tiles of noise of the model's size as its encoder takes them, (count, c, h, w)."""
    options = classifier.config["options"]
    side = next(int(options[name]) for name in SIDES if name in options)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)
    with torch.no_grad():
        tiles: Tensor = contract_of(classifier.model).preprocess(pixels)
    return tiles


def hindrance(classifier: Classifier, encoder: nn.Module | None) -> str:
    """Return why OpenVINO is not even tried for a model's tile encoder; empty if it is."""
    options = classifier.config["options"]
    if encoder is None or not any(name in options for name in SIDES):
        return "the model has no tile encoder"
    if classifier.config["method"] in LOOKS_INSIDE:
        return "the method looks at a layer inside the encoder"
    if any(module._forward_hooks or module._forward_pre_hooks for module in encoder.modules()):
        return "something else listens to the encoder's layers"
    return ""


def _trial(encoder: nn.Module, engine: CompiledEncoder, tiles: Tensor) -> Trial:
    """Encode tiles in torch and in OpenVINO, in turns, and compare time and features."""
    with torch.inference_mode():
        expected: Tensor = encoder(tiles)
        if _seconds(lambda: encoder(tiles)) < LEAST * len(tiles):
            return Trial(False, f"a tile takes less than {LEAST * 1000:g} ms in torch, too little to gain by OpenVINO")
        try:
            engine.model(tuple(tiles.shape[1:]))
        except NotCompiledError as error:
            return Trial(False, str(error))
        off = difference(engine(encoder, tiles), expected)
        if not off <= EQUAL:
            return Trial(False, unequal(off))
        turns = [[_seconds(lambda: encoder(tiles)), _seconds(lambda: engine(encoder, tiles))] for _ in range(ROUNDS)]
    eager, compiled = (min(each) for each in zip(*turns, strict=True))
    told = f"OpenVINO is {eager / compiled:.2f} times as fast as torch, features within {off:.1g} of the largest"
    better = eager >= FASTER * compiled
    return Trial(better, told if better else f"{told}; {FASTER:g} times is worth it")


def _seconds(do: Callable[[], object]) -> float:
    start = perf_counter()
    do()
    return perf_counter() - start


def _engine(classifier: Classifier, encoder: nn.Module) -> CompiledEncoder:
    """Return the encoder's engine in this process; a new one where its weights have changed."""
    options = _options(classifier)
    key, known = key_of(encoder, (), options), _ENGINES.get(encoder)
    if known is None or known[0] != key:
        known = _ENGINES[encoder] = (key, CompiledEncoder(encoder, options))
    return known[1]


def _int8_engine(classifier: Classifier, encoder: nn.Module) -> CompiledEncoder:
    """Return what computes the encoder in int8 in this process; a new one where the model folder has another."""
    found = quantised(classifier)
    known = _INT8_ENGINES.get(encoder)
    if known is None or known[0] != found.sha256:
        known = _INT8_ENGINES[encoder] = (found.sha256, CompiledEncoder(encoder, compiling=found.compiled))
    return known[1]


def _read(path: Path | None) -> Trial | None:
    """Return what was found before; None where nothing was, or the file is damaged."""
    if path is None:
        return None
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        found = Trial(said["better"], said["why"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found.better, bool) and isinstance(found.why, str) else None


def _written(path: Path | None, trial: Trial) -> Trial:
    write_kept(path, json.dumps(asdict(trial)).encode())
    return trial
