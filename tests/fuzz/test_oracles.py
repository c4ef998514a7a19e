"""The fuzzer's own rules: a seed gives one mutant; each rule finds what it is for, and nothing in what is sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from base_slides import scene
from campaign import Told, of_rows
from mutant import Change, Lost, Mutant
from mutants import make
from seen import differences


def test_a_seed_gives_the_same_bytes(sound: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    for seed in range(200, 215):
        first, second = (make(seed, tmp_path / folder, sound) for folder in ("a", "b"))
        assert first.change == second.change
        if first.path.is_file() and not first.path.name.endswith((".zip", ".ome.tiff")):  # they hold times and UUIDs
            assert first.path.read_bytes() == second.path.read_bytes()


def mutant(lost: Lost) -> Mutant:
    return Mutant(7, "tiff", "scale", Change("changed", lost), Path("7.tiff"))


def told(status: str, reason: str = "", notes: str = "") -> Told:
    row = {"status": status, "reason": reason, "label": "lesion", "prob_lesion": "0.9"}
    return Told(Path("7.tiff"), row, Path("7.csv"), (notes,) if notes else ())


@pytest.mark.parametrize(
    ("lost", "rows", "kind"),
    [
        ("scale", [told("done")], "silent scale"),
        ("scale", [told("done", notes="72 dpi is a placeholder")], None),
        ("scale", [told("partial", "72 dpi is a placeholder")], None),
        ("", [told("done")], None),
        ("", [], "no row"),
        ("", [told("failed", "")], "reason"),
        ("", [told("failed", "KeyError: 'zarr'")], "reason"),
        ("", [told("failed", "unexpected RuntimeError")], "reason"),
        ("", [told("failed", "7.tiff: the file is truncated; copy it again")], None),
        ("", [told("failed", "not finished after 30 s")], "hang"),
    ],
)
def test_what_is_found_in_a_row(lost: Lost, rows: list[Told], kind: str | None) -> None:
    assert [one.kind for one in of_rows(mutant(lost), rows)] == ([kind] if kind else [])


def test_what_was_seen_is_compared_with_the_slide(sound: Path, tmp_path: Path) -> None:
    table = tmp_path / "tiles.csv"
    table.write_text("minx,miny,width,height,read\n256,256,256,256,1\n900,800,256,256,1\n0,0,256,256,0\n")
    slide, truth = str(sound / "svs.svs"), np.load(sound / "truth.npy")
    assert differences(slide, table, 0.5, truth) == []
    assert "are not the slide" in differences(slide, table, 1.0, truth)[0]
    found = differences(slide, table, 0.5, scene().other[0])
    assert found[0].startswith("the overview") and found[1].startswith("the tile at (256, 256)")
