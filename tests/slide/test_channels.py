"""Colours come out as red, green and blue, however a file stores them; what cannot be brought there is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from wsi_attention.errors import SlideError, SlideOpenError, UnsupportedSlideError
from wsi_attention.slide.channels import reordered, rgb_order
from wsi_attention.slide.slide import open_slide

sys.path.insert(0, str(Path(__file__).resolve().parent))

from servers import serving
from several_images import write_group, write_planes

Pixels = NDArray[np.uint8]

RGB, BGR = ("FF0000", "00FF00", "0000FF"), ("0000FF", "00FF00", "FF0000")
WHITE = ("FFFFFF",) * 3


@pytest.mark.parametrize(
    ("names", "colours", "order"),
    [
        ((), (), None),
        (("0", "1", "2"), WHITE, None),
        (("Channel 0", "Channel 1", "Channel 2"), (), None),
        (("Brightfield",) * 3, WHITE, None),
        (("Red", "Green", "Blue"), RGB, (0, 1, 2)),
        (("Blue", "Green", "Red"), BGR, (2, 1, 0)),
        (("Blue", "Green", "Red"), (), (2, 1, 0)),
        (("g", "b", "r"), WHITE, (2, 0, 1)),
        (("Channel:0", "Channel:1", "Channel:2"), BGR, (2, 1, 0)),
        (("", "", ""), ("#00ff00", "#0000ff", "#ff0000"), (2, 0, 1)),
    ],
)
def test_names_and_colours_tell_the_order(
    names: tuple[str, ...], colours: tuple[str, ...], order: tuple[int, int, int] | None
) -> None:
    assert rgb_order(names, colours, "a") == order


@pytest.mark.parametrize(
    ("names", "colours", "why"),
    [
        (
            ("Hematoxylin", "Eosin", "Residual"),
            WHITE,
            "called 'Hematoxylin', 'Eosin', 'Residual', not red, green and blue",
        ),
        (("Cyan", "Magenta", "Yellow"), (), "not red, green and blue"),
        (("Red", "Red", "Blue"), (), "not red, green and blue"),
        (("CD3", "CD8", "PanCK"), RGB, "called 'CD3', 'CD8', 'PanCK'"),
        (("0", "1", "2"), ("00FFFF", "FF00FF", "FFFF00"), "coloured 00FFFF, FF00FF, FFFF00"),
        (("Red", "Green", "Blue"), BGR, "called Red, Green, Blue but coloured 0000FF, 00FF00, FF0000"),
    ],
)
def test_what_is_no_rgb_is_refused(names: tuple[str, ...], colours: tuple[str, ...], why: str) -> None:
    with pytest.raises(UnsupportedSlideError, match=f"^a: its channels are .*{why}"):
        rgb_order(names, colours, "a")


def test_the_note_names_the_stored_order() -> None:
    assert reordered((2, 0, 1)).startswith("its channels are stored as green, blue, red and")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_store_with_its_channels_in_another_order(
    order: tuple[int, int, int], pyramid: tuple[Pixels, ...], tmp_path: Path
) -> None:
    """omero's labels say which channel is which, in read and in read_regions alike."""
    names, colours = ("Red", "Green", "Blue"), RGB
    channels = [{"label": names[c], "color": colours[c]} for c in order]
    group = zarr.create_group(tmp_path / "a.ome.zarr", zarr_format=2)
    write_group(group, [level[..., list(order)] for level in pyramid], omero={"channels": channels})
    with open_slide(tmp_path / "a.ome.zarr") as slide:
        for number, level in enumerate(pyramid):
            assert np.array_equal(slide.read((0, 0), number, (level.shape[1], level.shape[0])), level)
        out = np.zeros((1, 64, 64, 3), np.uint8)
        assert slide.read_regions(np.array([[40, 50]]), 0, (64, 64), out) == [None]
        assert np.array_equal(out[0], pyramid[0][50:114, 40:104])
        assert bool(slide.notes) == (order != (0, 1, 2))


