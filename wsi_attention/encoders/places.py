"""Where the weights of encoders lie on this machine: the own folder, and the cache of the Hugging Face hub.

Nothing here asks a server, and the hub's package is not needed: an offline cluster has the files and nothing else.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from wsi_attention.encoders.origin import Origin

VARIABLE = "WSI_ATTENTION_ENCODERS"
"""Environment variable with the folder for fetched and converted weights; `own_folder` says where it is without."""
SUFFIX = ".safetensors"
WEIGHTS = "model.safetensors"
PICKLES = (".bin", ".pth", ".pt", ".ckpt")
SNAPSHOT = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/([^/]+)")


def own_folder() -> Path:
    """Return the folder for fetched and converted weights; it need not exist."""
    given = os.environ.get(VARIABLE)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(cache) / "wsi-attention" / "encoders"


def own_file(name: str) -> Path:
    """Return where the own folder holds the weights of an encoder, whether they are there or not.

    Args:
        name: an encoder's name, or "hub:owner/model", with or without "@revision".
    """
    plain = re.sub(r"^(hub|hf-hub|hf_hub):", "", name.removeprefix("timm:"))
    return own_folder() / (re.sub(r"[^\w.@-]+", "--", plain) + SUFFIX)


def hub_cache() -> Path:
    """Return the folder that the hub's own package downloads into, by the variables that it reads."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or Path(home) / "hub")


def snapshot(repository: str, revision: str = "", cache: Path | None = None) -> Path | None:
    """Return the folder of a repository's files in the hub's cache, None where it is not there.

    Args:
        repository: "owner/model".
        revision: a branch, tag or commit; "main" where empty.
        cache: another cache than this machine's own.
    """
    folder = (cache or hub_cache()) / f"models--{repository.replace('/', '--')}"
    reference = folder / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision
    found = folder / "snapshots" / commit
    return found if commit and found.is_dir() else None


def repository_of(path: Path) -> tuple[str, str]:
    """Return the repository and revision of a file or folder in a hub's cache, wherever that lies; "" where neither."""
    found = SNAPSHOT.search(path.as_posix()) or SNAPSHOT.search(path.absolute().as_posix())
    return (f"{found[1]}/{found[2]}", found[3]) if found else ("", "")


def weights_in(folder: Path) -> Path | None:
    """Return the safetensors file of a folder: model.safetensors, or the only one that there is."""
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    found = sorted(folder.glob(f"*{SUFFIX}"))
    return found[0] if len(found) == 1 else None


def pickle_in(folder: Path) -> Path | None:
    """Return the first file of a folder that must be converted before it can be read."""
    found = sorted(path for path in folder.iterdir() if path.suffix in PICKLES) if folder.is_dir() else []
    return found[0] if found else None


def on_this_machine(origin: Origin) -> list[Path]:
    """Return the files that should hold the weights of an origin, as far as they are here.

    Those in the own folder come first, NAME.safetensors or a folder NAME; then those in the hub's cache.
    """
    found = []
    for name in filter(None, (origin.name, origin.repository)):
        file = own_file(name)
        found += [file] if file.is_file() else []
        inside = weights_in(file.with_suffix("")) if file.with_suffix("").is_dir() else None
        found += [inside] if inside else []
    cached = snapshot(origin.repository, origin.revision) if origin.repository else None
    inside = weights_in(cached) if cached else None
    return [*found, inside] if inside else found
