"""What `wsi-attention info` says of a model folder; its weights are not read, and the encoder need not be here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_attention.plain_text import visible

if TYPE_CHECKING:
    from wsi_attention.model_card import ModelConfig


def model_at(path: str) -> str | None:
    """Return the folder of the model that a path or the name of a shipped one stands for; None where it is neither."""
    if (Path(path) / "config.json").is_file():
        return path
    if Path(path).exists() or Path(path).name != path:
        return None
    from wsi_attention.checkpoint import model_folder, shipped_models

    return str(model_folder(path)) if path in shipped_models() else None


def page(path: str, as_json: bool) -> str:
    """Return what config.json says of a model, for people or as JSON.

    Raises:
        ModelError: it cannot be read, or is of another package.
    """
    from wsi_attention.checkpoint import CONFIG, certainty_of, read_config
    from wsi_attention.model_encoder import KEY, EncoderPart, named_encoder

    config = read_config(Path(path))
    if as_json:
        return json.dumps(config, ensure_ascii=False)
    certainty = certainty_of(config, Path(path) / CONFIG)
    part = EncoderPart.of(config.get(KEY))
    encoder = named_encoder(config["options"]) or "none"
    members = config.get("members")
    rows = [
        ("model", path),
        ("method", config["method"]),
        *([("ensemble", f"{len(members)} members, the mean of their probabilities")] if members else []),
        *_asked(config),
        ("mpp", f"{config['mpp']:g} µm/px, the finest scale read"),
        ("purpose", config.get("purpose") or "not said"),
        ("encoder", encoder),
        *(("", sentence) for sentence in (part.sentences if part else ())),
        *zip(("labels", "", ""), certainty.sentences, strict=False),
        ("weights", f"sha256 {config['weights_sha256']}"),
    ]
    return "\n".join(f"{name:<12} {visible(str(value))}" for name, value in rows) + "\n"


def _asked(config: ModelConfig) -> list[tuple[str, str]]:
    """Return the classes of a model for one label; of another target which one it is, and what classify writes."""
    from wsi_attention.targets.find import target_of
    from wsi_attention.targets.one_label import KIND

    target = target_of(config.get("target"), config["classes"])
    if target.kind == KIND:
        return [("classes", ", ".join(config["classes"]))]
    return [("target", f"{target.kind}: {', '.join(target.names)}"), ("columns", ", ".join(target.columns))]
