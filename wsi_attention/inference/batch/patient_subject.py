"""A slide whose patient has others, for a model that looks at all of them as one bag."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from threading import Lock

from wsi_attention.checkpoint import Classifier
from wsi_attention.errors import InputError, NoTissueError, SlideError
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.inference.batch.subjects import OfSlide
from wsi_attention.inference.batch.wishes import Wishes
from wsi_attention.inference.known import store_at
from wsi_attention.inference.patient_bag import look_together
from wsi_attention.inference.predict import prepare
from wsi_attention.inference.results.slide_key import as_written
from wsi_attention.inference.results.state import SlideKey
from wsi_attention.slide.fingerprint import seen_in
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.slide.tissue import load_mask
from wsi_attention.structures import Prediction
from wsi_attention.tiles.source import SlideSource
from wsi_attention.timing import spent_on

_LAST: dict[tuple[object, ...], Mapping[SlideFile, Prediction]] = {}
"""The bag that was looked at last in this process: its slides are done one after the other, and looked at once."""
_LOCK = Lock()


class OfPatient(OfSlide):
    """A slide with the others of its patient; what it gives is its own part of what all of them together gave.

    Others that cannot be opened or read leave the bag, which is a shortfall; others without tissue have nothing to add.
    """

    whole = True

    def __init__(self, given: SlideFile, classifier: Classifier, wishes: Wishes) -> None:
        super().__init__(given, classifier, wishes)
        own = replace(given, beside=())
        self._files = sorted((own, *given.beside), key=lambda one: (one.relative, one.key, one.series or ""))
        self._own = own
        self._others: dict[SlideFile, Slide] = {}
        self._left_out: dict[SlideFile, str] = {}
        self._said: list[str] = []

    def open(self) -> SlideKey:
        """Open the slide and the others; the result depends on what all of them are, and on whose."""
        key = super().open()
        assert self._slide is not None
        with spent_on("open"):
            said = {file: self._opened(file) for file in self._given.beside}
            self._said = [said.get(file) or _told(file, self._slide) for file in self._files]
        text = json.dumps([self._own.patient, sorted(said.values())])
        return replace(key, beside=hashlib.sha256(text.encode()).hexdigest())

    def look(self) -> Prediction:
        """Run the model over the bag, unless it did so for another slide of it just now."""
        wishes, model = self._wishes, self._classifier
        asked = wishes.run, wishes.effort, wishes.snap, wishes.device, wishes.precision, wishes.batch
        key = (model.weights_sha256, model.certainty.digest, *asked, tuple(self._files), tuple(self._said))
        with _LOCK:
            found = _LAST.get(key)
        if found is None or self._own not in found:
            found = self._looked()
            with _LOCK:
                _LAST.clear()
                _LAST[key] = found
        return found[self._own]

    def close(self) -> None:
        """Close all slides."""
        super().close()
        for slide in self._others.values():
            slide.close()

    def _opened(self, file: SlideFile) -> str:
        """Open another slide; return what it is, in a text that changes with it."""
        try:
            self._others[file] = slide = open_slide(file.path, mpp=file.mpp, options={"series": file.series})
            return _told(file, slide)
        except (SlideError, InputError, OSError) as error:
            self._left_out[file] = str(error)
            return "cannot be opened"

    def _looked(self) -> Mapping[SlideFile, Prediction]:
        sources = {file: source for file in self._files if (source := self._prepared(file)) is not None}
        wishes = self._wishes
        found = look_together(
            self._own.patient or "",
            list(sources.values()),
            self._classifier,
            device=wishes.device,
            precision=wishes.precision,
            effort=wishes.effort,
            kept=store_at(wishes.feature_store, wishes.feature_store_gb),
            chosen=wishes.chosen,
            left_out=[f"{file.relative} of the patient is not in it: {why}" for file, why in self._left_out.items()],
        )
        return dict(zip(sources, found, strict=True))

    def _prepared(self, file: SlideFile) -> SlideSource | None:
        """Return a slide's source, its tissue found; None, and why not, where there is none."""
        if file == self._own:
            return self._source
        slide, wishes = self._others.get(file), self._wishes
        if slide is None:
            return None
        try:
            tissue = load_mask(file.mask, slide.dimensions, slide.facts.bounds) if file.mask else None
            return prepare(slide, self._classifier, tissue=tissue, batch=wishes.batch, snap=wishes.snap, whole=True)
        except NoTissueError:
            return None
        except (SlideError, InputError, OSError) as error:
            self._left_out[file] = str(error)
            return None


def _told(file: SlideFile, slide: Slide) -> str:
    """Return what a slide is, with its mask and scale, in a text that changes with it."""
    return json.dumps([slide.fingerprint, seen_in(slide), as_written(file), file.mpp], sort_keys=True)
