"""Slide: what every reader's slides have in common."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import openslide
import pytest
from PIL import Image

from wsi_attention.errors import InputError, MissingMppError, SlideError, SlideOpenError, TileReadError
from wsi_attention.geometry import Box
from wsi_attention.registry import READERS as GROUP
from wsi_attention.registry import load
from wsi_attention.slide import fingerprint
from wsi_attention.slide.opening import Choice
from wsi_attention.slide.readers.array import ArrayLevels
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.testing.readers import ReaderContract

OPENED = ("tiled_tiff", "ome_tiff", "ome_zarr")
READERS = {"tiled_tiff": "tiff", "ome_tiff": "tiff", "ome_zarr": "zarr"}


@pytest.fixture(params=OPENED)
def path(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def test_auto_takes_the_fitting_reader(request: pytest.FixtureRequest) -> None:
    for fixture, reader in READERS.items():
        with open_slide(request.getfixturevalue(fixture)) as slide:
            assert slide.reader == reader
            assert slide.level_dimensions == ((601, 403), (300, 201), (150, 100))
            assert slide.dimensions == (601, 403)


def test_all_readers_give_the_same_pixels(path: Path, pyramid: tuple[np.ndarray, ...]) -> None:
    with open_slide(path) as slide:
        for level, expected in enumerate(pyramid):
            size = slide.level_dimensions[level]
            assert np.array_equal(slide.read((0, 0), level, size), expected)


def test_outside_is_white_and_borders_keep_their_place(path: Path, pyramid: tuple[np.ndarray, ...]) -> None:
    with open_slide(path) as slide:
        pixels = slide.read((-10, 390), 0, (30, 20))
        assert np.array_equal(pixels[:13, 10:], pyramid[0][390:, :20])
        assert (pixels[13:] == 255).all()
        assert (pixels[:, :10] == 255).all()
        assert (slide.read((5000, -5000), 2, (8, 8)) == 255).all()


def test_level_locations_agree_within_half_a_pixel(tiled_tiff: Path, ome_tiff: Path, ome_zarr: Path) -> None:
    slides = [open_slide(tiled_tiff), open_slide(ome_tiff, reader="tiffslide"), open_slide(ome_zarr)]
    blocks = [slide.read((200, 120), 1, (32, 32)).astype(int) for slide in slides]
    expected = slides[2].read((0, 0), 1, (300, 201))[60:92, 100:132].astype(int)
    assert np.array_equal(blocks[1], expected)
    assert np.array_equal(blocks[2], expected)
    assert np.abs(blocks[0] - expected).mean() < 4  # interpolated, as in OpenSlide: 200 / 2.004 is 99.8
    for slide in slides:
        slide.close()


def test_pixels_equal_openslide_on_every_real_slide(shared_data: Path) -> None:
    rng = np.random.default_rng(1)
    compared = places = 0
    for file in real_slides(shared_data):
        reference = openslide.OpenSlide(str(file))
        with open_slide(file, reader="openslide") as slide:
            assert slide.level_dimensions == reference.level_dimensions
            assert slide.level_downsamples == reference.level_downsamples
            for level in range(reference.level_count):
                for x, y in rng.integers((-20, -20), reference.dimensions, (64, 2)).tolist():
                    expected = laid_on_white(reference, (x, y), level)
                    if expected is None:  # the DICOM series has edge tiles that OpenSlide refuses
                        reference = openslide.OpenSlide(str(file))
                        with pytest.raises(TileReadError):
                            slide.read((x, y), level, (32, 32))
                    else:
                        assert np.array_equal(slide.read((x, y), level, (32, 32)), expected)
                        places += 1
            compared += 1
    assert compared >= 13
    assert places > 1500


def laid_on_white(reference: openslide.OpenSlide, location: tuple[int, int], level: int) -> np.ndarray | None:
    """OpenSlide's own 32×32 region; None where it cannot read it."""
    try:
        region = reference.read_region(location, level, (32, 32))
    except openslide.OpenSlideError:
        return None
    expected = Image.new("RGB", (32, 32), "white")
    expected.paste(region, mask=region.getchannel("A"))
    return np.asarray(expected)