@pytest.mark.parametrize("names", [("Red", "Green", "Blue"), ("Blue", "Green", "Red")])
def test_three_planes_read_as_rgb(names: tuple[str, ...], pyramid: tuple[Pixels, ...], tmp_path: Path) -> None:
    order = [("Red", "Green", "Blue").index(name) for name in names]
    file = write_planes(tmp_path / "a.ome.tif", pyramid, names, order)
    with serving(tmp_path) as server:
        for path in (str(file), server.url(file.name)):
            with open_slide(path) as slide:
                assert (slide.reader, slide.mpp) == ("tiffslide", pytest.approx(0.5))
                assert len(slide.level_dimensions) == 3
                for number, level in enumerate(pyramid):
                    assert np.array_equal(slide.read((0, 0), number, (level.shape[1], level.shape[0])), level)
    with pytest.raises(SlideOpenError, match=r"leaves to others; use reader='auto'|cannot open"):
        open_slide(file, reader="openslide")


def test_three_grey_channels_that_nobody_calls_rgb_are_refused(pyramid: tuple[Pixels, ...], tmp_path: Path) -> None:
    for names in (("a", "b", "c"), ("DAPI", "FITC", "Cy3"), ("", "", "")):
        file = write_planes(tmp_path / "a.ome.tif", pyramid, names)
        with pytest.raises(UnsupportedSlideError, match=r"an image stack \(3 along C\), not one RGB plane"):
            open_slide(file)


def test_an_ome_tiff_that_calls_its_samples_blue_green_red(pyramid: tuple[Pixels, ...], tmp_path: Path) -> None:
    file, told = tmp_path / "a.ome.tif", {"photometric": "rgb", "tile": (64, 64), "compression": "deflate"}
    channels = "".join(f'<Channel ID="Channel:0:{i}" Name="{name}"/>' for i, name in enumerate(("B", "G", "R")))
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="601" SizeY="403" SizeC="3" SizeZ="1"'
        f' SizeT="1" PhysicalSizeX="0.5" PhysicalSizeY="0.5">{channels}<TiffData IFD="0" PlaneCount="1"/>'
        "</Pixels></Image></OME>"
    )
    tifffile.imwrite(file, pyramid[0][..., ::-1], description=xml, metadata=None, **told)
    with open_slide(file) as slide:
        assert np.array_equal(slide.read((0, 0), 0, (601, 403)), pyramid[0]), slide.reader
        assert "stored as blue, green, red" in slide.notes[0]


def written(
    file: Path, levels: tuple[Pixels, ...], change: Callable[[Pixels], Any] = lambda x: x, **options: Any
) -> Path:
    """A tiled pyramid, its pixels changed before they are written."""
    with tifffile.TiffWriter(file) as tif:
        for index, level in enumerate(levels):
            a_cm = 2e4 / 2**index
            told = {"tile": (64, 64), "metadata": None, "resolution": (a_cm, a_cm), "resolutionunit": "CENTIMETER"}
            tif.write(change(level), subfiletype=int(index > 0), **{**told, "photometric": "rgb", **options})
    return file


def planar(level: Pixels) -> Pixels:
    return np.moveaxis(level, -1, 0).copy()


@pytest.mark.parametrize("compression", [None, "deflate", "lzw"])
def test_planar_tiffs_read_here_and_over_a_network(
    compression: str | None, pyramid: tuple[Pixels, ...], tmp_path: Path
) -> None:
    file = written(tmp_path / "a.tif", pyramid, planar, planarconfig="separate", compression=compression)
    with serving(tmp_path) as server:
        for path, reader in ((str(file), "auto"), (str(file), "tiffslide"), (server.url(file.name), "auto")):
            with open_slide(path, reader=reader) as slide:
                assert slide.level_dimensions == ((601, 403), (300, 201), (150, 100)), slide.reader
                for number, level in enumerate(pyramid):
                    assert np.array_equal(slide.read((0, 0), number, (level.shape[1], level.shape[0])), level)
    with pytest.raises(SlideOpenError, match=r"channels apart from each other, which the tiff reader leaves to others"):
        open_slide(file, reader="tiff")


