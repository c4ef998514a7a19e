"""Patterns that no shell has expanded."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_attention.errors import InputError
from wsi_attention.inference.batch.discovery import find_slides
from wsi_attention.inference.batch.globs import expanded


def test_patterns_are_expanded_in_order_and_names_are_not(tmp_path: Path) -> None:
    for name in ("b.svs", "a.svs", ".hidden.svs", "deep/er/c.svs", "odd[1].svs"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    flat = expanded([f"{tmp_path}/*.svs", "s3://bucket/*.svs", tmp_path / "odd[1].svs"])
    names = ["a.svs", "b.svs", "odd[1].svs"]
    assert flat == (*(f"{tmp_path}/{name}" for name in names), "s3://bucket/*.svs", tmp_path / "odd[1].svs")
    assert expanded([f"{tmp_path}/**/c.svs"]) == (f"{tmp_path}/deep/er/c.svs",)
    assert [slide.relative for slide in find_slides([f"{tmp_path}/[ab].svs"]).slides] == ["a.svs", "b.svs"]
    with pytest.raises(InputError, match=r"\*\.ndpi: no file or folder matches this pattern"):
        expanded([f"{tmp_path}/*.ndpi"])
