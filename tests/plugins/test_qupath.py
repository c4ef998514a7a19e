"""The scripts of plugins/qupath inside QuPath's own classes, on real slides and real objects.

QUPATH_APP names the folder with the jars of a QuPath (`lib/app` of an installation). OpenSlide is openslide-bin's.
"""

from __future__ import annotations

import gzip
import json
import operator
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image
from qupath_reader import QuPathObject, read_objects, write_objects

from wsi_attention.export.geojson import GeoJSONExporter
from wsi_attention.export.qupath import validate
from wsi_attention.geometry import Box
from wsi_attention.inference.batch.slides_csv import read_slides_csv
from wsi_attention.slide.slide import open_slide
from wsi_attention.slide.tissue import load_mask
from wsi_attention.structures import Glimpse, Prediction, TileSet
from wsi_attention.testing.exporters import EXAMPLES, example_prediction

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "plugins" / "qupath"
SIZE, LESION, CORNER = (403, 311), Box(120, 90, 64, 48), (40, 30)
RED, TISSUE = "#ff0000", "#c8a0c0"
ROTATIONS = ("ROTATE_90", "ROTATE_180", "ROTATE_270")
Json = dict[str, Any]


class Host:
    """QuPath's classes in one Java process; a job goes in, its outcome comes out."""

    def __init__(self, app: Path) -> None:
        import openslide_bin

        library = Path(openslide_bin.__file__).parent
        command = ["java", "-Djava.awt.headless=true", f"-Dopenslide={library}", "-cp", str(app / "*")]
        script = Path(__file__).with_name("qupath_host.groovy")
        self.process = subprocess.Popen(
            [*command, "groovy.ui.GroovyMain", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, encoding="utf-8",
        )  # fmt: skip
        self.facts = json.loads(self._line())

    def run(self, **job: Any) -> Json:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self._line())
        assert "failure" not in answer, answer
        return answer

    def script(self, name: str, image: Json, *settings: str, **job: Any) -> Json:
        return self.run(image=image, scripts=[called(name, *settings)], **job)

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "Java has ended"
        return line


def called(name: str, *settings: str) -> list[Any]:
    return [str(SCRIPTS / f"{name}.groovy"), list(settings)]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    app = os.environ.get("QUPATH_APP")
    if not app or not shutil.which("java"):
        pytest.skip("no QuPath at hand (QUPATH_APP names the folder of its jars) or no java")
    running = Host(Path(app))
    yield running
    running.process.stdin.close()
    running.process.wait(30)
    running.process.stdout.close()


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    rgb = np.full((SIZE[1], SIZE[0], 3), (200, 160, 192), np.uint8)
    rgb[LESION.y : LESION.y + LESION.h, LESION.x : LESION.x + LESION.w] = (255, 0, 0)
    return rgb


def picture(folder: Path, rgb: np.ndarray, *steps: list[Any], tags: Json | None = None, **more: Any) -> Json:
    """An image as the host opens it: pixels of a file, shown with some steps between."""
    path = folder / f"{len(list(folder.glob('*.png')))}.png"
    Image.fromarray(rgb).save(path)
    named = {"uri": (folder / "slide one.svs").as_uri(), "name": "renamed in QuPath"}
    return {"picture": str(path), "steps": steps, "tags": tags, **named, **more}


def on_lesion(**changes: Any) -> Prediction:
    """A prediction with one tile that is the lesion."""
    tiles = TileSet(np.array([[LESION.x, LESION.y]]), (LESION.w, LESION.h), 1.0)
    glimpse = Glimpse(tiles, np.ones(1), np.array([0.5]), np.array([True]))
    base = replace(example_prediction(), slide="/elsewhere/slide one.svs", extent=SIZE, bounds=(0, 0), maps=())
    return replace(base, glimpses=(glimpse,), **changes)


def results(folder: Path, prediction: Prediction, name: str = "slide one", ending: str = "") -> Path:
    """A results folder with the GeoJSON of one prediction."""
    path = folder / "results" / "geojson" / f"{name}.geojson{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    GeoJSONExporter()(prediction, path)
    return folder / "results"


def bounded(prediction: Prediction) -> Prediction:
    bounds = [*CORNER, SIZE[0] - CORNER[0], SIZE[1] - CORNER[1]]
    return replace(prediction, bounds=CORNER, provenance=prediction.provenance | {"bounds": bounds})


