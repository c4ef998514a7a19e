"""Attention as DICOM: read back by highdicom, it lies on the lesion; a second run gives the same bytes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wsi_attention import open_slide
from wsi_attention.errors import SlideError
from wsi_attention.export.chosen import exporter_of
from wsi_attention.geometry import Grid
from wsi_attention.slide.view import View
from wsi_attention.structures import AttentionMap, Glimpse, Prediction, TileSet
from wsi_attention.testing.exporters import ExporterContract, example_prediction
from wsi_attention.testing.slide_levels import encoded, reduced
from wsi_attention.testing.slide_writers import write_svs

highdicom = pytest.importorskip("highdicom")
pytest.importorskip("wsi_attention_dicom", reason="pip install plugins/dicom")
wsidicom = pytest.importorskip("wsidicom")
pytest.importorskip("wsidicomizer")

from highdicom.ann import MicroscopyBulkSimpleAnnotations  # noqa: E402
from highdicom.pm import ParametricMap  # noqa: E402
from highdicom.spatial import ImageToReferenceTransformer, ReferenceToImageTransformer  # noqa: E402
from pydicom import Dataset, dcmread  # noqa: E402
from wsi_attention_dicom.annotations import AnnotationExporter  # noqa: E402
from wsi_attention_dicom.described import minimal_source  # noqa: E402
from wsi_attention_dicom.parametric_map import ParametricMapExporter  # noqa: E402
from wsi_attention_dicom.source import source_of  # noqa: E402

TISSUE, LESION = (232, 200, 222), (95, 55, 140)
SIZE = (1003, 811)
PLACE = (320, 256, 64, 64)
CELL = 64
CONVERT = """
import sys
from wsidicomizer import WsiDicomizer
from wsidicomizer.sources.tiffslide import TiffSlideSource
options = {"workers": 1, "tile_size": 256, "add_missing_levels": True, "preferred_source": TiffSlideSource}
WsiDicomizer.convert(sys.argv[1], sys.argv[2], **options)
"""
"""Through TiffSlide, because wsidicomizer's usual source asks for a system library."""
KNOWN_FALSE = "CommonZCoordinateValue"
"""dciodvfy of 2022 reports this attribute in every file with 2D coordinates, although none has it."""


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DICOM series with a lesion at `PLACE`, converted from SVS as users do."""
    folder = tmp_path_factory.mktemp("dicom")
    pixels = np.full((SIZE[1], SIZE[0], 3), TISSUE, np.uint8)
    x, y, w, h = PLACE
    pixels[y : y + h, x : x + w] = LESION
    write_svs(folder / "slide.svs", encoded([pixels], 95), 0.5, reduced(pixels, 4))
    subprocess.run([sys.executable, "-c", CONVERT, folder / "slide.svs", folder / "series"], check=True)
    return folder / "series"


def looked(path: Path) -> Prediction:
    """A prediction whose map is the darkness of the slide's cells, and whose tile is the darkest cell."""
    with open_slide(path) as slide:
        pixels = View(slide, 1.0).read_whole().astype(np.float64)
        extent, mpp = slide.dimensions, slide.mpp
    grid = Grid.covering(extent, (CELL, CELL))
    dark = np.full((grid.rows * CELL, grid.cols * CELL), np.nan)
    dark[: extent[1], : extent[0]] = 255 - pixels.mean(axis=2)
    cells = np.nanmean(dark.reshape(grid.rows, CELL, grid.cols, CELL), axis=(1, 3)).astype(np.float32)
    cells[0, 0] = np.nan
    at = np.array([np.nanargmax(cells)])
    tiles = TileSet(grid.locations(at, (CELL, CELL), 1.0), (CELL, CELL), 1.0)
    glimpse = Glimpse(tiles, np.array([1.0]), np.array([0.25]), np.array([True]))
    found = AttentionMap(cells / np.nansum(cells), grid)
    base = example_prediction()
    facts = base.provenance | {"fingerprint": "f" * 64}
    return replace(
        base,
        slide=str(path),
        extent=extent,
        mpp=mpp,
        bounds=(0, 0),
        glimpses=(glimpse,),
        maps=(found,),
        provenance=facts,
    )