def real_slides(shared_data: Path) -> list[Path]:
    """Every RGB brightfield slide that OpenSlide opens; of the DICOM series one instance."""
    derived = shared_data / "slides-derived"
    files = [*(shared_data / "slides").rglob("*"), *derived.glob("*.tif"), min(derived.rglob("*.dcm"))]
    grey = {"test_orient1.tif", "test_orient6.tif"}
    return [
        file
        for file in sorted(files)
        if file.suffix in {".svs", ".tif", ".tiff", ".dcm"}
        and file.name not in grey
        and openslide.OpenSlide.detect_format(str(file))
    ]


def test_tiffslide_agrees_with_openslide_on_real_slides(shared_data: Path) -> None:
    rng = np.random.default_rng(2)
    for name in ("slides/aperio/CMU-1-Small-Region.svs", "slides-derived/cmu1sr-libvips-pyramid-jpeg.tif"):
        one, other = (open_slide(shared_data / name, reader=reader) for reader in ("openslide", "tiffslide"))
        assert one.level_dimensions == other.level_dimensions
        assert one.level_downsamples == other.level_downsamples
        assert one.fingerprint == other.fingerprint
        for level, size in list(enumerate(one.level_dimensions))[1:]:
            assert np.array_equal(one.read((0, 0), level, size), other.read((0, 0), level, size))
        for x, y in rng.integers((-20, -20), one.dimensions, (64, 2)).tolist():
            assert np.array_equal(one.read((x, y), 0, (40, 30)), other.read((x, y), 0, (40, 30)))
        one.close()
        other.close()


def test_subifd_levels_are_found_and_equal_openslide_at_level_0(shared_data: Path) -> None:
    file = shared_data / "slides-derived" / "cmu1sr-tifffile-pyramid.ome.tif"
    with open_slide(file) as slide, openslide.OpenSlide(str(file)) as reference:
        assert reference.level_count == 1
        assert slide.reader == "tiff"
        assert slide.level_dimensions == ((2220, 2967), (1110, 1484), (555, 742), (278, 371))
        for place in ((0, 0), (1000, 1400), (1964, 2711)):
            expected = np.asarray(reference.read_region(place, 0, (256, 256)))[..., :3]
            assert np.array_equal(slide.read(place, 0, (256, 256)), expected)


def test_pickles_and_reopens_in_a_spawned_process(path: Path, tmp_path: Path) -> None:
    slide = open_slide(path, mpp=0.4)
    expected = slide.read((50, 60), 1, (16, 16))
    parcel = tmp_path / "slide.pickle"
    parcel.write_bytes(pickle.dumps(slide))
    assert parcel.stat().st_size < 1000
    code = (
        "import pathlib, pickle, sys; slide = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes());"
        "sys.stdout.buffer.write(slide.read((50, 60), 1, (16, 16)).tobytes()); assert slide.mpp == 0.4"
    )
    found = subprocess.run([sys.executable, "-c", code, str(parcel)], capture_output=True, check=True)
    assert found.stdout == expected.tobytes()
    slide.close()


def test_unpickling_opens_nothing_until_it_is_used(tiled_tiff: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(tiled_tiff, tmp_path / "moved.tif"))
    with open_slide(copy) as slide:
        parcel = pickle.dumps(slide)
    copy.unlink()
    landed = pickle.loads(parcel)
    assert landed.path == str(copy)
    with pytest.raises(SlideOpenError, match=r"moved\.tif"):
        _ = landed.dimensions


def test_arrays_pickle_with_their_pixels(pyramid: tuple[np.ndarray, ...]) -> None:
    slide = pickle.loads(pickle.dumps(open_slide(list(pyramid), mpp=0.5)))
    assert slide.reader == "array"
    assert slide.mpp == 0.5
    assert np.array_equal(slide.read((0, 0), 2, (150, 100)), pyramid[2])


