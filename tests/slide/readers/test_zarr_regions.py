"""Many regions of an OME-Zarr level: the pixels of single reads, every chunk read once, by zarr and by tensorstore."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zarr

from wsi_attention.slide.readers.zarr import levels as zarr_levels
from wsi_attention.slide.readers.zarr.levels import TensorStoreLevel, ZarrLevel
from wsi_attention.slide.readers.zarr.reader import ZarrReader
from wsi_attention.slide.slide import open_slide
from wsi_attention.slide.view import View

EXTENT = (403, 301)
LAYOUTS = {
    "v2, channels apart": {"zarr_format": 2, "chunks": (1, 64, 48)},
    "v2": {"zarr_format": 2, "chunks": (3, 64, 48)},
    "v3": {"zarr_format": 3, "chunks": (3, 64, 48)},
    "v3 in shards": {"zarr_format": 3, "chunks": (3, 32, 32), "shards": (3, 128, 96)},
}


def stored(folder: Path, layout: str) -> tuple[Path, np.ndarray]:
    """An OME-Zarr slide of one level of noise, and its pixels (h, w, 3)."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, EXTENT[1], EXTENT[0])).astype(np.uint8)
    path = folder / "slide.ome.zarr"
    options = LAYOUTS[layout]
    group = zarr.open_group(path, mode="w", zarr_format=options["zarr_format"])  # type: ignore[arg-type]
    group.create_array("0", data=pixels, chunks=options["chunks"], shards=options.get("shards"))  # type: ignore[arg-type]
    axes = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space"} for name in "yx")]
    scale = {"type": "scale", "scale": [1.0, 0.5, 0.5]}
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [scale]}], "version": "0.4"}
    group.attrs.update({"multiscales": [image]} if options["zarr_format"] == 2 else {"ome": _version_5(image)})
    return path, pixels.transpose(1, 2, 0)


def _version_5(image: dict) -> dict:
    return {"version": "0.5", "multiscales": [{key: value for key, value in image.items() if key != "version"}]}


@pytest.fixture(params=["zarr", "zarr, remote", "tensorstore"])
def through(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which library reads chunks."""
    if request.param == "tensorstore":
        pytest.importorskip("tensorstore")
    else:
        remote = request.param != "zarr"
        monkeypatch.setattr(
            "wsi_attention.slide.readers.zarr.reader.level_of",
            lambda array, axes, path, order: ZarrLevel(array, axes, remote, order),
        )
    return str(request.param)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pixels_are_those_of_single_reads(layout: str, through: str, tmp_path: Path) -> None:
    path, pixels = stored(tmp_path, layout)
    reader = ZarrReader(str(path))
    assert isinstance(reader._levels[0], TensorStoreLevel if through == "tensorstore" else ZarrLevel)
    places = np.random.default_rng(1).integers((-80, -80), (450, 350), (40, 2))
    places = np.concatenate([places, [[0, 0], [48, 64], [-500, 0]]])
    out = np.full((len(places), 50, 70, 3), 7, np.uint8)
    assert reader.read_regions(places, 0, (70, 50), out) == [None] * len(places)
    padded = np.pad(pixels, ((600, 600), (600, 600), (0, 0)), constant_values=255)
    for (x, y), found in zip(places.tolist(), out, strict=True):
        assert np.array_equal(found, padded[600 + y : 650 + y, 600 + x : 670 + x])
        assert np.array_equal(found, reader.read((x, y), 0, (70, 50)))
    reader.close()


@pytest.mark.parametrize("layout", ["v2", "v3 in shards"])
def test_every_chunk_is_asked_for_once(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = stored(tmp_path, layout)
    asked: list[str] = []

    class Remembering(ZarrLevel):
        def crop(self, rows: slice, cols: slice) -> np.ndarray:
            asked.append(f"{rows} {cols}")
            return super().crop(rows, cols)

    monkeypatch.setattr(
        "wsi_attention.slide.readers.zarr.reader.level_of",
        lambda array, axes, path, order: Remembering(array, axes, False),
    )
    with open_slide(path) as slide:
        places = np.random.default_rng(2).integers(0, 200, (60, 2))
        out = np.zeros((60, 40, 40, 3), np.uint8)
        assert not any(View(slide, 1.0).read_many(places, (40, 40), out))
        width, height = slide.facts.tile_sizes[0] or (0, 0)
    met = {
        (col, row)
        for x, y in places.tolist()
        for col in range(x // width, (x + 39) // width + 1)
        for row in range(y // height, (y + 39) // height + 1)
    }
    assert len(asked) == len(met)
    assert set(Counter(asked).values()) == {1}


def test_a_damaged_chunk_costs_the_regions_that_meet_it(through: str, tmp_path: Path) -> None:
    path, pixels = stored(tmp_path, "v2")
    (path / "0" / "0.1.1").write_bytes(b"no chunk")
    reader = ZarrReader(str(path))
    places = np.array([[0, 0], [40, 60], [48, 64], [96, 64], [100, 100]])
    out = np.zeros((5, 30, 30, 3), np.uint8)
    reasons = reader.read_regions(places, 0, (30, 30), out)
    assert [reason is None for reason in reasons] == [True, False, False, True, True]
    assert all(reason is None or "\n" not in reason for reason in reasons)
    for i in (0, 3, 4):
        x, y = places[i]
        assert np.array_equal(out[i], pixels[y : y + 30, x : x + 30])
    with open_slide(path) as slide:
        again = np.zeros_like(out)
        texts = slide.read_regions(places, 0, (30, 30), again)
        assert np.array_equal(again[[0, 3, 4]], out[[0, 3, 4]])
        assert texts[1] is not None and "30×30 pixels at (40, 60) of level 0 cannot be read" in texts[1]


def test_without_tensorstore_zarr_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = stored(tmp_path, "v3")
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    reader = ZarrReader(str(path))
    assert isinstance(reader._levels[0], ZarrLevel)
    assert zarr_levels.level_of(reader._arrays[0], "cyx", "https://host/slide.zarr")._remote  # type: ignore[attr-defined]
