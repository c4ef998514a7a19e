"""A patient's slides looked at as one bag, by a model that was trained so, and what of it lies on which slide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from wsi_attention.checkpoint import Classifier
from wsi_attention.devices import Precision, device_of
from wsi_attention.errors import InputError
from wsi_attention.export.measures import deciding, main_map
from wsi_attention.feature_store.store import FeatureStore
from wsi_attention.geometry import Grid, same_scale
from wsi_attention.inference.effort import USUAL, Effort
from wsi_attention.inference.engine import used_on
from wsi_attention.inference.known import known_to
from wsi_attention.inference.predict import look, provenance_of
from wsi_attention.protocols import contract_of
from wsi_attention.slide.slide import Slide
from wsi_attention.structures import AttentionMap, Glimpse, Prediction
from wsi_attention.tiles.side_by_side import Layout, SideBySide
from wsi_attention.tiles.source import SlideSource


def look_together(
    patient: str,
    sources: Sequence[SlideSource],
    classifier: Classifier,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    effort: Effort = USUAL,
    kept: FeatureStore | None = None,
    left_out: Sequence[str] = (),
    chosen: str = "",
) -> tuple[Prediction, ...]:
    """Run the model once over all slides of a patient, side by side; the draws are seeded by the first.

    Args:
        patient: whose slides they are.
        sources: of the slides, prepared, in an order that is always the same.
        classifier: trained with `bag = "patient"`.
        device, precision, effort: as in `predict`, the effort checked.
        kept: keeps what the encoder says of tiles.
        left_out: a sentence on each slide of the patient that is missing here.
        chosen: why the precision is the one given, where that was chosen for a whole batch.

    Returns:
        For each slide the label and probabilities of the patient, with the tiles and maps that lie on the slide; the
        weights of all slides together sum to 1.

    Raises:
        InputError: the slides differ in scale by more than 5 %.
        TileReadError, ModelError: as `predict` says, of all slides together.
    """
    _check_scales(patient, [source.slide for source in sources])
    model, where = contract_of(classifier.model), device_of(device)
    used, _ = used_on(classifier, where, precision)
    canvas = SideBySide(sources, model.overview_mpp, model.map_stride)
    with ExitStack() as stores:
        for source in sources[1:]:
            stores.enter_context(known_to(source, kept, classifier, used, where))
        whole = look(
            sources[0].slide,
            sources[0],
            classifier,
            device=device,
            precision=precision,
            effort=effort,
            kept=kept,
            known=canvas,
            chosen=chosen,
            patient=patient,
        )
    whole = replace(whole, patient=patient, shortfalls=(*whole.shortfalls[len(sources[0].shortfalls) :], *left_out))
    shares = _shares(whole, canvas.layout)
    names = [source.slide.fingerprint for source in sources]
    return tuple(
        _of_slide(whole, canvas, number, sources, classifier, {"slides": names, "share": shares[number]})
        for number in range(len(sources))
    )


def _check_scales(patient: str, slides: Sequence[Slide]) -> None:
    """Raise InputError where two slides differ in scale by more than the tolerance."""
    finest, coarsest = min(slides, key=lambda slide: slide.mpp), max(slides, key=lambda slide: slide.mpp)
    if not same_scale(coarsest.mpp, finest.mpp):
        raise InputError(
            f"patient {patient} has slides of {coarsest.mpp:g} µm/px ({coarsest.path}) and {finest.mpp:g} µm/px"
            f" ({finest.path}), and this model looks at all of them together, at one scale"
        )


def _of_slide(
    whole: Prediction,
    canvas: SideBySide,
    number: int,
    sources: Sequence[SlideSource],
    classifier: Classifier,
    bag: dict[str, object],
) -> Prediction:
    layout, first, source = canvas.layout, sources[0], sources[number]
    slide, seed, used = source.slide, int(str(whole.provenance["seed"])), str(whole.provenance["precision"])
    own = provenance_of(slide, classifier, seed, used)
    of_first = provenance_of(first.slide, classifier, seed, used)
    rest = {name: value for name, value in whole.provenance.items() if name not in of_first}
    bag = {"patient": whole.patient, **bag}
    told = f"label and probabilities are those of all {len(layout.extents)} slides of patient {whole.patient} together"
    return replace(
        whole,
        slide=slide.path,
        extent=slide.dimensions,
        mpp=slide.mpp,
        bounds=(slide.facts.bounds.x, slide.facts.bounds.y) if slide.facts.bounds else (0, 0),
        glimpses=tuple(_glimpse_on(layout, number, glimpse) for glimpse in whole.glimpses),
        maps=tuple(_map_on(layout, number, found) for found in whole.maps),
        tissue=source.tissue_mask,
        counters=source.counters,
        overview_pixels=source.overview_pixels,
        provenance={**own, **rest, "bag": bag},
        notes=(
            *_notes_of(source, classifier),
            *[note for note in whole.notes if note not in _notes_of(first, classifier)],
            f"{told}; {float(str(bag['share'])):.1%} of the weight lies on this one",
        ),
        shortfalls=(*source.shortfalls, *whole.shortfalls),
    )


def _notes_of(source: SlideSource, classifier: Classifier) -> tuple[str, ...]:
    """Return the notes on one slide by itself."""
    return (*source.notes, *(classifier.seen.note(source.slide.fingerprint) if classifier.seen else ()))


def _glimpse_on(layout: Layout, number: int, glimpse: Glimpse) -> Glimpse:
    """Return the tiles of a glimpse that lie on a slide, in its level-0 pixels; weights stay shares of the bag."""
    index = np.flatnonzero(layout.owners(glimpse.tiles) == number)
    return replace(
        glimpse,
        tiles=layout.local(glimpse.tiles, number, index),
        weights=glimpse.weights[index],
        attention=glimpse.attention[index],
        valid=glimpse.valid[index],
    )


def _map_on(layout: Layout, number: int, found: AttentionMap) -> AttentionMap:
    """Return the cells of a map that lie on a slide; one cell of NaN where none does."""
    grid, left, (width, height) = found.grid, int(layout.left[number]), layout.extents[number]
    cols = _between(left, left + width, grid.origin[0], grid.step[0], grid.cols)
    rows = _between(0, height, grid.origin[1], grid.step[1], grid.rows)
    values = found.values[rows, cols]
    if not values.size:
        return replace(found, values=np.full((1, 1), np.nan, np.float32), grid=Grid(1, 1, grid.step))
    origin = grid.origin[0] + cols.start * grid.step[0] - left, grid.origin[1] + rows.start * grid.step[1]
    return replace(found, values=values, grid=Grid(len(values), values.shape[1], grid.step, origin))


def _between(low: float, high: float, origin: float, step: float, cells: int) -> slice:
    """Return the cells along one axis that lie between two places by more than rounding."""
    first, last = math.floor((low - origin) / step + 0.5), math.ceil((high - origin) / step - 1e-9)
    return slice(min(max(first, 0), cells), min(max(last, 0), cells))


def _shares(whole: Prediction, layout: Layout) -> list[float]:
    """Return each slide's share of the weight of what decides: of the tiles, or else of the attention map."""
    glimpse, found = deciding(whole), main_map(whole)
    if glimpse is not None:
        weights, owners = np.where(glimpse.valid, glimpse.weights, 0.0), layout.owners(glimpse.tiles)
        mass = np.array([weights[owners == number].sum() for number in range(len(layout.extents))])
    elif found is not None:
        own = [_map_on(layout, number, found).values for number in range(len(layout.extents))]
        mass = np.array([np.nansum(np.maximum(values, 0), dtype=np.float64) for values in own])
    else:
        mass = np.zeros(len(layout.extents))
    total = float(mass.sum())
    return [float(one) / total if total > 0 else 0.0 for one in mass]
