"""A results folder as a project of QuPath: its slides, their labels as metadata, and a script that imports regions.

QuPath keeps the objects of an image as serialised Java objects, which QuPath alone can write: `QuPath script` with the
script in the project does that for all images, or *Run for project* in the script editor.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, cast

from wsi_attention.errors import InputError, ResultsError
from wsi_attention.files import write_text
from wsi_attention.inference.results.folder import GZIP
from wsi_attention.inference.results.state import FOLDER as STATES
from wsi_attention.inference.results.state import State, read_states
from wsi_attention.json_values import parse
from wsi_attention.slide.urls import is_url

FOLDER, FILE = "qupath", "project.qpproj"
SCRIPT = Path("scripts") / "import_wsi_attention.groovy"
VERSION = "0.5.1"
"""Of QuPath, whose form of the file this is; versions 0.4 to 0.7 read it."""
LABEL, GEOJSON = "wsi-attention label", "wsi-attention geojson"
"""Metadata of an image: its label, as the extension names it; the file of its objects, relative to the project."""


class Image(TypedDict):
    """An image of a project, as QuPath writes it; others of its keys stay as they are."""

    serverBuilder: dict[str, object]
    entryID: int
    imageName: str
    metadata: dict[str, str]


class Project(TypedDict):
    """What project.qpproj holds; others of its keys stay as they are."""

    version: str
    createTimestamp: int
    modifyTimestamp: int
    uri: str
    lastID: int
    images: list[Image]


@dataclass
class Written:
    """What a project holds.

    Attributes:
        path: of project.qpproj.
        images: how many there are.
        left_out: name of a slide -> why it has no place in it.
    """

    path: Path
    images: int = 0
    left_out: dict[str, str] = field(default_factory=dict)


def write_project(results: str | Path, names: Iterable[str] = (), folder: str | Path | None = None) -> Written:
    """Write a project with the slides of a results folder; a project that is there keeps its images and their data.

    Args:
        results: the folder that classify wrote; it has GeoJSON for the slides that have a label.
        names: slides as predictions.csv names them; all if empty.
        folder: of the project; `qupath` in the results folder where None.

    Raises:
        ResultsError: there is nothing to write, or the folder cannot be written.
        InputError: what lies in the folder is no project of QuPath.
    """
    root, wanted = Path(results), set(names)
    place = Path(folder) if folder else root / FOLDER
    written, project = Written(place / FILE), _earlier(place / FILE)
    images = {uri: image for image in project["images"] for uri in _uris(image)}
    for state in read_states(root):
        if wanted and state.name not in wanted:
            continue
        if reason := _unfit(state):
            written.left_out[state.name] = reason
            continue
        image = _entry(project, images, state)
        image["metadata"] = {**image.get("metadata", {}), **_metadata(state, root, place)}
        written.images += 1
    if not written.images:
        raise ResultsError(f"{root}: no slide for a project of QuPath: {_first(written.left_out)}")
    project["modifyTimestamp"] = max(project["modifyTimestamp"], _newest(root))
    project["uri"] = java_uri(place / FILE)
    write_text(place / SCRIPT, IMPORT)
    write_text(place / FILE, json.dumps(project, indent=2, ensure_ascii=False) + "\n")
    return written


def _entry(project: Project, images: dict[str, Image], state: State) -> Image:
    """Return the entry of a slide, the one that is there or a new one at the end.

    A new one names no reader, so that QuPath takes the first of its own that opens the file.
    """
    uri = java_uri(Path(state.path))
    if uri not in images:
        project["lastID"] += 1
        builder: dict[str, object] = {"builderType": "uri", "uri": uri, "args": []}
        images[uri] = Image(serverBuilder=builder, entryID=project["lastID"], imageName=state.name, metadata={})
        project["images"].append(images[uri])
    return images[uri]


def java_uri(path: Path) -> str:
    """Return the URI of a file as Java writes it: `file:/home/…`."""
    return path.absolute().as_uri().replace("file:///", "file:/", 1)


def _unfit(state: State) -> str:
    """Return why a slide has no place in a project; empty where it has."""
    if is_url(state.path):
        return "it lies behind a URL, and QuPath opens files"
    if not Path(state.path).exists():
        return f"{state.path} is not there any more"
    if state.slide.features and not state.slide.fingerprint:
        return "it is a file of features, not a slide"
    return ""


def _metadata(state: State, root: Path, place: Path) -> dict[str, str]:
    found = {"wsi-attention status": state.status}
    label = state.row.get("label", "")
    if label:
        purpose = state.run.purpose
        found[LABEL] = f"{label} ({purpose} model)" if purpose else label
    probability = state.row.get(f"prob_{label}", "")
    found |= {"wsi-attention probability": probability} if probability else {}
    plain = root / "geojson" / f"{state.name}.geojson"
    for file in (plain, plain.with_name(plain.name + GZIP)):
        if file.is_file():
            found[GEOJSON] = _relative(file.absolute(), place.absolute())
            break
    return found


def _relative(file: Path, place: Path) -> str:
    """Return a path from the project's folder, so that both can be moved together; absolute on another drive."""
    shared = next((above for above in (place, *place.parents) if file.is_relative_to(above)), None)
    if shared is None:
        return file.as_posix()
    up = len(place.relative_to(shared).parts)
    return "/".join([*[".."] * up, file.relative_to(shared).as_posix()])


