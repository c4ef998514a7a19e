"""What is known of a published encoder goes into a method's options; options that contradict it are refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from wsi_attention.encoders.entry import Entry
from wsi_attention.encoders.local_files import is_folder, name_of_folder
from wsi_attention.encoders.networks import stated
from wsi_attention.encoders.table import is_known
from wsi_attention.errors import InputError
from wsi_attention.options import Options, numbers, plain

ENCODER = "encoder"
SIDES = ("tile_size", "base")
"""Options that are the side of a tile, the first that a method has; TNet's views and tiles have one side, its base."""
COLOUR = 2e-3
"""How far a colour may be from the encoder's: half of one of 256 steps."""


def entry_in(options: Mapping[str, object]) -> Entry | None:
    """Return the published encoder that a method's options name, None where they name none.

    Args:
        options: option -> value; the encoder as a name, a table with "name", or a value with that attribute.

    Raises:
        InputError: what follows the name is no JSON.
    """
    name = name_in(options)
    name = name_of_folder(name) if is_folder(name) else name
    return stated(name) if is_known(name) else None


def name_in(options: Mapping[str, object]) -> str:
    """Return the name of the encoder in a method's options as it stands there, "" where there is none."""
    given = options.get(ENCODER)
    name = given.get("name") if isinstance(given, Mapping) else getattr(given, "name", given)
    return name if isinstance(name, str) else ""


def without_folder(options: Mapping[str, object]) -> dict[str, object]:
    """Return a method's options with a name that builds the encoder on any machine in place of the path of a folder.

    Raises:
        InputError: the folder does not say how the network is built.
    """
    name, given = name_in(options), options.get(ENCODER)
    if not is_folder(name):
        return dict(options)
    told = plain(given) if isinstance(given, Options) else given
    built = name_of_folder(name)
    return {**options, ENCODER: {**told, "name": built} if isinstance(told, Mapping) else built}


def with_facts(given: Mapping[str, object], names: Collection[str]) -> dict[str, object]:
    """Return a method's options with tile size, scale and colours of its published encoder where they do not say.

    Weights of such an encoder stay as they are unless the options say `frozen = false`.

    Args:
        given: as for `entry_in`.
        names: all options that the method has.

    Raises:
        InputError: an option contradicts what is known of the encoder; the text says which line to change.
    """
    options = without_folder(given)
    entry = entry_in(options)
    if entry is None:
        return options
    side = next((one for one in SIDES if one in names), SIDES[0])
    known: dict[str, object] = {side: entry.tile_size, "tile_mpp": entry.tile_mpp}
    known |= {"mean": entry.mean, "std": entry.std}
    missing = [key for key in ("mean", "std") if key in names and not known[key] and key not in options]
    if missing:
        lines = " and ".join(f"{key} = [...]" for key in missing)
        raise InputError(f"which colours encoder {entry.name!r} expects is not established; add {lines} under [model]")
    _check(entry, {key: value for key, value in options.items() if key in names}, side)
    added = {key: value for key, value in known.items() if value and key in names and key not in options}
    return {**options, **added, ENCODER: _frozen(options[ENCODER])}


def _frozen(encoder: object) -> object:
    table = {"name": encoder} if isinstance(encoder, str) else encoder
    return {"frozen": True, **table} if isinstance(table, Mapping) else table


def _check(entry: Entry, options: Mapping[str, object], side: str) -> None:
    size, mpp = options.get(side), options.get("tile_mpp")
    if isinstance(size, int) and entry.tile_sizes and size not in entry.tile_sizes:
        raise _contradiction(entry, f"{side} = {size}", "tiles of", entry.tile_sizes, "px", entry.tile_size)
    if isinstance(mpp, int | float) and not entry.knows_scale(mpp, size if isinstance(size, int) else None):
        raise _contradiction(entry, f"tile_mpp = {mpp:g}", "tiles at", entry.mpps, "µm/px", entry.tile_mpp)
    for key, wanted in (("mean", entry.mean), ("std", entry.std)):
        given = tuple(numbers(options.get(key, wanted)))
        far = len(given) != len(wanted) or any(abs(a - b) > COLOUR for a, b in zip(given, wanted, strict=True))
        if wanted and far:
            raise InputError(
                f"{key} = {list(given)} contradicts encoder {entry.name!r}, which expects {list(wanted)}; leave the "
                "line out"
            )


def _contradiction(
    entry: Entry, line: str, what: str, possible: tuple[float, ...], unit: str, default: float | None
) -> InputError:
    key, listed = line.partition(" ")[0], " or ".join(f"{one:g}" for one in possible)
    return InputError(
        f"{line} contradicts encoder {entry.name!r}, which takes {what} {listed} {unit}; write {key} = {default:g}, or "
        "leave the line out"
    )
