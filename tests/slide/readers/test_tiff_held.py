"""A TIFF's tables are read once: what the check of its tags has read, the index takes from memory."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

import numpy as np
import pytest
import tifffile

from wsi_attention.slide.readers.tiff.held import FILES, MOST, Backed, Held, Noting, noted, taken
from wsi_attention.slide.slide import open_slide

CONTENT = random.Random(0).randbytes(100_000)


def test_what_is_held_comes_from_memory_and_the_rest_from_the_file() -> None:
    held = Held()
    noting = Noting(io.BytesIO(CONTENT), held)
    for offset, count in ((10_000, 8000), (18_000, 5000), (60_000, 5000), (500, 100)):
        noting.seek(offset)
        assert noting.read(count) == CONTENT[offset : offset + count]
    other = bytes(255 - value for value in CONTENT)
    file = Backed(io.BytesIO(other), held)  # another content shows where bytes come from
    file.seek(9000)
    found = file.read(16_000)
    assert found == other[9000:10_000] + other[10_000:25_000]
    file.seek(12_000)
    assert file.read(11_000) == CONTENT[12_000:23_000]
    assert (file.tell(), file.read(10)) == (23_000, other[23_000:23_010])
    file.seek(500)
    assert file.read(100) == other[500:600]
    file.seek(-5, io.SEEK_END)
    assert file.read(50) == other[-5:]


def test_parts_are_taken_once_and_few_files_are_held() -> None:
    for number in range(FILES + 1):
        held = Held()
        held.put(0, bytes(5000))
        noted(("file", number, 0), held)
    assert taken(("file", 0, 0)).get(0, 5000) == b""
    assert taken(("file", 1, 0)).get(0, 5000) == bytes(5000)
    assert taken(("file", 1, 0)).get(0, 5000) == b""
    for number in range(2, FILES + 1):
        taken(("file", number, 0))


def test_too_much_is_not_held() -> None:
    held = Held()
    held.put(0, bytes(MOST))
    held.put(MOST, bytes(5000))
    assert held.get(MOST, 10) == b"" and held.get(5, 10) == bytes(10)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux")
def test_the_tables_of_a_large_file_are_asked_for_once(tmp_path: Path) -> None:
    file, tiles = tmp_path / "many.tif", 90_000
    blank = np.zeros((16, 16, 3), np.uint8).tobytes()
    shape = (16 * tiles // 300, 16 * 300, 3)
    tifffile.imwrite(
        file, (blank for _ in range(tiles)), shape=shape, dtype=np.uint8, tile=(16, 16), photometric="rgb",
        bigtiff=True, metadata=None,
    )  # fmt: skip
    os.sync()
    with open_slide(file, reader="tiff"):
        pass  # whatever is imported is read now
    os.utime(file, (1, 1))
    before = _asked()
    with open_slide(file, reader="tiff") as slide:
        assert slide.level_dimensions[0] == (4800, 4800)
    assert 8 * tiles < _asked() - before < 1.5 * (8 + 4) * tiles


def _asked() -> int:
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar:"))
