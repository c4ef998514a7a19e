"""What the viewer's page asks for, as bytes: the list of slides, facts of one, its layers, its tiles, reviews."""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

import numpy as np

from wsi_attention.errors import InputError, SlideError, WsiAttentionError
from wsi_attention.export.geojson import CLASS_COLOURS, UNDECIDED_COLOUR
from wsi_attention.export.heatmap import HeatmapExporter
from wsi_attention.export.layers import (
    MAPS,
    Layer,
    ShownBox,
    attention_layer,
    boxes,
    jpeg_bytes,
    unseen_layer,
    unseen_place,
)
from wsi_attention.export.legend import ticks
from wsi_attention.export.report import ReportExporter
from wsi_attention.export.report_part import read_part
from wsi_attention.export.table import highest_share
from wsi_attention.inference.results.state import State
from wsi_attention.slide.slide import Slide
from wsi_attention.slide.view import View
from wsi_attention.structures import UNDECIDED, Prediction, shown_class
from wsi_attention.viewer.deepzoom import SIDE, DeepZoom
from wsi_attention.viewer.library import Library
from wsi_attention.viewer.reviews import Review, Reviews
from wsi_attention.viewer.shelf import Shelf

CACHED = 64_000_000
"""Bytes of encoded tiles that are kept."""
KEPT = 16
"""Slides whose facts are kept."""
OVERVIEW = 1000
"""Longer side in pixels of an overview that is made here because classify left none."""
PICTURE = 160
"""Longer side in pixels of the picture of a tile in the list, half as much again at most."""


@dataclass(frozen=True)
class _Known:
    """What is kept of a slide: its facts as the page reads them, its size, its attention, its tiles, what made it."""

    facts: Mapping[str, object]
    extent: tuple[int, int]
    attention: Layer | None
    boxes: list[ShownBox]
    about: Mapping[str, str]


