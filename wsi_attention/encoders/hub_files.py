"""Files of the Hugging Face hub: from its cache, or downloaded into it; pickles are never opened."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wsi_attention.encoders.encoder_weights import SUFFIX
from wsi_attention.errors import InputError, MissingExtraError
from wsi_attention.json_values import parse

CONFIG, WEIGHTS = "config.json", "model.safetensors"
EXTRA = "install it with: pip install 'wsi-attention[encoders]'"


def hub_config(repository: str) -> dict[str, object]:
    """Return the config of a timm model on the hub: "architecture", "model_args", "pretrained_cfg".

    Args:
        repository: "owner/model" or "owner/model@revision".

    Raises:
        InputError: it cannot be downloaded, or is no model of timm.
        MissingExtraError: the hub's package is not installed.
    """
    path = hub_file(repository, CONFIG)
    try:
        config = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{CONFIG} of hub:{repository} cannot be read: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise InputError(f"hub:{repository} is no timm model: its {CONFIG} names no architecture of timm")
    if "pretrained_cfg" not in config:
        config = {"architecture": config["architecture"], "pretrained_cfg": config}
    return config


def hub_weights(repository: str, filename: str = WEIGHTS) -> dict[str, Tensor]:
    """Return the tensors that a repository holds as safetensors.

    Args:
        repository: "owner/model" or "owner/model@revision".
        filename: as timm names it; for a pickle's name the safetensors file beside it is taken.

    Raises:
        InputError: there is no such file, or it cannot be downloaded or read.
        MissingExtraError: the hub's package is not installed.
    """
    safe = Path(filename).with_suffix(SUFFIX).name.replace("pytorch_model", "model")
    path = hub_file(repository, safe)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{safe} of hub:{repository} cannot be read: {error}") from error


def hub_file(repository: str, filename: str) -> Path:
    """Return the path of a repository's file in the hub's own cache, downloaded where it is not there.

    Raises:
        InputError: there is no such file, access is not permitted, or the hub cannot be reached.
        MissingExtraError: the hub's package is not installed.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise MissingExtraError(f"hub:{repository} needs the package huggingface_hub; {EXTRA}") from error
    owner, _, revision = repository.partition("@")
    try:
        return Path(hf_hub_download(owner, filename, revision=revision or None))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{filename} of hub:{repository} cannot be had ({_first_line(error)}); check name, network and permission "
            f"(hf auth login), or bring the weights as a {SUFFIX} file and give it as encoder_start"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
