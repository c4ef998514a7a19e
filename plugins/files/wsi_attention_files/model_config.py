"""Model configurations of WSInfer and WSInfer-MIL as far as they say what a recipe of ours needs; no weights."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_attention.errors import InputError

MAX_BYTES = 1_000_000
MIL_PIXELS = 224
"""What WSInfer-MIL's only extractor, CTransPath, resizes its tiles to."""


@dataclass(frozen=True)
class ModelConfig:
    """What a configuration says.

    Attributes:
        kind: "wsinfer" (a network for tiles) or "wsinfer-mil" (one for slides, over an extractor's features).
        classes: in the order of the network's output.
        encoder: name of the network that sees the tiles, as it stands in the file.
        tile_size: side of a tile in pixels, as the network sees it.
        tile_mpp: µm per pixel of a tile.
        mean: of the colours, None where the file does not say.
        std: of the colours, None where the file does not say.
        mil: "abmil", "clam", "porpoise", or empty.
    """

    kind: str
    classes: tuple[str, ...]
    encoder: str
    tile_size: int
    tile_mpp: float
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    mil: str = ""


def read_model_config(path: str | Path) -> ModelConfig:
    """Reads a `config.json` of WSInfer (zoo 0.6) or WSInfer-MIL (0.1).

    Raises:
        InputError: missing, no JSON, or a key is missing or of the wrong kind.
    """
    values = _json(Path(path))
    for kind, key in (("wsinfer-mil", "patch_size_um"), ("wsinfer", "patch_size_pixels")):
        if key in values:
            reader = _of_mil if kind == "wsinfer-mil" else _of_wsinfer
            return reader(values, _classes(values, path), path)
    raise InputError(
        f"{path}: neither patch_size_um (WSInfer-MIL) nor patch_size_pixels (WSInfer); found: {', '.join(values)}"
    )


def recipe(config: ModelConfig) -> str:
    """A recipe for `wsi-attention train --config` that looks at the same tiles; TOML.

    The encoder stands in a comment: the same architecture may be named, but their TorchScript weights are not read.
    """
    lines = [
        f"# From a {config.kind} configuration: {config.tile_size} px at {config.tile_mpp:g} µm/px.",
        f"# Classes of the labels CSV: {', '.join(json.dumps(one, ensure_ascii=False) for one in config.classes)}",
        f"# Its network: {json.dumps(config.encoder)}{f' with {config.mil}' if config.mil else ''}; TorchScript weights"
        " are not read.",
        'method = "zoom-in"',
        "",
        "[model]",
        f"tile_size = {config.tile_size}",
        f"tile_mpp = {config.tile_mpp!r}",
    ]
    if config.mean and config.std:
        lines += [f"mean = {list(config.mean)}", f"std = {list(config.std)}"]
    if config.kind == "wsinfer":
        lines.append(f"# encoder = {json.dumps('timm:' + config.encoder)}  # if timm has a network of this name")
    return "\n".join(lines) + "\n"


def _of_mil(values: dict[str, Any], classes: tuple[str, ...], path: str | Path) -> ModelConfig:
    width = _positive(values, "patch_size_um", path)
    mil = values.get("type", "")
    return ModelConfig(
        "wsinfer-mil",
        classes,
        _text(values, "feature_extractor", path),
        MIL_PIXELS,
        width / MIL_PIXELS,
        mil=mil if isinstance(mil, str) else "",
    )


def _of_wsinfer(values: dict[str, Any], classes: tuple[str, ...], path: str | Path) -> ModelConfig:
    asked = _positive(values, "patch_size_pixels", path)
    spacing = _positive(values, "spacing_um_px", path)
    steps = {one.get("name"): one.get("arguments") or {} for one in _list(values, "transform", path)}
    seen = _resized(steps.get("Resize", {}), asked)
    colours = steps.get("Normalize", {})
    mean, std = _three(colours.get("mean")), _three(colours.get("std"))
    name = _text(values, "architecture", path)
    return ModelConfig("wsinfer", classes, name, round(seen), spacing * asked / seen, mean, std)


def _resized(arguments: dict[str, Any], asked: float) -> float:
    size = arguments.get("size")
    size = size[0] if isinstance(size, list) and len(set(map(str, size))) == 1 else size
    return float(size) if isinstance(size, int) and not isinstance(size, bool) and size > 0 else asked


def _three(values: Any) -> tuple[float, ...] | None:
    sound = isinstance(values, list) and len(values) == 3 and all(isinstance(one, int | float) for one in values)
    return tuple(map(float, values)) if sound else None


def _classes(values: dict[str, Any], path: str | Path) -> tuple[str, ...]:
    names = values.get("class_names")
    if not isinstance(names, list) or not names or not all(isinstance(one, str) and one for one in names):
        raise InputError(f"{path}: class_names is {names!r:.60}, a list of names is needed")
    if len(set(names)) < len(names) or values.get("num_classes") != len(names):
        raise InputError(f"{path}: {len(names)} class_names for num_classes {values.get('num_classes')!r:.20}")
    return tuple(names)


def _positive(values: dict[str, Any], key: str, path: str | Path) -> float:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(f"{path}: {key} is {value!r:.60}, a positive number is needed")
    return float(value)


def _text(values: dict[str, Any], key: str, path: str | Path) -> str:
    value = values.get(key)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise InputError(f"{path}: {key} is {value!r:.60}, a name is needed")
    return value


def _list(values: dict[str, Any], key: str, path: str | Path) -> list[dict[str, Any]]:
    value = values.get(key, [])
    sound = isinstance(value, list) and all(
        isinstance(one, dict) and isinstance(one.get("arguments") or {}, dict) for one in value
    )
    if not sound:
        raise InputError(f"{path}: {key} is {value!r:.60}, a list of steps is needed")
    return list(value)


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than 1 MB; a model configuration is a short JSON file")
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: JSON, but no object with keys; a model configuration is needed")
    return values