class Content:
    """Answers by slide number; thread-safe.

    Attributes:
        shelf: the slides, those of `beside` after those that are listed.
        reviews: what people say, by results folder.
        reviewer: the name that the page offers.
    """

    def __init__(self, library: Library, beside: Library | None = None, reviewer: str = "") -> None:
        """Take the folders.

        Args:
            library: the slides that are listed.
            beside: results of another model, shown beside those of the same slides.
            reviewer: the name that the page offers for reviews; none where empty.

        Raises:
            InputError: that cannot be a name, or that person's CSV is damaged.
        """
        self.library = library
        self.shelf = Shelf([library] if beside is None else [library, beside])
        self.reviews = [Reviews(one.results) for one in self.shelf.libraries]
        self.reviewer = reviewer
        if reviewer:
            self.reviews[0].rows(reviewer)
        self._tiles: OrderedDict[tuple[int, int, int, int], bytes] = OrderedDict()
        self._lock = Lock()
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._reading = Lock()

    def warm(self) -> None:
        """Open the first slide that has a label before the browser asks for it."""
        first = next((number for number, state in enumerate(self.library.states) if state.row.get("label")), None)
        if first is not None:
            with suppress(WsiAttentionError):
                self.slide(first)

    def slides(self) -> bytes:
        """Return the list of slides and the colour maps, as JSON."""
        listed = []
        twins = self.shelf.twins() if len(self.shelf.libraries) > 1 else {}
        for number, state in enumerate(self.library.states):
            label, purpose = state.row.get("label", ""), state.run.purpose
            listed.append(
                {
                    "number": number,
                    "name": state.name,
                    "status": state.status,
                    "reason": "; ".join(filter(None, (state.reason, state.row.get("notes")))),
                    "label": shown_class(label, purpose) if label else "",
                    "probability": highest_share(state.row),
                    "colour": _label_colour(state),
                    "twin": twins.get(number),
                }
            )
        maps = [{"name": m.name, "title": m.title, "colours": m.colours} for m in MAPS]
        beside = [one.results.resolve().name for one in self.shelf.libraries[1:]]
        return _json({"slides": listed, "maps": maps, "beside": beside, "reviewer": self.reviewer})

    def facts(self, number: int) -> bytes:
        """Return size, label, boxes and the place of each layer, as JSON, without opening the slide."""
        return _json(self._shown(number).facts)

    def slide(self, number: int) -> bytes:
        """Return from which level on the slide itself can be shown, or in `trouble` why it cannot, as JSON."""
        pyramid = DeepZoom(self._shown(number).extent)
        try:
            slide = self.shelf.slide(number)
            self._check_size(slide.dimensions, pyramid.extent)
        except SlideError as error:
            return _json({"coarsest": None, "trouble": str(error)})
        return _json({"coarsest": pyramid.coarsest(slide), "trouble": ""})

    def attention(self, number: int) -> bytes | None:
        """Return the attention layer as PNG: grey is the place on the scale, alpha how strongly it is shown."""
        layer = self._shown(number).attention
        return layer.png if layer else None

    def unseen(self, number: int) -> bytes | None:
        """Return the mask of tissue that no tile covered, over the whole slide, as PNG."""
        prediction = self.shelf.prediction(number)
        layer = unseen_layer(prediction) if prediction else None
        return layer.png if layer else None

    def overview(self, number: int) -> bytes | None:
        """Return the whole slide as a small JPEG that classify wrote, else read now; None where neither is possible."""
        path = self.shelf.export(number, ReportExporter.suffix)
        part = read_part(path) if path else None
        if part and part["from_slide"]:
            return base64.b64decode(part["overview"])
        try:
            slide = self.shelf.slide(number)
            pyramid = DeepZoom(slide.dimensions)
            downsample = max(slide.dimensions) / OVERVIEW
            if downsample > pyramid.downsample(pyramid.coarsest(slide)):
                return None
            return jpeg_bytes(np.asarray(View(slide, downsample).read_whole()))
        except SlideError:
            return None

    def heatmap(self, number: int) -> bytes | None:
        """Return the heatmap picture that classify wrote."""
        path = self.shelf.export(number, HeatmapExporter.suffix)
        return path.read_bytes() if path else None

    def tile(self, number: int, level: int, col: int, row: int) -> bytes:
        """Return a Deep Zoom tile as JPEG.

        Raises:
            InputError: there is no such slide or tile.
            SlideError: the slide cannot be read.
        """
        key = (number, level, col, row)
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return self._tiles[key]
        slide = self.shelf.slide(number)
        made = DeepZoom(slide.dimensions).tile(slide, level, col, row)
        with self._lock:
            self._tiles[key] = made
            while sum(map(len, self._tiles.values())) > CACHED:
                self._tiles.popitem(last=False)
        return made

    def picture(self, number: int, rank: int) -> bytes | None:
        """Return a small picture of the tile of a rank as JPEG; None where there is none and classify kept none."""
        box = next((one for one in self._shown(number).boxes if one["rank"] == rank), None)
        if box is None:
            return None
        try:
            return _picture(self.shelf.slide(number), box)
        except SlideError:
            path = self.shelf.export(number, ReportExporter.suffix)
            part = read_part(path) if path else None
            kept = next((one["jpeg"] for one in part["tiles"] if one["rank"] == rank), None) if part else None
            return base64.b64decode(kept) if kept else None

    def said(self) -> bytes:
        """Return what each person has said to each slide, as JSON, and in `trouble` what could not be read."""
        numbers = [{state.name: n for n, state in self._numbered(k)} for k in range(len(self.reviews))]
        people: dict[str, dict[int, dict[str, str]]] = {}
        trouble: dict[str, str] = {}
        for number_of, reviews in zip(numbers, self.reviews, strict=True):
            for person in reviews.people():
                own = people.setdefault(person, {})
                try:
                    rows = reviews.rows(person)
                except InputError as error:
                    trouble[person] = str(error)
                    continue
                own |= {number_of[slide]: row for slide, row in rows.items() if slide in number_of}
        return _json({"people": people, "trouble": trouble})

    def say(self, asked: Mapping[str, object]) -> bytes:
        """Write what a person says to a slide and return the row, as JSON.

        Args:
            asked: `person`, `number`, `verdict`, `note`, and the place as `x`, `y`, `zoom`.

        Raises:
            InputError: anything else was asked, or it cannot be written as `Reviews.save` says.
            ResultsError: the disk is full, or writing is not permitted.
        """
        person, number, review = _said(asked)
        library, own = self.shelf.at(number)
        reviews = self.reviews[self.shelf.libraries.index(library)]
        return _json(reviews.save(person, library.state(own).name, review, self._shown(number).about))

    def _numbered(self, folder: int) -> list[tuple[int, State]]:
        start = sum(len(one.states) for one in self.shelf.libraries[:folder])
        return list(enumerate(self.shelf.libraries[folder].states, start))

    def _shown(self, number: int) -> _Known:
        """Return facts and attention of a slide, read once for requests that come together."""
        with self._reading:
            if number not in self._known:
                self._known[number] = self._read(number)
                while len(self._known) > KEPT:
                    self._known.popitem(last=False)
            return self._known[number]

    def _read(self, number: int) -> _Known:
        prediction = self.shelf.prediction(number)
        if prediction is None:
            raise InputError(f"slide {number}: there is no prediction to show")
        attention, pyramid = attention_layer(prediction), DeepZoom(prediction.extent)
        shown, about = boxes(prediction), _about(prediction)
        shares = zip(prediction.classes, prediction.probabilities.tolist(), strict=True)
        facts = {
            "name": self.shelf.state(number).name,
            "extent": list(prediction.extent),
            "mpp": prediction.mpp,
            "label": prediction.shown_lead,
            "calibrated": prediction.calibrated,
            "set": None if prediction.among is None else list(prediction.among),
            "unlike": prediction.unlike,
            "probability": prediction.probability,
            "values": [list(one) for one in prediction.values],
            "warning": prediction.warning,
            "classes": sorted(([name, share] for name, share in shares), key=lambda pair: -pair[1]),
            "spread": prediction.spread,
            "unread": prediction.unread_mass,
            "notes": list(prediction.remarks),
            "colours": {name: _class_colour(k) for k, name in enumerate(prediction.classes)},
            "leads": prediction.highest if prediction.decided else "",
            "fingerprint": prediction.provenance.get("fingerprint", ""),
            "about": about,
            "boxes": shown,
            "attention": _place(attention),
            "ticks": [[t, float(np.log(t) / np.log(attention.top))] for t in ticks(attention.top)] if attention else [],
            "unseen": unseen_place(prediction),
            "last": pyramid.last,
            "side": SIDE,
        }
        return _Known(facts, prediction.extent, attention, shown, about)

    def _check_size(self, found: tuple[int, int], wanted: tuple[int, int]) -> None:
        if found != wanted:
            raise SlideError(
                f"the slide has {found[0]} x {found[1]} pixels, the result is of {wanted[0]} x {wanted[1]}"
            )


