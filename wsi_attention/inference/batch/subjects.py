"""What a job looks at: a slide that is opened, or a bag of features whose slide is not at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_attention.bags.source import BagSource, FeaturedSource
from wsi_attention.checkpoint import Classifier
from wsi_attention.errors import SlideError
from wsi_attention.inference.alone import OpenBag, look_alone, open_bag
from wsi_attention.inference.batch.discovery import SlideFile
from wsi_attention.inference.batch.wishes import Wishes
from wsi_attention.inference.known import store_at
from wsi_attention.inference.pictures import picture_downsample, shown_tiles
from wsi_attention.inference.predict import known_tiles, look, overview_of, prepare
from wsi_attention.inference.results.slide_key import first_look, look_at_bag, second_look
from wsi_attention.inference.results.state import SlideKey
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.slide.tissue import load_mask
from wsi_attention.structures import Prediction
from wsi_attention.tiles.source import SlideSource
from wsi_attention.timing import spent_on


class Subject(Protocol):
    """One of both, in the steps of a job; each step needs the one before."""

    def open(self) -> SlideKey:
        """Open it and return what its result depends on."""
        ...

    def prepare(self) -> None:
        """Read what needs no forward pass."""
        ...

    def look(self) -> Prediction:
        """Run the model once."""
        ...

    def pictures(self, prediction: Prediction) -> Mapping[str, Callable[[], object]]:
        """Return pixels for exporters that show some, by the name of their argument."""
        ...

    def close(self) -> None:
        """Close what was opened."""
        ...


class OfSlide:
    """A slide, with features of its tiles where a file knows some.

    Attributes:
        whole: whether its overview is small enough for one array, as `prepare` says.
    """

    whole = False

    def __init__(self, given: SlideFile, classifier: Classifier, wishes: Wishes) -> None:
        self._given, self._classifier, self._wishes = given, classifier, wishes
        self._slide: Slide | None = None
        self._source: SlideSource | None = None
        self._known: FeaturedSource | BagSource | None = None

    @spent_on("open")
    def open(self) -> SlideKey:
        """Open the slide."""
        given = self._given
        first = first_look(given)
        self._slide = open_slide(given.path, mpp=given.mpp, options={"series": given.series})
        return second_look(first, self._slide, given.path, self._wishes.full_hash)

    @spent_on("overview")
    def prepare(self) -> None:
        """Read the overview, find tissue, read features that are known."""
        slide, given, wishes = self._slide, self._given, self._wishes
        assert slide is not None
        tissue = load_mask(given.mask, slide.dimensions, slide.facts.bounds) if given.mask else None
        source = prepare(slide, self._classifier, tissue=tissue, batch=wishes.batch, snap=wishes.snap, whole=self.whole)
        self._known = known_tiles(source, self._classifier, given.features) if given.features else None
        self._source = source

    def look(self) -> Prediction:
        """Run the model over the slide."""
        wishes = self._wishes
        assert self._slide is not None and self._source is not None
        return look(
            self._slide,
            self._source,
            self._classifier,
            device=wishes.device,
            precision=wishes.precision,
            effort=wishes.effort,
            kept=store_at(wishes.feature_store, wishes.feature_store_gb),
            known=self._known,
            chosen=wishes.chosen,
            patient=self._given.patient,
        )

    def pictures(self, prediction: Prediction) -> Mapping[str, Callable[[], object]]:
        """Return the overview and the tiles that weigh most."""
        assert self._slide is not None
        return {
            "overview": partial(self._picture, prediction),
            "tiles": partial(shown_tiles, self._slide, prediction),
        }

    def close(self) -> None:
        """Close the slide."""
        if self._slide is not None:
            self._slide.close()

    def _picture(self, prediction: Prediction) -> NDArray[np.uint8]:
        assert self._source is not None
        try:
            return self._source.overview_rgb(picture_downsample(self._source.slide, prediction))
        except SlideError:  # what the model saw could be read; a finer level, for the picture alone, could not
            return overview_of(self._source, self._classifier)


class OfBag:
    """A file of features without its slide."""

    def __init__(self, given: SlideFile, classifier: Classifier, wishes: Wishes) -> None:
        self._given, self._classifier, self._wishes = given, classifier, wishes
        self._bag: OpenBag | None = None
        self._source: BagSource | None = None

    @spent_on("open")
    def open(self) -> SlideKey:
        """Read the file."""
        first = first_look(self._given)
        self._bag = open_bag(self._given.path, self._given.mpp)
        return look_at_bag(first, self._bag.bag, self._bag.fingerprint)

    @spent_on("overview")
    def prepare(self) -> None:
        """Check the features and lay the tiles out."""
        assert self._bag is not None
        self._source = self._bag.source(self._classifier)

    def look(self) -> Prediction:
        """Run the model over the bag."""
        wishes = self._wishes
        assert self._bag is not None and self._source is not None
        return look_alone(
            self._bag,
            self._source,
            self._classifier,
            device=wishes.device,
            precision=wishes.precision,
            effort=wishes.effort,
            patient=self._given.patient,
        )

    def pictures(self, prediction: Prediction) -> Mapping[str, Callable[[], object]]:
        """Return nothing: there are no pixels."""
        return {}

    def close(self) -> None:
        """Do nothing: the file has been read whole."""
