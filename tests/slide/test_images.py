"""Which image of a file is the slide, whatever comes first, with every reader; and the way to say another."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from wsi_attention.cli.app import app
from wsi_attention.errors import InputError, SeveralImagesError, SlideOpenError, UnsupportedSlideError
from wsi_attention.slide import opening
from wsi_attention.slide.description import describe
from wsi_attention.slide.images import Chosen, StoredImage, choose
from wsi_attention.slide.slide import open_slide
from wsi_attention.testing.slides import SlideSpec, write_slide

sys.path.insert(0, str(Path(__file__).resolve().parent))

from servers import serving
from several_images import (
    REDUCED,
    STRIPS,
    TILED,
    pages_of,
    picture,
    pyramid,
    write_group,
    write_ome,
    write_plain,
    write_store,
)

SLIDE, MACRO, OTHER = 200, 90, 150
"""The red of each image."""


def stored(index: int, name: str, w: int, h: int, levels: int = 1, rgb: bool = True) -> StoredImage:
    return StoredImage(index, name, (w, h), levels, rgb)


@pytest.mark.parametrize(
    ("images", "number"),
    [
        ([stored(0, "macro", 120, 90), stored(1, "20x", 960, 960, 3)], 1),
        ([stored(0, "Label image", 2000, 1500), stored(1, "", 960, 960, 3)], 1),
        ([stored(0, "", 120, 120), stored(1, "", 960, 960)], 1),
        ([stored(0, "", 960, 960), stored(1, "", 480, 480), stored(2, "", 240, 240)], 0),
        ([stored(0, "", 60, 90), stored(1, "", 960, 960, 3)], 1),
        ([stored(0, "", 960, 960, rgb=False), stored(1, "", 960, 960)], 1),
        ([stored(0, "mask", 960, 960, 4, rgb=False)], 0),
        ([stored(0, "macro", 960, 960)], 0),
    ],
)
def test_one_image_can_be_the_slide(images: list[StoredImage], number: int) -> None:
    assert choose(images, None, "a.tif").number == number


@pytest.mark.parametrize(
    "images",
    [
        [stored(0, "one", 960, 960), stored(1, "two", 960, 960)],
        [stored(0, "region", 500, 300), stored(1, "20x", 960, 960, 3)],
        [stored(0, "", 480, 480, 2), stored(1, "", 960, 960, 3)],
        [stored(0, "", 700, 700), stored(1, "", 960, 960)],
        [stored(0, "macro", 960, 960, 3), stored(1, "", 500, 500)],
        [stored(0, "", 5000, 5000, rgb=False), stored(1, "", 960, 960)],
    ],
)
def test_several_images_could_be_it(images: list[StoredImage]) -> None:
    with pytest.raises(
        SeveralImagesError, match=r"^a\.tif: several images could be the slide: 0 .*; choose .*--series"
    ):
        choose(images, None, "a.tif")
    assert choose(images, 1, "a.tif") == choose(images, "1", "a.tif") == Chosen(1)


def test_a_choice_by_size_alone_is_told() -> None:
    found = choose([stored(0, "", 60, 90), stored(1, "", 960, 960, 3)], None, "a.tif")
    assert found.notes == ("image 1 (960×960) was taken as the slide, not 0 (60×90); --series chooses another",)
    alone = choose([stored(0, "macro", 960, 960)], None, "a.tif")
    assert alone.notes == ("the image that was taken as the slide is called 'macro'",)
    named = choose([stored(0, "macro", 60, 90), stored(1, "", 960, 960, 3)], None, "a.tif")
    assert named.notes == ()


def test_names_and_numbers_that_are_not_there() -> None:
    images = [stored(0, "a", 960, 960), stored(1, "b", 960, 960), stored(2, "b", 960, 960)]
    assert choose(images, "A", "x").number == 0
    with pytest.raises(SlideOpenError, match=r"x: no image 'c'; there are: 0 'a' \(960×960\), 1 'b'"):
        choose(images, "c", "x")
    with pytest.raises(SlideOpenError, match="several images 'b'"):
        choose(images, "b", "x")
    with pytest.raises(SlideOpenError, match="no image 3"):
        choose(images, 3, "x")


Writer = Callable[[Path], Path]

FILES: dict[str, Writer] = {
    "strip thumbnail first": lambda path: write_plain(
        path / "a.tif", [(picture(64, 48, MACRO), STRIPS), *pages_of(pyramid(512, 384, SLIDE))]
    ),
    "macro first": lambda path: write_plain(
        path / "a.tif",
        [(picture(300, 100, MACRO), {**TILED, "description": "macro 300x100"}), *pages_of(pyramid(512, 384, SLIDE))],
    ),
    "small pyramid first": lambda path: write_plain(
        path / "a.tif", [*pages_of(pyramid(64, 48, MACRO, 2)), *pages_of(pyramid(512, 384, SLIDE))]
    ),
    "smallest level first": lambda path: write_plain(
        path / "a.tif",
        [(level, TILED if level.shape[1] == 512 else REDUCED) for level in reversed(pyramid(512, 384, SLIDE))],
    ),
    "smallest level first, not marked": lambda path: write_plain(
        path / "a.tif", [(level, TILED) for level in reversed(pyramid(512, 384, SLIDE))]
    ),
    "smallest level first, larger ones marked": lambda path: write_plain(
        path / "a.tif",
        [(level, TILED if level.shape[1] == 128 else REDUCED) for level in reversed(pyramid(512, 384, SLIDE))],
    ),
    "slide in strips after a label": lambda path: write_plain(
        path / "a.tif",
        [(picture(90, 90, MACRO), {**STRIPS, "description": "label"}), (picture(512, 384, SLIDE), STRIPS)],
    ),
    "ome, macro first": lambda path: write_ome(
        path / "a.ome.tif", [("macro image", [picture(120, 120, MACRO)]), ("20x", pyramid(512, 384, SLIDE))]
    ),
    "ome, macro in strips first": lambda path: write_ome(
        path / "a.ome.tif",
        [("macro image", [picture(120, 120, MACRO)]), ("20x", pyramid(512, 384, SLIDE, 1))],
        tile=None,
        rowsperstrip=16,
    ),
    "zarr, macro first": lambda path: write_store(
        path / "a.ome.zarr", [("macro", [picture(120, 120, MACRO)]), ("20x", pyramid(512, 384, SLIDE))]
    ),
    "zarr, not listed": lambda path: write_store(
        path / "a.ome.zarr",
        [("label image", pyramid(120, 120, MACRO, 2)), ("", pyramid(512, 384, SLIDE))],
        series=False,
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_slide_is_found_wherever_it_lies(kind: str, tmp_path: Path) -> None:
    file = FILES[kind](tmp_path)
    with open_slide(file) as slide:
        assert slide.dimensions == (512, 384), slide.reader
        assert slide.mpp == pytest.approx(0.5)
        for level, (w, h) in enumerate(slide.level_dimensions):
            assert slide.level_downsamples[level] == pytest.approx(512 / w, rel=0.02)
            assert (slide.read((0, 0), level, (w, h))[..., 0] == SLIDE).all()
        facts = describe(slide)
        assert [image["slide"] for image in facts["images"]].count(True) == 1
        assert facts["images"][slide.facts.image]["width"] == 512
        assert pickle.loads(pickle.dumps(slide)).dimensions == (512, 384)


@pytest.mark.parametrize("kind", [kind for kind in FILES if "zarr" not in kind])
def test_every_reader_takes_the_same_image_or_refuses(kind: str, tmp_path: Path) -> None:
    file = FILES[kind](tmp_path)
    with serving(tmp_path) as server, open_slide(server.url(file.name)) as slide:
        assert (slide.dimensions, slide.mpp) == ((512, 384), pytest.approx(0.5))
        assert (slide.read((0, 0), 0, (64, 64))[..., 0] == SLIDE).all()
    for reader in ("tiff", "openslide", "tiffslide"):
        try:
            with open_slide(file, reader=reader) as slide:
                assert (slide.dimensions, slide.mpp) == ((512, 384), pytest.approx(0.5)), reader
                assert (slide.read((0, 0), 0, (64, 64))[..., 0] == SLIDE).all()
        except SlideOpenError as error:
            assert reader != "tiffslide"
            assert "use reader='auto'" in str(error) or "Unsupported or missing" in str(error)


SEVERAL: dict[str, Writer] = {
    "two regions": lambda path: write_plain(
        path / "a.tif", [*pages_of(pyramid(512, 384, SLIDE)), *pages_of(pyramid(400, 500, OTHER))]
    ),
    "pages of one size": lambda path: write_plain(
        path / "a.tif", [(picture(512, 384, SLIDE), TILED), (picture(512, 384, OTHER), TILED)]
    ),
    "ome": lambda path: write_ome(
        path / "a.ome.tif", [("one", pyramid(512, 384, SLIDE)), ("two", pyramid(400, 500, OTHER))]
    ),
    "zarr": lambda path: write_store(
        path / "a.ome.zarr", [("one", pyramid(512, 384, SLIDE)), ("two", pyramid(400, 500, OTHER))]
    ),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_slides_in_one_file_are_told_apart(kind: str, tmp_path: Path) -> None:
    file = SEVERAL[kind](tmp_path)
    with pytest.raises(
        SeveralImagesError, match=r"could be the slide: 0 .*\(512×384\), 1 .*; choose one with --series"
    ):
        open_slide(file)
    with (
        open_slide(file, options={"series": 0}) as first,
        open_slide(file, options={"series": "1"}) as second,
        pickle.loads(pickle.dumps(second)) as again,
    ):
        for slide, red in ((first, SLIDE), (second, OTHER), (again, OTHER)):
            w, h = slide.dimensions
            assert (slide.read((0, 0), 0, (w, h))[..., 0] == red).all()
            for level, size in enumerate(slide.level_dimensions):
                assert (slide.read((0, 0), level, size)[..., 0] == red).all(), (slide.reader, level)
        assert first.fingerprint != second.fingerprint == again.fingerprint
        assert (again.facts.image, dict(again.options)) == (1, {"series": "1"})


def test_levels_of_another_image_are_no_levels(tmp_path: Path) -> None:
    """OpenSlide takes every reduced image of the file for a level."""
    regions = [*pages_of(pyramid(512, 384, SLIDE, 2)), *pages_of(pyramid(200, 600, OTHER, 2))]
    with open_slide(write_plain(tmp_path / "a.tif", regions), options={"series": 0}) as slide:
        assert slide.level_dimensions == ((512, 384), (256, 192))
    with pytest.raises(SlideOpenError, match="not the image that OpenSlide takes"):
        open_slide(tmp_path / "a.tif", reader="openslide", options={"series": 0})


def test_a_store_that_lists_its_levels_from_small_to_large(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.ome.zarr", zarr_format=2)
    write_group(group, pyramid(512, 384, SLIDE), backwards=True)
    with open_slide(tmp_path / "a.ome.zarr") as slide:
        assert slide.level_dimensions == ((512, 384), (256, 192), (128, 96))
        assert (slide.mpp, slide.level_downsamples) == (pytest.approx(0.5), pytest.approx((1.0, 2.0, 4.0)))


def test_several_pyramids_in_one_group_and_names_in_the_xml(tmp_path: Path) -> None:
    xml = '<OME><Image ID="Image:0" Name="scan &amp; macro"/><Image ID="Image:1" Name="20x"/></OME>'
    path = write_store(tmp_path / "a.zarr", [("", pyramid(300, 290, MACRO)), ("", pyramid(512, 384, SLIDE))], xml=xml)
    with open_slide(path) as slide:
        assert [image.name for image in slide.facts.images] == ["scan & macro", "20x"]
        assert slide.dimensions == (512, 384)
    group = zarr.create_group(tmp_path / "b.zarr", zarr_format=2)
    write_group(group.create_group("x"), pyramid(300, 290, MACRO))
    write_group(group.create_group("y"), pyramid(512, 384, SLIDE))
    entries = [dict(group[name].attrs["multiscales"][0]) for name in "xy"]
    for name, entry in zip("xy", entries, strict=True):
        entry["datasets"] = [{**one, "path": f"{name}/{one['path']}"} for one in entry["datasets"]]
    group.attrs["multiscales"] = entries
    with pytest.raises(SeveralImagesError):
        open_slide(tmp_path / "b.zarr")
    with open_slide(tmp_path / "b.zarr", options={"series": 1}) as slide:
        assert (slide.read((0, 0), 0, (64, 64))[..., 0] == SLIDE).all()


def test_a_plate_is_no_slide(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "a.zarr", zarr_format=2, attributes={"plate": {"wells": []}})
    with pytest.raises(UnsupportedSlideError, match="a plate of wells, not a slide"):
        open_slide(tmp_path / "a.zarr")


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(InputError, match="no option 'level' for opening a slide; possible: series"):
        open_slide(pixels, options={"level": 1})
    with pytest.raises(InputError, match=r"no option 'sereis' for opening a slide; did you mean 'series'\?"):
        open_slide(SEVERAL["two regions"](tmp_path), options={"sereis": 1})
    for value in (-1, True, 0.5):
        with pytest.raises(InputError, match=rf"series must be a name or a number \(from 0\), got {value}"):
            open_slide(pixels, options={"series": value})
    for nothing in (123, None, [], ["a.svs"]):
        with pytest.raises(InputError, match="a slide is a path, a NumPy array or a list of them, got"):
            open_slide(nothing)
    with pytest.raises(SlideOpenError, match=r"the reader array has no option 'series'; those that have: .*tiff"):
        open_slide(pixels, options={"series": 1})


class OpticalReader:
    """A reader of another package, with an option of its own: which optical path the pixels are of."""

    name: ClassVar[str] = "optical"

    def __init__(self, path: str, optical_path: str | int = 0) -> None:
        self._grey = 10 * int(optical_path)
        self.level_dimensions = ((512, 384),)
        self.level_downsamples, self.tile_sizes, self.associated = (1.0,), (None,), ()
        self.properties: dict[str, str] = {}
        self.bounds = None

    @classmethod
    def recognises(cls, path: str) -> bool:
        return True

    def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
        return np.full((size[1], size[0], 3), self._grey, np.uint8)

    def read_associated(self, name: str) -> np.ndarray:
        raise KeyError(name)

    def close(self) -> None:
        return


def test_an_option_that_only_a_reader_of_another_package_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The constructor of the reader is the only place that names it; `auto` passes over the readers without it."""
    known, everyone = opening.load, opening.names(opening.READERS)
    monkeypatch.setattr(opening, "names", lambda group: (*everyone, "optical"))
    monkeypatch.setattr(opening, "load", lambda group, name: OpticalReader if name == "optical" else known(group, name))
    path = SEVERAL["two regions"](tmp_path)
    fingerprints = set()
    for value in (3, "7"):
        with open_slide(path, options={"optical_path": value, "series": None}) as slide:
            assert slide.reader == "optical"
            assert "not tiff: it has no option 'optical_path'" in slide.reader_reason
            assert (slide.read((0, 0), 0, (2, 2)) == 10 * int(value)).all()
            again = pickle.loads(pickle.dumps(slide))
            assert (again.read((0, 0), 0, (2, 2)) == 10 * int(value)).all()
            fingerprints.add(slide.fingerprint)
    with open_slide(path, reader="optical") as slide:
        fingerprints.add(slide.fingerprint)
    assert len(fingerprints) == 3
    with pytest.raises(SlideOpenError, match="the reader tiff has no option 'optical_path'; those that have: optical"):
        open_slide(path, reader="tiff", options={"optical_path": 1})


