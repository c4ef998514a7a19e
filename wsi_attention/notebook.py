"""What a notebook shows of a prediction, a slide or a model: HTML that needs nothing beside it, with all text escaped.

The values call this from `_repr_html_`; it is the one module they may import from above, because a value has no other
way to say how it looks.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_attention.errors import SlideError, WsiAttentionError
from wsi_attention.slide.seen import Overview
from wsi_attention.slide.slide import Slide, open_slide
from wsi_attention.slide.strangers import leave_out_strangers
from wsi_attention.slide.urls import is_url
from wsi_attention.slide.view import View
from wsi_attention.structures import Prediction

if TYPE_CHECKING:
    from wsi_attention.checkpoint import Classifier

SIDE = 900
"""Longer side in pixels of a slide's picture."""
AFFORDABLE = 16_000_000
"""Pixels of a stored level that may be read for a picture."""
BARS = 10
"""Classes that get a bar; the most probable ones."""


@dataclass(frozen=True)
class Card:
    """What is shown, as plain text; the template escapes it.

    Attributes:
        title: what it is, in large letters.
        source: where it comes from, such as a path.
        warning: what stands out above all else.
        bars: (class, probability).
        picture: a picture as a data URI; empty for none.
        caption: what the picture shows, or why there is none.
        facts: (term, value).
        remarks: sentences below.
    """

    title: str
    source: str
    warning: str = ""
    bars: Sequence[tuple[str, float]] = ()
    picture: str = ""
    caption: str = ""
    facts: Sequence[tuple[str, str]] = ()
    remarks: Sequence[str] = ()

    def html(self) -> str:
        """Return the card as HTML."""
        from wsi_attention.export.templating import environment

        return environment().get_template("notebook.html.j2").render(card=self)


def prediction_html(prediction: Prediction) -> str:
    """Return label, warning, class bars, and the heatmap; over tissue alone where the slide is not there any more."""
    from wsi_attention.export.heatmap import draw
    from wsi_attention.export.measures import area_read

    overview = _overview_again(prediction)
    over = "the slide" if overview is not None else "the tissue alone: the slide is not at its path, or has changed"
    ranked = sorted(zip(prediction.classes, prediction.probabilities.tolist(), strict=True), key=lambda one: -one[1])
    tiles = sum(int(glimpse.valid.sum()) for glimpse in prediction.glimpses)
    facts = [("tiles read", f"{tiles}, {area_read(prediction):.1%} of the tissue")]
    if prediction.unread_mass is not None:
        facts.append(("attention unread", f"{prediction.unread_mass:.1%}"))
    facts += [(name.replace("_", " "), f"{value:.4g}") for name, value in prediction.values]
    facts.append(("status", prediction.status))
    return Card(
        prediction.verdict,
        prediction.slide,
        _sentence(prediction.warning),
        ranked[:BARS],
        _jpeg(np.asarray(draw(prediction, overview))),
        f"Attention and the tiles that were read, over {over}.",
        facts,
        [*prediction.shortfalls, *prediction.notes],
    ).html()


def slide_html(slide: Slide) -> str:
    """Return a thumbnail and what the file says of itself; a sentence where the slide cannot be read any more."""
    try:
        facts, remarks = _slide_facts(slide), slide.oddities()
    except SlideError as error:
        return Card("Slide", slide.path, remarks=[str(error)]).html()
    picture, caption = "", "No picture: every level is too large to be read for one."
    try:
        with copy(slide) as again:  # whose levels may be left out, and which may be closed, without a trace here
            pixels = _thumbnail(again)
        picture, caption = (_jpeg(pixels), "") if pixels is not None else (picture, caption)
    except (SlideError, OSError) as error:
        caption = f"No picture: {error}"
    return Card("Slide", slide.path, "", (), picture, caption, facts, remarks).html()


def classifier_html(classifier: Classifier) -> str:
    """Return classes, method, scale and origin of a model, with what its purpose says of its labels."""
    from wsi_attention.structures import purpose_warning

    config, seen = classifier.config, classifier.seen
    mpp, negative, kind = config.get("mpp"), config.get("negative"), classifier.target.kind
    classes = "classes" if kind == "label" else kind
    facts = [("method", str(config.get("method", "unknown"))), (classes, ", ".join(classifier.classes))]
    facts += [("class without a finding", str(negative))] if negative else []
    facts += [("purpose", classifier.purpose)] if classifier.purpose else []
    facts += [("finest scale read", f"{mpp:g} µm/px")] if isinstance(mpp, int | float) else []
    facts.append(("parameters", f"{sum(value.numel() for value in classifier.model.parameters()):,}"))
    trained = len(seen.hashes.get("slides", {}).get("train", ())) if seen else 0
    facts += [("trained with", f"{trained} slides")] if trained else []
    facts += [("encoder", " ".join(part.sentences))] if (part := classifier.encoder) else []
    facts.append(("weights", f"sha256 {classifier.weights_sha256[:16]}…"))
    warning = _sentence(purpose_warning(classifier.purpose))
    return Card(f"Model {classifier.name}", str(classifier.folder or "in memory"), warning, facts=facts).html()


def _overview_again(prediction: Prediction) -> NDArray[np.uint8] | None:
    """Return the slide of a prediction, (h, w, 3); None where it cannot be read or is not what was classified.

    URLs are not opened: showing a value asks no server.
    """
    known = prediction.provenance
    stated = known.get("series")
    series = stated if isinstance(stated, str | int) else None
    if is_url(prediction.slide):
        return None
    try:
        with open_slide(prediction.slide, str(known.get("reader", "auto")), options={"series": series}) as slide:
            same = slide.fingerprint == known.get("fingerprint") and slide.dimensions == prediction.extent
            return _thumbnail(slide) if same else None
    except (WsiAttentionError, OSError):
        return None


def _thumbnail(slide: Slide) -> NDArray[np.uint8] | None:
    """Return the slide, (h, w, 3), without levels that show something else; None where that reads too much."""
    downsample = max(1.0, max(slide.dimensions) / SIDE)
    if _cost(slide, downsample) <= AFFORDABLE:
        leave_out_strangers(slide, lambda: Overview(View(slide, downsample).read_whole(), downsample))
    return View(slide, downsample).read_whole() if _cost(slide, downsample) <= AFFORDABLE else None


def _cost(slide: Slide, downsample: float) -> int:
    w, h = slide.level_dimensions[slide.best_level(downsample)]
    return w * h


def _slide_facts(slide: Slide) -> list[tuple[str, str]]:
    (w, h), mpp, facts = slide.dimensions, slide.mpp_xy, slide.facts
    size = f"{w:,} × {h:,} pixels"
    found = [("size", size if mpp is None else f"{size}, {w * mpp[0] / 1000:.1f} × {h * mpp[1] / 1000:.1f} mm")]
    found.append(("scale", "unknown" if mpp is None else f"{slide.mpp:.4g} µm/px ({slide.mpp_source})"))
    found.append(("levels", ", ".join(f"{slide.level_downsamples[level]:.4g}×" for level in slide.levels)))
    found += [("objective", f"{facts.objective_power:g}×")] if facts.objective_power else []
    found += [("scanner", facts.vendor)] if facts.vendor else []
    found += [("other images", ", ".join(facts.associated))] if facts.associated else []
    return [*found, ("reader", slide.reader), *((name, str(value)) for name, value in slide.options.items())]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    from wsi_attention.export.layers import jpeg_bytes

    return "data:image/jpeg;base64," + base64.b64encode(jpeg_bytes(pixels)).decode("ascii")