def test_eight_threads_read_what_one_reads(path: Path) -> None:
    with open_slide(path) as slide:
        places = [(17 * i % 550, 29 * i % 350) for i in range(64)]
        alone = [slide.read(place, 0, (50, 50)) for place in places]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda place: slide.read(place, 0, (50, 50)), places))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_one_damaged_tile_costs_no_other(shared_data: Path) -> None:
    file = shared_data / "malformed" / "derived" / "corrupt-jpeg-tile.svs"
    places = [(x, y) for y in range(0, 512, 128) for x in range(0, 512, 128)]
    bad = places[5]
    with open_slide(shared_data / "malformed" / "derived" / "ok-mini.svs") as sound:
        expected = {place: sound.read(place, 0, (128, 128)) for place in places}
    with open_slide(file) as slide:
        with pytest.raises(TileReadError, match=r"corrupt-jpeg-tile\.svs: 128×128 pixels at \(128, 128\) of level 0"):
            slide.read(bad, 0, (128, 128))

        def attempt(place: tuple[int, int]) -> np.ndarray | None:
            try:
                return slide.read(place, 0, (128, 128))
            except TileReadError:
                return None

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(attempt, places * 8))
    for place, pixels in zip(places * 8, found, strict=True):
        assert (pixels is None) == (place == bad)
        if pixels is not None:
            assert np.array_equal(pixels, expected[place])


def test_a_tile_past_the_end_fails_alone(shared_data: Path) -> None:
    with open_slide(shared_data / "malformed" / "derived" / "tile-past-eof.svs") as slide:
        with pytest.raises(TileReadError, match="cannot be read"):
            slide.read((128, 128), 0, (128, 128))
        assert slide.read((0, 0), 0, (128, 128)).std() > 1


class FlakyReader:
    """Fails once per handle after it was told to, as OpenSlide does, and counts what happens to it."""

    name = "flaky"
    level_dimensions = ((64, 64),)
    level_downsamples = (1.0,)
    tile_sizes = (None,)
    properties: ClassVar[dict[str, str]] = {}
    bounds = None
    associated = ()
    opened: ClassVar[list[FlakyReader]] = []
    failures = 0

    def __init__(self, path: str) -> None:
        self.closed = False
        type(self).opened.append(self)

    def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
        assert not self.closed, "read after close"
        if type(self).failures > 0:
            type(self).failures -= 1
            raise RuntimeError("a moment's trouble")
        return np.zeros((size[1], size[0], 3), np.uint8)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Slide:
    monkeypatch.setattr("wsi_attention.slide.opening.load", lambda group, name: FlakyReader)
    FlakyReader.opened, FlakyReader.failures = [], 0
    return Slide("flaky.xyz", Choice("flaky", "as asked"))


def test_a_passing_error_is_retried_on_a_fresh_handle(flaky: Slide) -> None:
    FlakyReader.failures = 1
    assert flaky.read((0, 0), 0, (4, 4)).shape == (4, 4, 3)
    assert [reader.closed for reader in FlakyReader.opened] == [True, False]
    flaky.read((0, 0), 0, (4, 4))
    assert len(FlakyReader.opened) == 2
    flaky.close()
    assert all(reader.closed for reader in FlakyReader.opened)


def test_a_lasting_error_leaves_no_latched_handle(flaky: Slide) -> None:
    FlakyReader.failures = 2
    with pytest.raises(TileReadError, match=r"flaky\.xyz: 4×4 pixels at \(1, 2\) of level 0 cannot be read: a moment"):
        flaky.read((1, 2), 0, (4, 4))
    assert all(reader.closed for reader in FlakyReader.opened)
    assert flaky.read((1, 2), 0, (4, 4)).shape == (4, 4, 3)