def test_info_lists_the_images_and_takes_the_option(tmp_path: Path) -> None:
    file = SEVERAL["two regions"](tmp_path)
    refused = CliRunner().invoke(app, ["info", str(file)])
    assert refused.exit_code == 1
    assert "0 (512×384), 1 (400×500)" in refused.output
    shown = CliRunner().invoke(app, ["info", "--series", "1", str(file)]).stdout
    assert "image 0      512 x 384 px, 3 levels\n" in shown
    assert "image 1      400 x 500 px, 3 levels <- the slide\n" in shown


def test_a_thumbnail_that_is_chosen_has_no_scale_of_the_slide(tmp_path: Path) -> None:
    """Aperio writes the slide's µm per pixel into the text of its thumbnail."""
    write_slide(tmp_path / "a.svs", SlideSpec(size=(900, 700), seed=1))
    with open_slide(tmp_path / "a.svs") as slide:
        assert [image.name for image in slide.facts.images] == ["", "thumbnail", "label", "macro"]
        assert slide.mpp_xy is not None
    with open_slide(tmp_path / "a.svs", options={"series": "thumbnail"}) as slide:
        assert (slide.reader, slide.facts.image, slide.mpp_xy) == ("tiffslide", 1, None)


def test_images_of_a_store_over_a_network(tmp_path: Path) -> None:
    FILES["zarr, macro first"](tmp_path)
    with serving(tmp_path) as server, open_slide(server.url("a.ome.zarr")) as slide:
        assert (slide.dimensions, slide.facts.image, len(slide.facts.images)) == ((512, 384), 1, 2)
        assert (slide.read((0, 0), 0, (64, 64))[..., 0] == SLIDE).all()