def _earlier(file: Path) -> Project:
    """Return the project that is there, or an empty one.

    Raises:
        InputError: the file is no project.
    """
    if not file.is_file():
        return {"version": VERSION, "createTimestamp": 0, "modifyTimestamp": 0, "uri": "", "lastID": 0, "images": []}
    try:
        found = parse(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not isinstance(found["images"], list):
            raise KeyError("images")
        ids = [int(image["entryID"]) for image in found["images"]]
        last = max([*ids, int(found.get("lastID", 0))])
        return cast(Project, {"version": VERSION, "createTimestamp": 0, "modifyTimestamp": 0, **found, "lastID": last})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} is no project that QuPath wrote ({error}); move it away, or give another folder"
        ) from error


def _uris(image: Image) -> Iterator[str]:
    """Yield the URI of the file of an entry, also where QuPath rotates or crops it."""
    builder: object = image.get("serverBuilder")
    while isinstance(builder, dict):
        if isinstance(builder.get("uri"), str):
            yield builder["uri"].replace("file:///", "file:/", 1)
        builder = builder.get("builder")


def _newest(root: Path) -> int:
    """Return when the newest state was written, in ms: the same results give the same project."""
    return max((path.stat().st_mtime_ns // 1_000_000 for path in (root / STATES).rglob("*.json")), default=0)


def _first(left_out: Mapping[str, str]) -> str:
    name, reason = next(iter(left_out.items()), ("", "classify has written no slide there"))
    return f"{name}: {reason}" if name else reason


IMPORT = """// Imports what wsi-attention found in the open image. For all images: Run > Run for project. No window:
// QuPath script -p project.qpproj --save scripts/import_wsi_attention.groovy
import com.google.gson.JsonObject
import java.util.zip.GZIPInputStream
import qupath.lib.io.GsonTools
import qupath.lib.io.PathIO

def project = getProject(), imageData = getCurrentImageData(), entry = project.getEntry(imageData)
def named = entry.getMetadataValue('wsi-attention geojson')
if (named == null)
    throw new IllegalArgumentException("${entry.imageName}: wsi-attention has no result with objects for this image")
def base = project.path.parent
def file = base.resolve(named).normalize().toFile()
if (!file.isFile())
    throw new IllegalArgumentException("${file}: no such file; the project belongs beside the results it was made of")
def stream = file.newInputStream()
stream = file.name.endsWith('.gz') ? new GZIPInputStream(stream) : stream
def about = stream.withReader('UTF-8') { GsonTools.instance.fromJson(it, JsonObject) }.getAsJsonObject('metadata')
def numbers = { name -> about.getAsJsonArray(name).collect { it.asDouble } }
def bounds = about.has('bounds') ? numbers('bounds') : null
def whole = numbers('extent'), offset = numbers('offset'), server = imageData.server
def shown = [server.width as double, server.height as double]
def cropped = bounds != null && shown == bounds[2..3]
if (shown != whole && !cropped)
    throw new IllegalArgumentException("${file.name}: made for ${whole} pixels, this image has ${shown}")
// coordinates of the file are level-0 pixels minus offset, those of the image level-0 pixels minus its own corner
def corner = cropped && shown != whole ? bounds[0..1] : [0d, 0d]
def move = java.awt.geom.AffineTransform.getTranslateInstance(offset[0] - corner[0], offset[1] - corner[1])
def objects = PathIO.readObjects(file)
if (!move.identity)
    objects = objects.collect { qupath.lib.objects.PathObjectTools.transformObject(it, move, true, false) }
def ids = objects.collect { it.ID.toString() } as Set
def hierarchy = imageData.hierarchy
hierarchy.removeObjects(hierarchy.getAllObjects(false).findAll { it.ID.toString() in ids && !it.locked }, true)
hierarchy.addObjects(objects)
// as the extension's own import does, so that it can remove or replace them
imageData.setProperty('wsi-attention: imported objects', ids.join(' '))
imageData.setProperty('wsi-attention label', entry.getMetadataValue('wsi-attention label') ?: '')
println "wsi-attention: ${objects.size()} objects for ${entry.imageName}"
"""