def test_a_plane_of_a_tile_that_is_missing_is_white(pyramid: tuple[Pixels, ...], tmp_path: Path) -> None:
    file = written(tmp_path / "a.tif", pyramid[:1], planar, planarconfig="separate")
    with tifffile.TiffFile(file, mode="r+") as tif:
        counts = list(tif.pages.first.tags["TileByteCounts"].value)
        counts[len(counts) // 3] = 0  # the first tile of green
        tif.pages.first.tags["TileByteCounts"].overwrite(counts)
    with open_slide(file, reader="tiffslide") as slide:
        assert (slide.read((0, 0), 0, (64, 64)) == 255).all()
        assert np.array_equal(slide.read((64, 0), 0, (64, 64)), pyramid[0][:64, 64:128])


@pytest.mark.parametrize("compression", ["webp", "jpegxl", "jpeg2000", "lzma", "png"])
def test_what_openslide_cannot_decode_goes_to_the_next_reader(
    compression: str, pyramid: tuple[Pixels, ...], tmp_path: Path
) -> None:
    file = written(tmp_path / "a.tif", pyramid, compression=compression)
    with serving(tmp_path) as server:
        for path in (str(file), server.url(file.name)):
            with open_slide(path) as slide:
                assert (slide.reader, len(slide.level_dimensions)) == ("tiffslide", 3)
                assert compression.upper() in slide.reader_reason
                seen = slide.read((0, 0), 0, (601, 403)).astype(int)
                assert np.abs(seen - pyramid[0]).mean() < 12
    with pytest.raises(SlideOpenError, match=rf"{compression.upper()} tiles that OpenSlide cannot decode"):
        open_slide(file, reader="openslide")


def test_a_compression_that_nobody_knows_is_named(pyramid: tuple[Pixels, ...], tmp_path: Path) -> None:
    file = written(tmp_path / "a.tif", pyramid[:1])
    with tifffile.TiffFile(file, mode="r+") as tif:
        tif.pages.first.tags["Compression"].overwrite(60123)
    with pytest.raises(UnsupportedSlideError, match=r"a\.tif: TIFF compression 60123 is not known here"):
        open_slide(file)


def test_colours_that_no_reader_brings_to_rgb(pyramid: tuple[Pixels, ...], tmp_path: Path) -> None:
    """OpenSlide turns YCbCr into RGB; tiffslide, which alone reads it over a network, does not."""
    weights = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])

    def ycbcr(level: Pixels) -> Pixels:
        return np.clip(np.round(level @ weights.T + [0, 128, 128]), 0, 255).astype(np.uint8)

    file = written(tmp_path / "a.tif", pyramid, ycbcr, photometric="ycbcr", compression="lzw")
    with open_slide(file) as slide:
        assert slide.reader == "openslide"
        assert np.abs(slide.read((0, 0), 0, (601, 403)).astype(int) - pyramid[0]).mean() < 3
    with pytest.raises(UnsupportedSlideError, match="colours stored as YCbCr in LZW tiles"):
        open_slide(file, reader="tiffslide")


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda x: x[..., 0].copy(), {"photometric": "miniswhite"}),
        (lambda x: x[..., 0].copy(), {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}),
        (lambda x: np.dstack([x, x[..., :1]]), {"photometric": "separated"}),
        (lambda x: x, {"photometric": "cielab"}),
        (lambda x: x.astype(np.uint16) * 257, {}),
        (lambda x: np.dstack([x, x[..., :1]]), {"extrasamples": ["unspecified"]}),
    ],
)
def test_other_kinds_of_pixels_are_refused(
    change: Callable[[Pixels], Any], options: dict[str, Any], pyramid: tuple[Pixels, ...], tmp_path: Path
) -> None:
    file = written(tmp_path / "a.tif", pyramid, change, **options)
    for reader in ("auto", "openslide", "tiffslide", "tiff"):
        with pytest.raises(SlideError, match=r"only 8-bit RGB brightfield slides can be classified"):
            open_slide(file, reader=reader)


@pytest.mark.parametrize(("kind", "factor"), [("unassalpha", 1.0), ("assocalpha", 0.5)])
def test_transparency_is_laid_on_white(kind: str, factor: float, pyramid: tuple[Pixels, ...], tmp_path: Path) -> None:
    def half(level: Pixels) -> Pixels:
        return np.dstack([np.round(level * factor).astype(np.uint8), np.full(level.shape[:2], 128, np.uint8)])

    file = written(tmp_path / "a.tif", pyramid, half, extrasamples=[kind])
    expected = pyramid[0] * 0.5 + 255 * 0.5
    for reader in ("openslide", "tiffslide"):
        with open_slide(file, reader=reader) as slide:
            assert np.abs(slide.read((0, 0), 0, (601, 403)) - expected).max() < 3, reader
