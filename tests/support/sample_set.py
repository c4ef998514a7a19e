"""The slides of `sample_slides/`: six small ones in five formats, three of them with a lesion, and their README.

    python tests/support/sample_set.py sample_slides

The same versions of NumPy, SciPy, Pillow and the codecs write the same pixels.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

from slide_sets import write_set

from wsi_attention.testing.slides import SlideSpec

SAMPLES: dict[str, SlideSpec] = {
    "sample_01.svs": SlideSpec((6144, 6144), seed=901, label="lesion", quality=70),
    "sample_02.svs": SlideSpec((6145, 5123), seed=902, label="benign", quality=70),
    "sample_03.tiff": SlideSpec((5120, 6144), seed=903, label="lesion", quality=70),
    "sample_04.ome.tiff": SlideSpec((6144, 5632), seed=904, label="lesion", quality=70),
    "sample_05.ome.zarr": SlideSpec((3584, 3584), seed=922, label="benign", ngff="0.5"),
    "sample_06.ome.zarr.zip": SlideSpec((2816, 2816), seed=906, label="benign", ngff="0.4"),
}
"""File name to spec."""

_HEAD = """# Sample slides

Synthetic H&E-like slides for trying things out and for tests. No tissue, no patient: every pixel is computed.
Licence: CC0-1.0 (public domain); use them for anything.

The positives hold one or two nests of large, crowded, dark, irregular nuclei, at most 0.5 % of the tissue. Lymphoid
aggregates (small round nuclei), folds and ink look alike from afar and are in all of them. 0.5 µm per pixel throughout.

* `labels.csv`: slide, label (`benign` or `lesion`), patient.
* `groundtruth/<slide>.geojson`: the lesions in level-0 pixels; drag one onto the slide in QuPath.

All were made by one command (the specs stand in `tests/support/sample_set.py`):

```
python tests/support/sample_set.py sample_slides
```

Made again with the same versions of NumPy, SciPy, Pillow and the codecs, the pixels are the same; the checksums
are those of the files here (a zip file also holds the time of writing, an OME-TIFF a fresh id).

Any one of them is made by `write_slide(name, SAMPLES[name])` as well. Of a folder, the size is the sum of its files,
and the sha256 is that of the lines `sha256  path` of its files, sorted by path.

| slide | label | pixels | seed | lesion share of tissue | bytes | sha256 |
| --- | --- | --- | --- | --- | --- | --- |
"""


def checksum(path: Path) -> str:
    """The sha256 of a file; of a folder, that of the sorted lines `sha256  path` of its files."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = "".join(f"{checksum(file)}  {file.relative_to(path).as_posix()}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def bytes_of(path: Path) -> int:
    """The size of a file, or of all files in a folder."""
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the samples and their README."""
    parser = argparse.ArgumentParser(prog="python tests/support/sample_set.py", description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write to")
    out: Path = parser.parse_args(arguments).out
    rows = []
    for name, truth in write_set(out, list(SAMPLES.items()), workers=2):
        spec = SAMPLES[name]
        size = f"{spec.size[0]} × {spec.size[1]}"
        share = f"{100 * truth.lesion_area / truth.tissue_area:.2f} %" if truth.lesions else "none"
        cells = (f"`{name}`", spec.label, size, spec.seed, share, bytes_of(out / name), f"`{checksum(out / name)}`")
        rows.append("| " + " | ".join(str(cell) for cell in cells) + " |\n")
    (out / "README.md").write_text(_HEAD + "".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