def frames(folder: Path, rgb: np.ndarray) -> dict[str, tuple[Json, Prediction]]:
    """Every way in which QuPath shows the same file."""
    crop = ["crop", [50, 20, 300, 200]]
    values = (*CORNER, SIZE[0] - CORNER[0], SIZE[1] - CORNER[1])
    names = ("x", "y", "width", "height")
    tags = {f"openslide.bounds-{name}": str(value) for name, value in zip(names, values, strict=True)}
    within = rgb[CORNER[1] :, CORNER[0] :]
    plain, inside = on_lesion(), bounded(on_lesion())
    found = {
        "as it is": (picture(folder, rgb), plain),
        "cropped": (picture(folder, rgb, crop), plain),
        "bounds": (picture(folder, within, tags=tags), inside),
        "bounds not applied": (picture(folder, rgb, tags=tags), inside),
        "bounds, rotated": (picture(folder, within, ["rotate", "ROTATE_90"], tags=tags), inside),
        "cropped, then rotated": (picture(folder, rgb, crop, ["rotate", "ROTATE_90"]), plain),
        "rotated, then cropped": (picture(folder, rgb, ["rotate", "ROTATE_270"], crop), plain),
    }
    return found | {turn: (picture(folder, rgb, ["rotate", turn]), plain) for turn in ROTATIONS}


FRAMES = ("as it is", "cropped", "bounds", "bounds not applied", "bounds, rotated", "cropped, then rotated",
          "rotated, then cropped", *ROTATIONS)  # fmt: skip


@pytest.mark.parametrize("frame", FRAMES)
def test_the_lesion_lies_where_it_is_seen(frame: str, host: Host, painted: np.ndarray, tmp_path: Path) -> None:
    image, prediction = frames(tmp_path, painted)[frame]
    folder = results(tmp_path, prediction, ending=".gz" if frame == "cropped" else "")
    found = host.script("import_results", image, f"results={folder}", colours=True)
    assert found["outcomes"] == ["done"]
    objects = found["images"][0]["objects"]
    assert sorted(one["feature"]["properties"]["objectType"] for one in objects) == ["annotation", "tile"]
    for one in objects:
        assert one["colours"] == [RED]
        assert sorted(one["box"][2:]) == sorted((LESION.w, LESION.h))


@pytest.mark.parametrize("frame", FRAMES)
def test_a_mask_covers_the_same_pixels_of_the_file(frame: str, host: Host, painted: np.ndarray, tmp_path: Path) -> None:
    image, prediction = frames(tmp_path, painted)[frame]
    (tmp_path / "slide one.svs").touch()
    imported, masks = called("import_results", f"results={results(tmp_path, prediction)}"), tmp_path / "masks"
    select = ["select", ["Attention rank 1"]]
    found = host.run(image=image, scripts=[imported, select, called("export_tissue_mask", f"masks={masks}")])
    assert found["outcomes"] == ["done"] * 3
    expected = np.zeros((SIZE[1], SIZE[0]), bool)
    expected[LESION.y : LESION.y + LESION.h, LESION.x : LESION.x + LESION.w] = True
    [slide] = read_slides_csv(masks / "slides.csv").slides
    assert slide.path == str(tmp_path / "slide one.svs")
    np.testing.assert_array_equal(load_mask(slide.mask, SIZE).mask, expected)


@pytest.mark.parametrize("flip", ["HORIZONTAL", "VERTICAL", "BOTH"])
def test_the_lesion_of_a_flipped_image(flip: str, host: Host, painted: np.ndarray, tmp_path: Path) -> None:
    if not host.facts["flips"]:
        pytest.skip("QuPath flips images from 0.7 on")
    image = picture(tmp_path, painted, ["crop", [50, 20, 300, 200]], ["flip", flip], ["rotate", "ROTATE_90"])
    found = host.script("import_results", image, f"results={results(tmp_path, on_lesion())}", colours=True)
    assert [one["colours"] for one in found["images"][0]["objects"]] == [[RED], [RED]]


def refused(host: Host, image: Json, *settings: str, script: str = "import_results") -> str:
    found = host.script(script, image, *settings)
    assert found["images"][0]["objects"] == []
    return found["outcomes"][0]