def _place(layer: Layer | None) -> dict[str, object] | None:
    return {"place": list(layer.place), "name": layer.name, "top": layer.top} if layer else None


def _picture(slide: Slide, box: ShownBox) -> bytes:
    step = max(1.0, round(max(box["w"], box["h"]) / PICTURE))
    size = max(1, round(box["w"] / step)), max(1, round(box["h"] / step))
    return jpeg_bytes(View(slide, step).read((box["x"], box["y"]), size))


def _class_colour(index: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*CLASS_COLOURS[index % len(CLASS_COLOURS)])


def _label_colour(state: State) -> str | None:
    """Return the colour of a slide's label: its class's, grey where it is undecided, None where it is no class."""
    label, classes = state.row.get("label"), state.run.classes
    if label == UNDECIDED:
        return "#{:02x}{:02x}{:02x}".format(*UNDECIDED_COLOUR)
    return _class_colour(classes.index(label)) if label in classes else None


def _about(prediction: Prediction) -> dict[str, str]:
    """Return what a review or a picture is about, beside the slide: label, model, weights, version."""
    made, versions = prediction.provenance, prediction.provenance.get("versions")
    version = versions.get("wsi-attention", "") if isinstance(versions, Mapping) else ""
    return {
        "label": prediction.label,
        "model": str(made.get("model", "")),
        "weights_sha256": str(made.get("weights_sha256", "")),
        "version": str(version),
    }


def _said(asked: Mapping[str, object]) -> tuple[str, int, Review]:
    wanted = {"person": str, "number": int, "verdict": str, "note": str, "x": float, "y": float, "zoom": float}
    if asked.keys() != wanted.keys():
        raise InputError(f"a review has {', '.join(wanted)}; found {', '.join(sorted(map(str, asked)))[:200]}")
    values = {}
    for name, kind in wanted.items():
        value = asked[name]
        fits = isinstance(value, int | float) and abs(value) < 1e12 if kind is float else isinstance(value, kind)
        if not fits or isinstance(value, bool):
            raise InputError(f"{name} of a review must be {'a number' if kind is not str else 'text'}")
        values[name] = value
    place = float(str(values["x"])), float(str(values["y"])), float(str(values["zoom"]))
    return str(values["person"]), int(str(values["number"])), Review(str(values["verdict"]), str(values["note"]), place)


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False).encode("utf-8")
