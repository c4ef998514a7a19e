"""The table of published encoders: facts of the right kinds, nothing guessed, open to other packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from wsi_attention import registry
from wsi_attention.encoders.entry import Entry
from wsi_attention.encoders.networks import CLASSES, network_of
from wsi_attention.encoders.table import KNOWN, entries, entry_from, entry_of, is_known
from wsi_attention.errors import InputError, MissingExtraError

NAMED = {
    "conch", "conch-v1.5", "ctranspath", "gigapath", "gpfm", "h-optimus-0", "h-optimus-1", "h0-mini", "hibou-b",
    "hibou-l", "kaiko-vitb16", "kaiko-vitb8", "kaiko-vitl14", "kaiko-vits16", "kaiko-vits8", "keep", "lunit-vits16",
    "lunit-vits8", "midnight-12k", "mstar", "musk", "phikon", "phikon-v2", "uni", "uni2-h", "virchow", "virchow2",
    "distillpath-ks16-hopt0", "genbio-pathfm", "openmidnight", "tinypath", "rudolfv2",
}  # fmt: skip
KINDS = {
    "bool": bool, "str": str, "int | None": int | None, "float | None": int | float | None, "bool | None": bool | None,
    "tuple[float, ...]": tuple, "tuple[str, ...]": tuple, "tuple[tuple[str, str], ...]": tuple,
    "Mapping[str, object]": object,
}  # fmt: skip


def test_what_the_field_uses_stands_there() -> None:
    assert entries().keys() >= NAMED


@pytest.mark.parametrize("entry", entries().values(), ids=list(entries()))
def test_facts_are_of_their_kinds_and_agree(entry: Entry) -> None:
    for one in fields(Entry):
        assert isinstance(getattr(entry, one.name), KINDS[str(one.type)]), one.name
    assert len(entry.mean) == len(entry.std) and all(0 < value < 1 for value in (*entry.mean, *entry.std))
    assert all(0.1 < mpp <= 4 for mpp in entry.mpps)
    assert entry.repository.count("/") == 1 or entry.repository.startswith("pypi:")
    assert entry.precision in ("", "32", "16", "bf16")
    assert all(value in CLASSES for value in entry.arguments.values() if isinstance(value, str) and "." in value)
    assert not entry.redistributable or "ND" not in entry.licence
    assert not entry.commercial or "NC" not in entry.licence
    if entry.patch and entry.input:
        assert entry.input % entry.patch == 0
    if entry.interpolation:
        assert entry.resize and entry.input and entry.resize >= entry.input


def test_every_table_says_where_its_facts_come_from() -> None:
    for part in KNOWN.read_text(encoding="utf-8").split("\n\n[")[1:]:
        assert part.splitlines()[1].startswith("# "), part.splitlines()[0]


@pytest.mark.parametrize("entry", [one for one in entries().values() if one.builder == "timm" and not one.config],
                         ids=lambda one: one.name)  # fmt: skip
def test_the_network_has_the_size_that_is_stated(entry: Entry) -> None:
    try:
        with torch.device("meta"):
            network = network_of(entry)
    except MissingExtraError as error:
        pytest.skip(str(error))
    size = sum(one.numel() for one in network.parameters()) / 1e6
    assert entry.parameters is None or abs(size / entry.parameters - 1) < 0.03
    before = getattr(network, "num_prefix_tokens", None)
    assert entry.prefix_tokens in (None, before) or entry.head
    width = getattr(network, "num_features", None)
    assert entry.head or entry.dim == (2 * width if entry.pooling == "cls+mean" else width)


@pytest.mark.parametrize(
    ("asked", "message"),
    [("uni2h", "'uni2h' is not known; did you mean 'uni2-h'"), ("virchow-2", "did you mean 'virchow2'"),
     ("zzzz", "'zzzz' is not known; `wsi-attention encoders` lists them")],
)  # fmt: skip
def test_a_slip_gives_the_nearest_names(asked: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        entry_of(asked)


def test_spelling_that_does_not_matter() -> None:
    assert entry_of("UNI2_h") is entry_of("uni2-h") is entry_of('uni2-h {"depth": 2}')
    assert is_known(" UNI ") and not is_known("small")


@pytest.mark.parametrize(
    ("table", "message"),
    [({"dims": 3}, "unknown key 'dims'"), ({"pooling": "max"}, "pooling is 'max'; possible: cls"),
     ({"mean": [0.5]}, "one value a channel"), ({"interpolation": "nearest"}, "possible: bilinear, bicubic")],
)  # fmt: skip
def test_a_wrong_table_is_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        entry_from("mine", table, "mine.toml")


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package with entry points of the group; what it registers, the test writes."""
    about = tmp_path / "theirs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[wsi_attention.encoders]\ntheirs = their_encoders:ENCODERS\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._table.cache_clear()
    entries.cache_clear()
    yield tmp_path / "their_encoders.py"
    sys.modules.pop("their_encoders", None)
    registry._table.cache_clear()
    entries.cache_clear()


def test_another_package_adds_encoders_but_takes_no_name(other_package: Path) -> None:
    other_package.write_text(
        "from wsi_attention.encoders import Entry\n"
        "ENCODERS = {one.name: one for one in (Entry(name='theirs', dim=7), Entry(name='uni', dim=7))}\n"
    )
    assert entry_of("theirs").dim == 7
    assert entry_of("uni").dim == 1024


def test_what_is_no_entry_is_refused_with_whose_it_is(other_package: Path) -> None:
    other_package.write_text("ENCODERS = {'theirs': 3}\n")
    with pytest.raises(InputError, match=r"^theirs registers 'theirs' in .* which is no Entry but int"):
        entries()
