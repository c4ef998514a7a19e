"""What the viewer's page asks for, as bytes: the list of slides, facts of one, its layers, its tiles."""

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
from wsi_attention.export.heatmap import HeatmapExporter
from wsi_attention.export.layers import MAPS, Layer, attention_layer, boxes, jpeg_bytes, unseen_layer, unseen_place
from wsi_attention.export.legend import ticks
from wsi_attention.export.report import ReportExporter, read_part
from wsi_attention.export.table import highest_share
from wsi_attention.slide.view import View
from wsi_attention.structures import shown_class
from wsi_attention.viewer.deepzoom import SIDE, DeepZoom
from wsi_attention.viewer.library import Library

CACHED = 64_000_000
"""Bytes of encoded tiles that are kept."""
KEPT = 16
"""Slides whose facts are kept."""
OVERVIEW = 1000
"""Longer side in pixels of an overview that is made here because classify left none."""


@dataclass(frozen=True)
class _Known:
    """What is kept of a slide: its facts as the page reads them, its size, its attention."""

    facts: Mapping[str, object]
    extent: tuple[int, int]
    attention: Layer | None


class Content:
    """Answers by slide number; thread-safe."""

    def __init__(self, library: Library) -> None:
        self.library = library
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
        for number, state in enumerate(self.library.states):
            label, purpose = state.row.get("label", ""), state.run.purpose
            probability = highest_share(state.row)
            listed.append(
                {
                    "number": number,
                    "name": state.name,
                    "status": state.status,
                    "reason": "; ".join(filter(None, (state.reason, state.row.get("notes")))),
                }
                | {"label": shown_class(label, purpose) if label else "", "probability": probability}
            )
        maps = [{"name": m.name, "title": m.title, "colours": m.colours} for m in MAPS]
        return _json({"slides": listed, "maps": maps})

    def facts(self, number: int) -> bytes:
        """Return size, label, boxes and the place of each layer, as JSON, without opening the slide."""
        return _json(self._shown(number).facts)

    def slide(self, number: int) -> bytes:
        """Return from which level on the slide itself can be shown, or in `trouble` why it cannot, as JSON."""
        pyramid = DeepZoom(self._shown(number).extent)
        try:
            slide = self.library.slide(number)
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
        prediction = self.library.prediction(number)
        layer = unseen_layer(prediction) if prediction else None
        return layer.png if layer else None

    def overview(self, number: int) -> bytes | None:
        """Return the whole slide as a small JPEG that classify wrote, else read now; None where neither is possible."""
        path = self.library.export(number, ReportExporter.suffix)
        part = read_part(path) if path else None
        if part and part["from_slide"]:
            return base64.b64decode(part["overview"])
        try:
            slide = self.library.slide(number)
            pyramid = DeepZoom(slide.dimensions)
            downsample = max(slide.dimensions) / OVERVIEW
            if downsample > pyramid.downsample(pyramid.coarsest(slide)):
                return None
            return jpeg_bytes(np.asarray(View(slide, downsample).read_whole()))
        except SlideError:
            return None

    def heatmap(self, number: int) -> bytes | None:
        """Return the heatmap picture that classify wrote."""
        path = self.library.export(number, HeatmapExporter.suffix)
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
        slide = self.library.slide(number)
        made = DeepZoom(slide.dimensions).tile(slide, level, col, row)
        with self._lock:
            self._tiles[key] = made
            while sum(map(len, self._tiles.values())) > CACHED:
                self._tiles.popitem(last=False)
        return made

    def _shown(self, number: int) -> _Known:
        """Return facts and attention of a slide, read once for requests that come together."""
        with self._reading:
            if number not in self._known:
                self._known[number] = self._read(number)
                while len(self._known) > KEPT:
                    self._known.popitem(last=False)
            return self._known[number]

    def _read(self, number: int) -> _Known:
        prediction = self.library.prediction(number)
        if prediction is None:
            raise InputError(f"slide {number}: there is no prediction to show")
        attention, pyramid = attention_layer(prediction), DeepZoom(prediction.extent)
        shares = zip(prediction.classes, prediction.probabilities.tolist(), strict=True)
        facts = {
            "name": self.library.state(number).name,
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
            "boxes": boxes(prediction),
            "attention": _place(attention),
            "ticks": [[t, float(np.log(t) / np.log(attention.top))] for t in ticks(attention.top)] if attention else [],
            "unseen": unseen_place(prediction),
            "last": pyramid.last,
            "side": SIDE,
        }
        return _Known(facts, prediction.extent, attention)

    def _check_size(self, found: tuple[int, int], wanted: tuple[int, int]) -> None:
        if found != wanted:
            raise SlideError(
                f"the slide has {found[0]} x {found[1]} pixels, the result is of {wanted[0]} x {wanted[1]}"
            )


def _place(layer: Layer | None) -> dict[str, object] | None:
    return {"place": list(layer.place), "name": layer.name, "top": layer.top} if layer else None


def _json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False).encode("utf-8")