def test_another_process_opens_its_own_handle(flaky: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    flaky.read((0, 0), 0, (4, 4))
    monkeypatch.setattr("wsi_attention.slide.handles.os.getpid", lambda: -1)
    flaky.read((0, 0), 0, (4, 4))
    assert len(FlakyReader.opened) == 2
    assert not any(reader.closed for reader in FlakyReader.opened)


def test_a_reader_that_gives_wrong_shapes_is_caught(flaky: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FlakyReader, "read", lambda self, location, level, size: np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(TileReadError, match="gave uint8"):
        flaky.read((0, 0), 0, (4, 4))


def test_closed_slides_say_so(tiled_tiff: Path) -> None:
    slide = open_slide(tiled_tiff)
    slide.close()
    with pytest.raises(SlideError, match="closed"):
        slide.read((0, 0), 0, (4, 4))
    slide.close()


def test_transparent_pixels_are_laid_on_white() -> None:
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[..., 0] = 100
    rgba[0, :, 3] = (0, 128, 255)
    with open_slide(rgba) as slide:
        assert slide.read((0, 0), 0, (3, 1)).tolist() == [[[255, 255, 255], [177, 127, 127], [100, 0, 0]]]


def test_mpp_is_the_geometric_mean_and_can_be_given(tiled_tiff: Path) -> None:
    with open_slide(tiled_tiff) as slide:
        assert slide.mpp == pytest.approx(0.5)
        assert slide.mpp_source == "openslide.mpp-x"
    with open_slide(tiled_tiff, mpp=0.25) as slide:
        assert (slide.mpp, slide.mpp_source, slide.mpp_xy) == (0.25, "given", (0.25, 0.25))
        assert any("0.25 was given, the file says 0.5" in oddity for oddity in slide.oddities())
    uneven = ArrayLevels(
        (np.zeros((8, 8, 3), np.uint8),), properties={"openslide.mpp-x": "0.4", "openslide.mpp-y": "0.625"}
    )
    with open_slide(uneven) as slide:
        assert slide.mpp == pytest.approx(0.5)
        assert any("not square" in oddity for oddity in slide.oddities())


def test_a_placeholder_is_a_missing_mpp_and_a_given_one_counts() -> None:
    tags = {"tiff.XResolution": "72", "tiff.YResolution": "72", "tiff.ResolutionUnit": "inch"}
    levels = ArrayLevels((np.zeros((8, 8, 3), np.uint8),), properties=tags, name="scan.tif")
    with open_slide(levels) as slide:
        assert (slide.mpp_xy, slide.mpp_source) == (None, "none")
        with pytest.raises(MissingMppError, match=r"scan\.tif: .*72 dpi, as programs write it.*--mpp"):
            _ = slide.mpp
        assert any("72 dpi" in oddity for oddity in slide.oddities())
    with open_slide(levels, mpp=1.0) as slide:
        assert (slide.mpp, slide.notes) == (1.0, ())


def test_missing_mpp_names_the_way_out_only_when_asked() -> None:
    with open_slide(np.zeros((8, 8, 3), np.uint8)) as slide:
        assert (slide.mpp_xy, slide.mpp_source) == (None, "none")
        with pytest.raises(MissingMppError, match=r"--mpp.*slides CSV.*open_slide\(path, mpp="):
            _ = slide.mpp


@pytest.mark.parametrize("mpp", [0, -0.5, float("nan"), float("inf"), 0.01, 72.0])
def test_an_impossible_mpp_is_refused(mpp: float, tiled_tiff: Path) -> None:
    with pytest.raises(InputError, match=r"mpp must be a number of µm per pixel from 0\.02 to 50"):
        open_slide(tiled_tiff, mpp=mpp)


def test_bounds_and_odd_downsamples_of_an_array() -> None:
    levels = (np.zeros((300, 400, 3), np.uint8), np.zeros((100, 133, 3), np.uint8))
    source = ArrayLevels(levels, downsamples=(1.0, 3.0), bounds=Box(10, 20, 300, 200), name="bounded")
    with open_slide(source) as slide:
        assert slide.facts.bounds == Box(10, 20, 300, 200)
        assert slide.level_downsamples == (1.0, 3.0)
        assert slide.path == "bounded"
        assert any("bounds" in oddity for oddity in slide.oddities())


@pytest.mark.parametrize("sample", [0, 7, 15])
def test_fingerprint_of_a_large_file_sees_its_ends_and_what_lies_between(sample: int, tmp_path: Path) -> None:
    raw, found = bytearray(b"II*\0" + np.random.default_rng(0).bytes(1_400_000)), set[str]()
    place = (len(raw) - fingerprint.SAMPLE_BYTES) * sample // 15 + 5
    for _ in range(2):
        (tmp_path / "a.tif").write_bytes(raw)
        found.add(fingerprint.of_slide(str(tmp_path / "a.tif"), None))  # type: ignore[arg-type]
        raw[place] ^= 1
    assert len(found) == 2


def test_fingerprint_follows_content_not_name(tiled_tiff: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(tiled_tiff, tmp_path / "other name.tif"))
    with open_slide(tiled_tiff) as one, open_slide(copy) as other:
        assert one.fingerprint == other.fingerprint
        assert len(one.fingerprint) == 64
    changed = bytearray(copy.read_bytes())
    changed[len(changed) // 2] ^= 1
    copy.write_bytes(changed)
    with open_slide(tiled_tiff) as one, open_slide(copy) as other:
        assert one.fingerprint != other.fingerprint


def test_every_instance_of_a_dicom_series_is_the_same_slide(shared_data: Path) -> None:
    series = shared_data / "slides-derived" / "cmu1sr-dicom"
    found = set()
    for place in (series, *series.glob("*.dcm")):
        with open_slide(place) as slide:
            found.add((slide.fingerprint, slide.facts.series_id, slide.level_dimensions))
            assert slide.facts.series_id == slide.properties["dicom.SeriesInstanceUID"]
    assert len(found) == 1


def test_a_folder_of_several_series_is_refused(shared_data: Path, tmp_path: Path) -> None:
    for name in ("boxes/boxes_0.dcm", "highdicom/sm_image.dcm"):
        shutil.copy(shared_data / "slides" / "dicom" / name, tmp_path)
    with pytest.raises(SlideOpenError, match="several DICOM series"):
        open_slide(tmp_path, reader="openslide")


def test_associated_images(shared_data: Path) -> None:
    with open_slide(shared_data / "slides" / "aperio" / "CMU-1-Small-Region.svs") as slide:
        assert set(slide.facts.associated) == {"label", "macro", "thumbnail"}
        assert slide.read_associated("macro").shape == (431, 1280, 3)
        assert (slide.facts.vendor, slide.facts.objective_power) == ("aperio", 20.0)
        with pytest.raises(InputError, match=r"no associated image 'nothing'.*macro"):
            slide.read_associated("nothing")


def test_wrong_calls_say_what_is_possible(tiled_tiff: Path) -> None:
    with open_slide(tiled_tiff) as slide:
        with pytest.raises(InputError, match="levels 0 to 2"):
            slide.read((0, 0), 3, (4, 4))
        for size in ((0, 4), (4, -1), (10**6, 10**6)):
            with pytest.raises(InputError, match="cannot read"):
                slide.read((0, 0), 0, size)
    with pytest.raises(InputError, match="no reader named 'nobody'"):
        open_slide(tiled_tiff, reader="nobody")


def test_a_registered_reader_keeps_the_contract_without_pytest(tiled_tiff: Path) -> None:
    class Registered(ReaderContract):
        reader, path = load(GROUP, "openslide"), str(tiled_tiff)

    Registered().check()

    class Shifted(load(GROUP, "openslide")):
        def read(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
            return super().read((location[0] + (location[0] < 0), location[1]), level, size)

    Registered.reader = Shifted
    with pytest.raises(AssertionError):
        Registered().check()