def test_a_result_of_another_size_or_slide_is_refused(host: Host, painted: np.ndarray, tmp_path: Path) -> None:
    folder = results(tmp_path, on_lesion(extent=(804, 622)))
    image = picture(tmp_path, painted)
    words = "made for 804 x 622 pixels, but slide one.svs has 403 x 311: another slide, or another scene of it"
    assert refused(host, image, f"results={folder}") == f"slide one.geojson: {words}"
    other = results(tmp_path / "b", on_lesion(slide="other.svs"), "other")
    assert "no result for slide one.svs" in refused(host, image, f"results={other}")
    assert "no folder geojson" in refused(host, image, f"results={tmp_path}")
    assert "no such folder" in refused(host, image, "results=/nowhere")
    assert "no folder is set" in refused(host, image)
    assert "possible: results= geojson= series=" in refused(host, image, "result=x")


def test_a_renamed_slide_is_found_where_its_file_is_named(host: Host, painted: np.ndarray, tmp_path: Path) -> None:
    results(tmp_path, on_lesion(slide="before.svs"), "before")
    given = f"geojson={tmp_path}/results/geojson/before.geojson"
    assert host.script("import_results", picture(tmp_path, painted), given)["outcomes"] == ["done"]


@pytest.mark.parametrize("older", ["", ".gz"])
def test_of_a_file_and_its_compressed_twin_the_newer_is_taken(
    host: Host, painted: np.ndarray, tmp_path: Path, older: str
) -> None:
    for ending in ("", ".gz"):
        folder = results(tmp_path, on_lesion(), ending=ending)
    stale = folder / "geojson" / f"slide one.geojson{older}"
    stale.write_bytes(b"not to be read")
    os.utime(stale, (1, 1))
    assert host.script("import_results", picture(tmp_path, painted), f"results={folder}")["outcomes"] == ["done"]


def test_two_slides_of_one_name_are_told_apart_by_their_place(host: Host, painted: np.ndarray, tmp_path: Path) -> None:
    image = picture(tmp_path, painted)
    for name, place in (("a/slide one", tmp_path / "slide one.svs"), ("b/slide one", Path("/b/slide one.svs"))):
        folder = results(tmp_path, on_lesion(slide=str(place)), name)
        state = folder / "states" / f"{name}.json"
        state.parent.mkdir(parents=True)
        state.write_text(json.dumps({"path": str(place)}))
    assert host.script("import_results", image, f"results={folder}")["outcomes"] == ["done"]
    shutil.rmtree(folder / "states")
    assert "several results for slide one.svs" in refused(host, image, f"results={folder}")


@pytest.mark.parametrize("how", ["arguments", "uri"])
def test_another_scene_of_the_file_is_refused_unless_asked_for(
    how: str, host: Host, painted: np.ndarray, tmp_path: Path
) -> None:
    folder = results(tmp_path, on_lesion())
    image = picture(tmp_path, painted)
    image |= {"arguments": "[--series, 2]"} if how == "arguments" else {"uri": image["uri"] + "#2"}
    assert "this image is series 2 of its file, the results are for series 0" in refused(
        host, image, f"results={folder}"
    )
    done = host.script("import_results", image, f"results={folder}", "series=2", colours=True)
    assert [one["colours"] for one in done["images"][0]["objects"]] == [[RED], [RED]]


def test_what_cannot_be_followed_is_refused(host: Host, painted: np.ndarray, tmp_path: Path) -> None:
    image = picture(tmp_path, painted, ["shear", None])
    assert "transformed in a way that results cannot follow" in refused(
        host, image, f"results={results(tmp_path, on_lesion())}"
    )


