"""`wsi-attention models`: the models that classify -m takes here, and the encoders that are on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from wsi_attention.cli.say import say

DEPTH = 3
"""How many folders deep models are looked for; a folder that is one is not searched further."""
HEAD = ("model", "method", "classes", "µm/px", "purpose")


def models(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Where to look for trained models. [default: the current folder]")
    ] = None,
) -> None:
    """List the models for classify -m: shipped ones, those in a folder, and those fetched from the hub; then encoders.

    Example: wsi-attention models models/
    """
    from wsi_attention.encoders.places import hub_cache
    from wsi_attention.errors import InputError

    places = folders or [Path()]
    for place in places:
        if not place.is_dir():
            raise InputError(f"{place}: no such folder; wsi-attention models takes folders that hold trained models")
    from wsi_attention.checkpoint import CONFIG, SHIPPED, shipped_models

    _table("shipped", [(name, SHIPPED / name) for name in shipped_models()])
    local = [(str(found), found) for place in places for found in _model_folders(place, DEPTH)]
    _table(f"in {', '.join(map(str, places))}", local)
    cached = sorted(hub_cache().glob(f"models--*/snapshots/*/{CONFIG}"))
    _table("fetched from the hub", [(str(path.parent), path.parent) for path in cached if _is_ours(path.parent)])
    say("encoders on this machine:", *(f"  {line}" for line in _encoders() or ["none; see wsi-attention encoders"]))


def _model_folders(place: Path, depth: int) -> Iterator[Path]:
    """Yield the model folders at or below a folder, in the order of their names; hidden folders are left out."""
    if _is_ours(place):
        yield place
        return
    if depth == 0:
        return
    try:
        inside = sorted(one for one in place.iterdir() if one.is_dir() and not one.name.startswith("."))
    except OSError:
        return
    for one in inside:
        yield from _model_folders(one, depth - 1)


def _is_ours(folder: Path) -> bool:
    """Return whether a folder's config.json is of this package, whole or damaged."""
    from wsi_attention.checkpoint import CONFIG, WEIGHTS
    from wsi_attention.json_values import parse

    if not (folder / WEIGHTS).is_file():
        return False
    try:
        config = parse((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and {"format", "method"} <= config.keys()


def _table(title: str, found: Sequence[tuple[str, Path]]) -> None:
    from wsi_attention.errors import ModelError

    rows: list[tuple[str, ...]] = [HEAD]
    damaged = []
    for name, folder in found:
        try:
            rows.append(_row(name, folder))
        except ModelError as error:
            damaged.append(f"  cannot be used: {error}")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    listed = [f"  {line}" for line in lines] if len(rows) > 1 else []
    say(f"{title}:{'' if found else ' none'}", *listed, *damaged, "")


def _row(name: str, folder: Path) -> tuple[str, ...]:
    from wsi_attention.checkpoint import read_config

    config = read_config(folder)
    members = config.get("members")
    method = f"{len(members)} x {config['method']}" if members else config["method"]
    return name, method, ", ".join(config["classes"]), f"{config['mpp']:g}", config.get("purpose", "")


def _encoders() -> list[str]:
    from wsi_attention.encoders.places import on_this_machine
    from wsi_attention.encoders.published import origin_of_entry
    from wsi_attention.encoders.table import entries

    here = ((entry.name, on_this_machine(origin_of_entry(entry))) for entry in entries().values())
    return [f"{name}  {files[0]}" for name, files in here if files]
