"""A missing package is named with a command that is true for a checkout, a wheel and an index alike."""

from __future__ import annotations

import shlex
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from wsi_attention import extras

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: needed for name, needed in PROJECT["optional-dependencies"].items() if name != "all"}
BEFORE = "install it with: pip install "


def as_metadata(name: str) -> list[str]:
    """The requirements as a wheel of this checkout lists them; an installed one may be older."""
    assert name == PROJECT["name"]
    return PROJECT["dependencies"] + [f"{one}; extra == '{extra}'" for extra, all_ in EXTRAS.items() for one in all_]


def test_of_the_package_that_is_installed() -> None:
    assert extras.how_to_install("pandas").startswith(BEFORE + "'pandas>=")


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_the_command_names_what_the_extra_brings_and_nothing_else(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "requires", as_metadata)
    told = extras.how_to_install(extra)
    assert told.startswith(BEFORE)
    assert sorted(shlex.split(told.removeprefix(BEFORE))) == sorted(EXTRAS[extra])


def test_a_source_tree_without_metadata_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "requires", requires)
    assert extras.how_to_install("pandas") == BEFORE + "'.[pandas]' in the checkout of wsi-attention"