BOW_TIE = [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]]
DAMAGE = {
    "an outline that crosses itself": (
        ["features", 0, "geometry", "coordinates"],
        BOW_TIE,
        "crosses itself",
    ),
    "an open ring": (["features", 0, "geometry", "coordinates"], [BOW_TIE[0][:-1]], "QuPath cannot read it"),
    "no geometry": (["features", 1, "geometry"], None, "QuPath cannot read it"),
    "a list": (["features", 1], [], "QuPath cannot read it"),
    "no metadata": (["metadata"], None, "no result of wsi-attention"),
    "no size": (["metadata"], {"offset": [0, 0], "slide": "slide one.svs"}, "no result of wsi-attention"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_result_is_refused_whole(damage: str, host: Host, painted: np.ndarray, tmp_path: Path) -> None:
    (*inside, last), value, words = DAMAGE[damage]
    path = results(tmp_path, on_lesion()) / "geojson" / "slide one.geojson"
    made = json.loads(path.read_text())
    reduce(operator.getitem, inside, made)[last] = value
    path.write_text(json.dumps(made))
    said = refused(host, picture(tmp_path, painted), f"geojson={path}")
    assert words in said or (damage == "an outline that crosses itself" and "QuPath cannot read it" in said)  # 0.6
    assert validate(path) or words == "no result of wsi-attention"


def test_no_json_and_half_a_gzip_are_refused(host: Host, painted: np.ndarray, tmp_path: Path) -> None:
    path, image = tmp_path / "a.geojson", picture(tmp_path, painted)
    path.write_text("{")
    assert "a.geojson: not readable" in refused(host, image, f"geojson={path}")
    packed = tmp_path / "a.geojson.gz"
    packed.write_bytes(gzip.compress(os.urandom(9000))[:5000])
    assert "a.geojson.gz: not readable" in refused(host, image, f"geojson={packed}")
    assert "no such file" in refused(host, image, "geojson=/nowhere.geojson")


def numbered(objects: list[QuPathObject]) -> list[QuPathObject]:
    return [replace(one, identity=f"{k:08x}-0000-4000-8000-000000000000") for k, one in enumerate(objects)]


THEIRS = [
    QuPathObject("annotation", shapely.box(0, 0, 300, 300), name="theirs"),
    QuPathObject("detection", shapely.box(130, 100, 140, 110)),
]
USER = write_objects(numbered(THEIRS))


def test_only_what_was_imported_is_removed(host: Host, painted: np.ndarray, tmp_path: Path) -> None:
    folder, before = results(tmp_path, on_lesion()), tmp_path / "before.geojson"
    before.write_text(json.dumps(USER))
    job = {"image": picture(tmp_path, painted), "before": str(before)}
    add, remove = called("import_results", f"results={folder}"), called("remove_results")
    names = [one["feature"]["id"] for one in host.run(**job, scripts=[add, add, remove])["images"][0]["objects"]]
    assert sorted(names) == sorted(one["id"] for one in USER["features"])
    assert len(host.run(**job, scripts=[add, add])["images"][0]["objects"]) == 4
    locked = host.run(**job, scripts=[add, ["lock", ["Attention rank 1"]], remove])
    assert len(locked["images"][0]["objects"]) == 3
    assert "1 objects removed" in locked["said"]


def test_what_was_dragged_in_by_hand_goes_when_the_results_are_named(
    host: Host, painted: np.ndarray, tmp_path: Path
) -> None:
    folder, image = results(tmp_path, on_lesion()), picture(tmp_path, painted)
    dragged = str(folder / "geojson" / "slide one.geojson")
    assert len(host.script("remove_results", image, before=dragged)["images"][0]["objects"]) == 2
    assert host.script("remove_results", image, f"results={folder}", before=dragged)["images"][0]["objects"] == []


def test_a_mask_is_made_of_the_classes_asked_for(host: Host, painted: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "slide one.svs").touch()
    tissue = {"classes": ("Tissue",), "color": (1, 2, 3)}
    holed = shapely.box(20, 20, 50, 40).difference(shapely.box(25, 25, 28, 28))
    regions = [
        QuPathObject("annotation", shapely.box(10, 10, 30, 30), **tissue),
        QuPathObject("annotation", holed, **tissue),
        QuPathObject("annotation", shapely.box(60, 60, 90, 90), classes=("Ignore*",), color=(1, 2, 3)),
        QuPathObject("annotation", shapely.box(100, 10, 110, 20)),
        QuPathObject("annotation", shapely.Point(200, 200)),
    ]
    before = tmp_path / "before.geojson"
    before.write_text(json.dumps(write_objects(regions)))
    image = picture(tmp_path, painted)
    union = 20 * 20 + 30 * 20 - 10 * 10  # the hole lies in the first region
    for settings, area in ((["classes=Tissue"], union), ([], union + 100)):
        done = host.script("export_tissue_mask", image, f"masks={tmp_path}/m", *settings, before=str(before))
        assert done["outcomes"] == ["done"]
        assert load_mask(tmp_path / "m" / "slide one.svs.geojson", SIZE).mask.sum() == area
    nothing = host.script("export_tissue_mask", image, f"masks={tmp_path}/m", "classes=None", before=str(before))
    assert "no annotation with an area" in nothing["outcomes"][0]


def test_a_missing_command_says_what_to_set(host: Host, painted: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "slide one.svs").touch()
    settings = f"results={tmp_path}/r", "command=no-such-command"
    words = refused(host, picture(tmp_path, painted), *settings, script="classify_image")
    assert words.startswith("no-such-command cannot be started") and "set command" in words


INSPECTED = {"classes": ("Inspected",), "color": (0, 114, 178)}
CELL = {"shape": shapely.box(30, 30, 44, 44), "nucleus": shapely.box(34, 34, 38, 38)}
ALL_KINDS = [
    QuPathObject("annotation", shapely.box(0, 0, 10, 10), name="a", classes=("Tumor", "Positive"), color=(200, 0, 0)),
    QuPathObject("annotation", shapely.box(0, 0, 50, 50).difference(shapely.box(10, 10, 20, 20)), locked=True),
    QuPathObject("annotation", shapely.MultiPolygon([shapely.box(0, 0, 5, 5), shapely.box(20, 20, 25.5, 25.25)])),
    QuPathObject("annotation", shapely.Point(3.5, 4.25), name="here"),
    QuPathObject("annotation", shapely.MultiPoint([(1, 2), (3, 4), (5.5, 6)])),
    QuPathObject("annotation", shapely.LineString([(0, 0), (10, 10), (20, 0)])),
    QuPathObject("annotation", shapely.LineString([(0, 0), (10, 10)])),
    QuPathObject("annotation", shapely.box(5, 5, 25, 15), ellipse=True, classes=("Stroma",), color=(1, 2, 3)),
    QuPathObject("detection", shapely.box(1, 1, 4, 4), measurements={"Area": 9.0, "Odd: number": 0.5**40}),
    QuPathObject("tile", shapely.box(100, 100, 164, 164), measurements={"Weight": 0.125}, **INSPECTED),
    QuPathObject("cell", **CELL, measurements={"x": 1.0}),
    QuPathObject("cell", **CELL),
    QuPathObject("tmaCore", shapely.box(200, 200, 260, 260), ellipse=True, missing=True, name="A-1"),
]


def look(one: QuPathObject) -> tuple[Any, ...]:
    """What must survive a round trip. An ellipse is its bounding box; a class keeps the colour of its first time."""
    shape = shapely.normalize(one.shape.envelope if one.ellipse else one.shape).wkt
    nucleus = None if one.nucleus is None else shapely.normalize(one.nucleus).wkt
    named = (one.kind, one.identity, one.name, one.classes, dict(one.measurements), one.locked, one.missing)
    return (*named, one.ellipse, shape, nucleus)


def by_identity(objects: list[QuPathObject]) -> list[QuPathObject]:
    return sorted(objects, key=lambda one: one.identity or "")


def test_every_kind_of_object_comes_back_as_the_reader_model_says(
    host: Host, painted: np.ndarray, tmp_path: Path
) -> None:
    given = numbered(ALL_KINDS)
    path = tmp_path / "all.geojson"
    path.write_text(json.dumps(write_objects(given)))
    assert validate(path) == []
    found = host.run(image=picture(tmp_path, painted), before=str(path), scripts=[])
    written = [one["feature"] for one in found["images"][0]["objects"]]
    assert validate({"type": "FeatureCollection", "features": written}) == []
    for mine, theirs in zip(given, by_identity(read_objects(written)), strict=True):
        assert look(mine) == look(theirs)


def test_lines_of_several_parts_are_read(host: Host, painted: np.ndarray, tmp_path: Path) -> None:
    lines = shapely.MultiLineString([[(0, 0), (10, 10)], [(20, 20), (30, 30)]])
    path = tmp_path / "lines.geojson"
    path.write_text(json.dumps(write_objects([QuPathObject("annotation", lines)])))
    [found] = host.run(image=picture(tmp_path, painted), before=str(path), scripts=[])["images"][0]["objects"]
    assert shapely.equals(shapely.from_wkt(found["outline"]), lines)
    assert found["kind"] == "PathAnnotationObject"


@pytest.mark.parametrize("kind", EXAMPLES)
def test_qupath_reads_our_exports_as_the_reader_model_does(
    kind: str, host: Host, painted: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "a.geojson.gz"
    GeoJSONExporter()(example_prediction(kind=kind), path)
    found = host.run(image=picture(tmp_path, painted), before=str(path), scripts=[])
    theirs = read_objects([one["feature"] for one in found["images"][0]["objects"]])
    for mine, other in zip(by_identity(read_objects(path)), by_identity(theirs), strict=True):
        assert look(mine) == look(other)


def test_qupath_reads_real_exports_as_the_reader_model_does(
    host: Host, painted: np.ndarray, tmp_path: Path, shared_data: Path
) -> None:
    image = picture(tmp_path, painted)
    for path in sorted((shared_data / "annotations").glob("qupath-*/*json")):
        objects = host.run(image=image, before=str(path), scripts=[])["images"][0]["objects"]
        theirs = read_objects([one["feature"] for one in objects])
        mine = read_objects(path)
        assert len(mine) == len(theirs), path
        known = {one.identity: one for one in theirs}
        for one in mine:
            if one.identity:
                other = known[one.identity]
                assert look(one)[:7] == look(other)[:7], path
                assert one.shape.area == pytest.approx(other.shape.area, rel=1e-3), path


def leica(path: Path, rgb: np.ndarray) -> None:
    """A Leica SCN whose scanned area begins at CORNER: OpenSlide states it as bounds, and QuPath crops to it."""
    (w, h), (x, y) = SIZE, CORNER
    text = f"""<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">
      <collection sizeX="{w * 500}" sizeY="{h * 500}"><image name="section"><creationDate>2000-01-01</creationDate>
        <device model="none" version="1"/>
        <pixels sizeX="{w - x}" sizeY="{h - y}"><dimension sizeX="{w - x}" sizeY="{h - y}" r="0" ifd="0"/></pixels>
        <view sizeX="{(w - x) * 500}" sizeY="{(h - y) * 500}" offsetX="{x * 500}" offsetY="{y * 500}"/>
        <scanSettings><objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>
          <numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>
        </illuminationSettings></scanSettings></image></collection></scn>"""
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(rgb[y:, x:], tile=(128, 128), photometric="rgb", compression="zlib", description=text, metadata=None,
                   resolution=(20_000, 20_000), resolutionunit="CENTIMETER")  # fmt: skip


@pytest.mark.parametrize("turn", [None, "ROTATE_90"])
def test_the_lesion_of_a_real_slide_with_bounds(
    turn: str | None, host: Host, painted: np.ndarray, tmp_path: Path
) -> None:
    if not host.facts["slides"]:
        pytest.skip("this QuPath has no OpenSlide")
    path = tmp_path / "slide one.scn"
    leica(path, painted)
    with open_slide(path) as slide:
        bounds, extent = slide.facts.bounds, slide.dimensions
    assert bounds == Box(*CORNER, SIZE[0] - CORNER[0], SIZE[1] - CORNER[1])
    prediction = on_lesion(slide=str(path), extent=extent, bounds=bounds[:2])
    prediction = replace(prediction, provenance=prediction.provenance | {"bounds": list(bounds)})
    image = {"slide": str(path), "steps": [["rotate", turn]] if turn else []}
    found = host.script("import_results", image, f"results={results(tmp_path, prediction)}", colours=True)
    assert sorted(found["images"][0]["size"]) == sorted(bounds[2:])
    assert [one["colours"] for one in found["images"][0]["objects"]] == [[RED], [RED]]


def test_a_project_is_classified_and_takes_its_results(host: Host, tmp_path: Path) -> None:
    if not host.facts["slides"]:
        pytest.skip("this QuPath has no OpenSlide")
    slides = [ROOT / "sample_slides" / f"sample_0{k}.svs" for k in (1, 2)]
    folder, command = tmp_path / "results", Path(sys.executable).with_name("wsi-attention")
    images = [
        {"slide": str(slides[0])},
        {"slide": str(slides[0]), "steps": [["rotate", "ROTATE_90"]]},
        {"slide": str(slides[1]), "steps": [["shear", None]]},
    ]
    (tmp_path / "project").mkdir()
    script = called("classify_project", f"results={folder}", f"command={command}")
    found = host.run(project=str(tmp_path / "project"), images=images, scripts=[script])
    assert found["outcomes"] == ["done"]
    assert "2 images have results" in found["said"] and "left out" in found["said"]
    wanted = len(json.loads((folder / "geojson" / "sample_01.geojson").read_text())["features"])
    assert [len(image["objects"]) for image in found["images"]] == [wanted, wanted, 0]
    again = host.script("classify_image", {"slide": str(slides[1])}, f"results={folder}", f"command={command}")
    assert again["outcomes"] == ["done"] and again["images"][0]["objects"]