def problems(path: Path) -> list[str]:
    """What dciodvfy holds against a file."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (apt install dicom3tools)")
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.startswith("Error") and KNOWN_FALSE not in line]


def places_of(written: Dataset) -> list[NDArray[np.float64]]:
    ann = MicroscopyBulkSimpleAnnotations.from_dataset(written)
    groups = ann.get_annotation_groups()
    return [np.asarray(ring) for group in groups for ring in group.get_graphic_data(ann.AnnotationCoordinateType)]


class TestAnnotationContract(ExporterContract):
    exporter = AnnotationExporter(minimal_source)


class TestParametricMapContract(ExporterContract):
    exporter = ParametricMapExporter(minimal_source)


@pytest.mark.parametrize("given", ["folder", "instance"])
def test_annotations_outline_the_lesion_to_the_pixel(series: Path, tmp_path: Path, given: str) -> None:
    path = series if given == "folder" else sorted(series.iterdir())[0]
    exporter_of("dicom-ann")(looked(path), tmp_path / "ann.dcm")
    written = dcmread(tmp_path / "ann.dcm")
    x, y, w, h = PLACE
    for ring in places_of(written):
        assert (*ring.min(axis=0), *np.ptp(ring, axis=0)) == (x, y, w, h)
    with wsidicom.WsiDicom.open(series) as slide:
        shown = np.asarray(slide.read_region((x - 1, y - 1), 0, (w + 2, h + 2)).convert("RGB")).astype(int)
    assert np.abs(shown[1:-1, 1:-1] - LESION).max() < 30, "what the file outlines is the lesion"
    assert np.abs(shown[0] - TISSUE).max() < 30 and np.abs(shown[:, -1] - TISSUE).max() < 30, "and nothing beside it"


def test_annotations_carry_attention_weight_and_sampling_probability(series: Path, tmp_path: Path) -> None:
    drawn = looked(series)
    drawn = replace(drawn, glimpses=tuple(replace(glimpse, drawn=True) for glimpse in drawn.glimpses))
    exporter_of("dicom-ann")(drawn, tmp_path / "ann.dcm")
    ann = MicroscopyBulkSimpleAnnotations.from_dataset(dcmread(tmp_path / "ann.dcm"))
    (tiles,) = ann.get_annotation_groups(label="Tiles read")
    names, values, _ = tiles.get_measurements()
    told = dict(zip([name.meaning for name in names], values[0].tolist(), strict=True))
    assert told["Attention"] == told["Sampling probability"] == 0.25
    assert told["Weight"] == 1.0 and told["Attention percentile"] == 100.0


def test_where_nothing_was_drawn_no_sampling_probability_is_told(series: Path, tmp_path: Path) -> None:
    exporter_of("dicom-ann")(replace(looked(series), purpose="demonstration"), tmp_path / "ann.dcm")
    written = dcmread(tmp_path / "ann.dcm")
    ann = MicroscopyBulkSimpleAnnotations.from_dataset(written)
    (tiles,) = ann.get_annotation_groups(label="Tiles read")
    assert "Sampling probability" not in [name.meaning for name in tiles.get_measurements()[0]]
    assert written.ContentDescription == "demonstration model: the label means nothing on real tissue"
    assert written.SeriesDescription.endswith(" (demonstration model)")
    assert any(str(group.label).endswith("(demonstration model)") for group in ann.get_annotation_groups())


@pytest.mark.parametrize("orientation", [None, [1, 0, 0, 0, 1, 0], [0, -1, 0, -1, 0, 0], [-1, 0, 0, 0, -1, 0]])
def test_the_map_lies_on_the_lesion_for_every_orientation(
    series: Path, tmp_path: Path, orientation: list[float] | None
) -> None:
    prediction = looked(series)
    source = source_of(prediction)
    if orientation is not None:
        source.ImageOrientationSlide = orientation
        source.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.0005, 0.00052]
    ParametricMapExporter(lambda _: source)(prediction, tmp_path / "map.dcm")
    written = highdicom.pm.ParametricMap.from_dataset(dcmread(tmp_path / "map.dcm"))
    values = written.get_total_pixel_matrix(apply_real_world_transform=False, dtype=np.float32)
    assert np.array_equal(values, prediction.maps[0].values, equal_nan=True)
    row, col = np.unravel_index(np.nanargmax(values), values.shape)
    corners = np.array([[col, row], [col + 1, row + 1]], np.float64)
    on_slide = ImageToReferenceTransformer.for_image(written, for_total_pixel_matrix=True)(corners)
    back = ReferenceToImageTransformer.for_image(source, for_total_pixel_matrix=True)(on_slide)[:, :2]
    x, y, w, h = PLACE
    assert np.allclose(back, [[x, y], [x + w, y + h]], atol=1e-3)


def test_both_refer_to_the_slide_and_share_its_frame(series: Path, tmp_path: Path) -> None:
    prediction = looked(series)
    source = source_of(prediction)
    for name in ("dicom-ann", "dicom-pmap"):
        exporter_of(name)(prediction, tmp_path / name)
        written = dcmread(tmp_path / name)
        assert written.StudyInstanceUID == source.StudyInstanceUID
        assert written.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
        reference = written.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert problems(tmp_path / name) == []
    assert dcmread(tmp_path / "dicom-pmap").FrameOfReferenceUID == source.FrameOfReferenceUID


def test_a_second_run_gives_the_same_bytes_and_another_label_another_uid(series: Path, tmp_path: Path) -> None:
    prediction = looked(series)
    other = replace(prediction, probabilities=prediction.probabilities[::-1].copy())
    for name in ("dicom-ann", "dicom-pmap"):
        for number, one in enumerate((prediction, prediction, other)):
            exporter_of(name)(one, tmp_path / f"{name}-{number}")
        first, second = ((tmp_path / f"{name}-{number}").read_bytes() for number in (0, 1))
        assert first == second
        ids = [dcmread(tmp_path / f"{name}-{number}").SOPInstanceUID for number in (0, 2)]
        assert ids[0] != ids[1]


def test_slides_that_are_no_dicom_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "slide.svs").write_bytes(b"II*\0" + bytes(200))
    for path, words in ((tmp_path / "slide.svs", "is no DICOM slide"), (tmp_path / "gone.dcm", "is not there")):
        with pytest.raises(SlideError, match=words) as caught:
            exporter_of("dicom-ann")(replace(example_prediction(), slide=str(path)), tmp_path / "out")
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_results_of_another_slide_are_refused(series: Path, tmp_path: Path) -> None:
    prediction = replace(looked(series), extent=(1003, 812))
    with pytest.raises(SlideError, match="holds no DICOM instance of 1003 × 812 pixels"):
        exporter_of("dicom-pmap")(prediction, tmp_path / "out")


def test_a_real_slide_without_an_origin_has_annotations_and_no_map(shared_data: Path, tmp_path: Path) -> None:
    prediction = looked(shared_data / "slides" / "dicom" / "bone-jpeg" / "jpeg.dcm")
    AnnotationExporter()(prediction, tmp_path / "ann.dcm")
    expected = prediction.glimpses[0].tiles.boxes[0, 0]
    for ring in places_of(dcmread(tmp_path / "ann.dcm")):
        assert (ring.min(axis=0) == expected[:2]).all()
    assert problems(tmp_path / "ann.dcm") == []
    with pytest.raises(SlideError, match="does not say where its pixels lie"):
        ParametricMapExporter()(prediction, tmp_path / "map.dcm")


def test_a_header_without_a_frame_of_reference_is_refused_in_one_line(series: Path, tmp_path: Path) -> None:
    prediction = looked(series)
    source = source_of(prediction)
    del source.FrameOfReferenceUID
    for exporter in (AnnotationExporter(lambda _: source), ParametricMapExporter(lambda _: source)):
        with pytest.raises(SlideError, match="its DICOM header is wrong") as caught:
            exporter(prediction, tmp_path / "out.dcm")
        assert str(series) in str(caught.value) and "\n" not in str(caught.value)


def test_a_real_slide_is_classified_with_both(shared_data: Path, tmp_path: Path) -> None:
    from wsi_attention import load_model
    from wsi_attention.inference.batch.classify import classify

    folder = shared_data / "slides-derived" / "cmu1sr-dicom"
    report = classify([folder], tmp_path, load_model("demo"), what=["dicom-ann", "dicom-pmap", "geojson"])
    assert report.statuses == {"done": 1}
    (ann,), (pmap,) = tmp_path.glob("dicom-ann/*.dcm"), tmp_path.glob("dicom-pmap/*.dcm")
    assert len(places_of(dcmread(ann))) > 8
    assert ParametricMap.from_dataset(dcmread(pmap)).TotalPixelMatrixRows == 12
    assert problems(ann) == problems(pmap) == []
