"""What a read costs in file bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsi_attention.slide.readers.array import ArrayLevels, ArrayReader
from wsi_attention.slide.readers.stored import StoredBytes
from wsi_attention.slide.slide import open_slide
from wsi_attention.testing.slides import SlideSpec, write_slide


def test_bytes_read_counts_whole_stored_tiles(tiled_tiff: Path, ome_zarr: Path) -> None:
    with open_slide(tiled_tiff) as slide:
        one = slide.bytes_read(0, (64, 64), (64, 64))
        assert 0 < slide.bytes_read(0, (70, 70), (8, 8)) == one < slide.bytes_read(0, (63, 64), (64, 64))
        assert slide.bytes_read(0, (-500, -500), (64, 64)) == 0
        whole = sum(slide.bytes_read(level, (0, 0), size) for level, size in enumerate(slide.level_dimensions))
        assert 0.9 * tiled_tiff.stat().st_size < whole <= tiled_tiff.stat().st_size
    with open_slide(ome_zarr) as slide:
        assert slide.bytes_read(0, (0, 0), (64, 64)) > 0
    with open_slide(np.zeros((8, 8, 3), np.uint8)) as slide:
        assert slide.bytes_read(0, (0, 0), (8, 8)) == 0


def test_a_file_that_is_gone_costs_nothing(tmp_path: Path) -> None:
    for name in ("gone.svs", "gone.dcm", "gone/store.zarr"):
        reader = ArrayReader(ArrayLevels((np.zeros((8, 8, 3), np.uint8),)))
        assert StoredBytes.of(reader, str(tmp_path / name)).touched(0, (0, 0), (8, 8)) == 0


def test_what_a_reader_knows_is_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "x.svs"
    write_slide(path, SlideSpec((1500, 900), mpp=0.5))
    with open_slide(path, reader="tiff") as slide, open_slide(path, reader="openslide") as other:
        for level in range(len(slide.level_dimensions)):
            for place, size in (((0, 0), (1500, 900)), ((300, 10), (5, 600)), ((-50, -50), (60, 60))):
                assert slide.bytes_read(level, place, size) == other.bytes_read(level, place, size)
        assert slide.bytes_read(0, (0, 0), (1500, 900)) > 10_000
