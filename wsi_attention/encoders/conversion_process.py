"""Turn a pickle of tensors into safetensors; run alone: `python -m wsi_attention.encoders.conversion_process IN OUT`.

Only tensors and plain containers are built (`torch.load(weights_only=True)`), in a process of its own: whatever a
damaged or hostile file does, it does here. Metadata for the new file comes in as JSON, a report goes out as JSON.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import cast

import torch
from safetensors.torch import save_file
from torch import Tensor

WRAPPERS = ("state_dict", "model_state_dict", "teacher", "model", "module", "encoder", "backbone", "network", "net")
"""Keys under which training programs keep a state dict; the first that is there leads inside."""
PREFIXES = ("module.", "_orig_mod.", "backbone.", "encoder.", "model.", "network.", "visual.trunk.")
"""What training programs write before every name; where only some names have it, the others are no part of it."""
PARTLY = ("backbone.",)
"""Prefixes that also count where only some names have them: a head for training stands beside the backbone."""


class Refused(Exception):  # noqa: N818
    """Why a file is not converted, as a clause."""


def main() -> None:
    """Convert one file; the last line of the output is the report."""
    source, target = sys.argv[1:3]
    metadata = json.loads(sys.stdin.read() or "{}")
    try:
        weights, inside, left = unwrapped(loaded(source))
        save_file({name: value.clone().contiguous() for name, value in weights.items()}, target, metadata)
        report: dict[str, object] = {"tensors": len(weights), "inside": inside, "left": left}
    except Refused as error:
        report = {"refused": str(error)}
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, MemoryError) as error:
        report = {"refused": f"it cannot be converted: {_first_line(error)}"}
    print(json.dumps(report))


def loaded(path: str) -> object:
    """Return what a file holds, built from tensors and plain containers alone.

    Raises:
        Refused: it asks for anything else, or is no such file.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the library raise anything
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked:
            wants = f"a full pickle (it wants {asked[1]}), which can run any code; ask its authors for safetensors"
            raise Refused(f"it is {wants}") from error
        if type(error).__name__ == "UnpicklingError":
            raise Refused("it is no file of torch.save; ask its authors for safetensors") from error
        raise Refused(f"it cannot be read as tensors: {_first_line(error)}") from error


def unwrapped(content: object) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Return the state dict inside what a training program saved, the way to it, and the names left out.

    Raises:
        Refused: there are no tensors by name in it.
    """
    inside: list[str] = []
    while isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        key = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if key is None:
            break
        content, inside = content[key], [*inside, key]
    named = cast(Mapping[object, object], content) if isinstance(content, Mapping) else {}
    weights = {str(name): value for name, value in named.items() if isinstance(value, Tensor)}
    if not weights:
        found = ", ".join(map(str, [*named][:5])) or type(content).__name__
        raise Refused(f"it holds no tensors by name, it holds {found}")
    left = [str(name) for name, value in named.items() if not isinstance(value, Tensor)]
    while (prefix := _prefix(weights)) is not None:
        left += [name for name in weights if not name.startswith(prefix)]
        weights = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        inside.append(prefix)
    return weights, inside, left


def _prefix(weights: Mapping[str, Tensor]) -> str | None:
    for prefix in PREFIXES:
        having = sum(name.startswith(prefix) for name in weights)
        if having == len(weights) or (having and prefix in PARTLY):
            return prefix
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0].rstrip(".")


if __name__ == "__main__":
    main()
