"""The series of a DICOM file is read from its first bytes, whatever these are."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wsi_attention.slide.dicom_series import WHOLE_SLIDE, series_of

SERIES = "1.2.3.4.5"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
UNDEFINED = 0xFFFFFFFF
END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def element(group: int, number: int, vr: str, value: bytes, implicit: bool = False, length: int | None = None) -> bytes:
    value += b"\0" * (len(value) % 2)
    head, length = struct.pack("<HH", group, number), len(value) if length is None else length
    if implicit:
        return head + struct.pack("<I", length) + value
    if vr in ("SQ", "UN", "OB"):
        return head + vr.encode() + b"\0\0" + struct.pack("<I", length) + value
    return head + vr.encode() + struct.pack("<H", length) + value


def item(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value) if length is None else length) + value


def instance(syntax: str = EXPLICIT, kind: str = WHOLE_SLIDE, between: bytes = b"") -> bytes:
    implicit = syntax == IMPLICIT
    meta = element(2, 0x10, "UI", syntax.encode())
    body = element(8, 0x16, "UI", kind.encode(), implicit) + between
    body += element(0x20, 0xE, "UI", SERIES.encode(), implicit) + element(0x28, 2, "US", b"\3\0", implicit)
    return bytes(128) + b"DICM" + element(2, 0, "UL", struct.pack("<I", len(meta))) + meta + body


def written(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def nested(implicit: bool, undefined: bool) -> bytes:
    """A sequence that holds another series, in an item within an item."""
    inner = element(0x20, 0xE, "UI", b"9.9", implicit)
    for _ in range(3):
        content = item(inner + struct.pack("<HHI", 0xFFFE, 0xE00D, 0), UNDEFINED) + END if undefined else item(inner)
        inner = element(8, 0x1140, "SQ", content, implicit, UNDEFINED if undefined else None)
    return inner


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("undefined", [False, True])
def test_the_series_is_that_of_the_file_not_of_what_it_refers_to(syntax: str, undefined: bool, tmp_path: Path) -> None:
    between = nested(syntax == IMPLICIT, undefined)
    assert series_of(written(tmp_path / "a.dcm", instance(syntax, between=between))) == SERIES


@pytest.mark.parametrize("kind", ["1.2.840.10008.5.1.4.1.1.2", ""])
def test_other_images_belong_to_no_slide(kind: str, tmp_path: Path) -> None:
    assert series_of(written(tmp_path / "a.dcm", instance(kind=kind))) is None


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"])
def test_what_cannot_be_parsed_belongs_to_none(syntax: str, tmp_path: Path) -> None:
    assert series_of(written(tmp_path / "a.dcm", instance(syntax))) is None
    assert series_of(written(tmp_path / "b.dcm", b"II*\0" + bytes(400))) is None
    assert series_of(str(tmp_path / "nowhere.dcm")) is None
    far = instance(between=element(8, 0x1140, "UN", b"", length=2**31))
    assert series_of(written(tmp_path / "c.dcm", far)) is None


def test_hostile_bytes_raise_nothing_and_end(tmp_path: Path) -> None:
    sound, path = instance(between=nested(False, True)), tmp_path / "a.dcm"
    for end in range(0, len(sound), 3):
        series_of(written(path, sound[:end]))
    rng = np.random.default_rng(0)
    for _ in range(300):
        mutant = bytearray(sound)
        for at in rng.integers(128, len(sound), 6):
            mutant[at] = rng.choice([0, 1, 0xFE, 0xFF, rng.integers(256)])
        series_of(written(path, bytes(mutant)))
    deep = instance(between=struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED) * 40_000)
    assert series_of(written(path, deep)) is None


def test_as_openslide_has_it_for_real_files(shared_data: Path) -> None:
    import openslide

    files = [*(shared_data / "slides/dicom").rglob("*.dcm"), *(shared_data / "slides-derived").rglob("*.dcm")]
    assert len(files) > 10
    for file in files:
        with openslide.OpenSlide(str(file)) as slide:
            assert series_of(str(file)) == slide.properties["dicom.SeriesInstanceUID"]


def test_finding_slides_loads_no_openslide(shared_data: Path) -> None:
    code = (
        "import sys; from wsi_attention.inference.batch.discovery import find_slides;"
        f"print(len(find_slides([{str(shared_data / 'slides/dicom')!r}]).slides), 'openslide' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["5", "False"]
