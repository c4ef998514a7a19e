"""One `Prediction` from one slide and one model: the same draws, and so the same regions, on every run."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_attention import __version__
from wsi_attention.bags.source import BagSource, FeaturedSource, notes_of
from wsi_attention.certainty.fitted import Judged
from wsi_attention.checkpoint import Classifier, ClassifierLike, as_classifier
from wsi_attention.defaults import BATCH, FEATURE_STORE_GB
from wsi_attention.devices import Precision, autocast, device_of, placed
from wsi_attention.errors import ModelError, NoTissueError, TileReadError
from wsi_attention.feature_store.store import FeatureStore
from wsi_attention.geometry import OVERVIEW_PIXELS
from wsi_attention.inference.certify import (
    calibration_of,
    certificate_facts,
    certificate_notes,
    certified_in,
    level_of,
)
from wsi_attention.inference.effort import USUAL, Effort
from wsi_attention.inference.engine import engine_for, facts_of, used_on
from wsi_attention.inference.exactness import precision_of
from wsi_attention.inference.known import known_to, store_at
from wsi_attention.inference.stored_features import beside, expected_of
from wsi_attention.inference.traits import traits_of
from wsi_attention.methods.ensemble import disagreement, members_facts
from wsi_attention.nn.engines import computing_with
from wsi_attention.protocols import Estimating, TileSource, contract_of
from wsi_attention.slide.given import SlideLike, as_slide
from wsi_attention.slide.slide import Slide
from wsi_attention.structures import Glimpse, Output, Prediction, TissueMask
from wsi_attention.targets.one_label import KIND
from wsi_attention.targets.target import Shown
from wsi_attention.tiles.side_by_side import SideBySide
from wsi_attention.tiles.source import SlideSource
from wsi_attention.timing import spent_on

NOBODY = "the model was trained on all slides of a patient together, and nobody says whose this slide is"
"""The note of a slide without a patient."""
OTHER_DRAWS = "the sets of classes were fitted on ordinary draws of tiles; their share is not known where that differs"
"""The note of a set beside an effort that is not the usual one."""
FARTHEST = 999.0
"""No slide is told to be farther from those of the training."""
PACKAGES = ("torch", "numpy", "openslide-python", "openslide-bin", "tiffslide", "tifffile", "imagecodecs", "zarr")


def predict(
    slide: SlideLike,
    classifier: ClassifierLike,
    *,
    tissue: TissueMask | None = None,
    device: str = "auto",
    batch: int = BATCH,
    precision: Precision = "auto",
    exact: bool = False,
    tolerance: float | None = None,
    budget: int | None = None,
    unread: float | None = None,
    certify: bool | float | str | None = None,
    snap: bool = True,
    feature_store: str | os.PathLike[str] | None = None,
    feature_store_gb: float = FEATURE_STORE_GB,
    features: str | Path | None = None,
) -> Prediction:
    """Return the slide's label with the regions it rests on.

    The draws are seeded by the slide's content and the weights: the same slide and model give the same prediction on
    every run, for any batch size and any number of workers.

    Args:
        slide: an open slide, or what `open_slide` opens, such as a path; its mpp must be known.
        classifier: what `load_model` returns, or what it loads: a model folder or a shipped name.
        tissue: where to look; found on the overview where None.
        device: where the model computes, e.g. "cpu" or "cuda:1"; "auto" is the first GPU, else the CPU.
        batch: tiles read by one task.
        precision: "32", "bf16" (autocast), "openvino" (float32, the tile encoder compiled for the CPU by OpenVINO),
            "int8" (the tile encoder that `wsi-attention quantise` has put into the model folder), or "auto": bf16 where
            the GPU or the processor multiplies in it; else openvino where it is installed, and a trial found it faster
            and equal; else 32. A published encoder that is used in float32 is computed in it.
        exact: reads every tile of the tissue, at its own place, instead of a sample, which takes minutes; nothing is
            then drawn, and the spread is None.
        tolerance: reads tiles until the spread, the standard error of the winning class's probability under the
            sampling, is at most this, and the attention on tiles not read at most `unread`; see
            `interval` for what the spread means and what it cannot know.
        budget: the most tiles to read for a tolerance or a certificate; None for all there are. A note says what was
            not reached.
        unread: share of the attention, between 0 and 1; as much as the tolerance where None, and 1 asks for a small
            spread alone.
        certify: reads tiles, at their own places, until the class that is most probable to `exact` is settled: True or
            "proof" by proof, a number such as 0.99 by proof or with that confidence. `Prediction.certified` says which
            of them was reached. It is about that class, not about the truth, and not about a conformal set: the set,
            and whether the label is undecided, may still differ from those of `exact` (docs/certificate.md).
        snap: moves sampled tiles by less than half a stored tile, so that each decodes as few stored tiles as can be;
            the result has their true places. False leaves them at the centres of attention's cells.
        feature_store: folder that keeps what the encoder says of tiles, so that a later call, or one with another model
            that has the same encoder, neither reads nor encodes them again.
        feature_store_gb: limit of its size in GB; slides used longest ago leave first.
        features: a file of TRIDENT, CLAM, STAMP or LazySlide with features of this slide's tiles by the model's
            encoder: each tile moves to the nearest of these, by at most half a tile, and is not read. Tiles without one
            are read.

    Raises:
        MissingMppError: the size of a pixel is not known.
        NoTissueError: the tissue mask is empty.
        TileReadError: more than half of the tiles could not be read.
        ModelError: the model's logits are not finite.
        SlideError, ModelError: the slide cannot be opened, or the model cannot be loaded.
        InputError: features are of another slide, encoder or tile size, or damaged; this machine has no such device;
            exact, a tolerance or a certificate was asked of a model that cannot do it, or makes no sense; slide or
            classifier is nothing of the kind.
    """
    model, effort = as_classifier(classifier), Effort(exact, tolerance, budget, unread, level_of(certify))
    effort.check(model)
    precision = precision_of(model, precision)
    with as_slide(slide) as opened:
        source = prepare(opened, model, tissue=tissue, batch=batch, snap=effort.snaps(snap))
        kept = store_at(feature_store, feature_store_gb)
        known = None if features is None else known_tiles(source, model, features)
        return look(opened, source, model, device=device, precision=precision, effort=effort, kept=kept, known=known)


@spent_on("overview")
def prepare(
    slide: Slide,
    classifier: Classifier,
    *,
    tissue: TissueMask | None = None,
    batch: int = BATCH,
    snap: bool = True,
    whole: bool = False,
) -> SlideSource:
    """Return the slide as a `TileSource`, its overview read and its tissue found; no forward pass is needed for it.

    Args:
        slide: an open slide.
        classifier: whose scales are read.
        tissue: where to look; found on the overview where None.
        batch: tiles read by one task.
        snap: moves sampled tiles to the file's own grid.
        whole: keeps the overview small enough for one array, as training does, where it would be seen in strips.

    Raises:
        MissingMppError: the size of a pixel is not known.
        UnsupportedSlideError: not brightfield.
        SlideOpenError: no smaller level shows what level 0 shows.
        NoTissueError: the tissue mask is empty.
        TileReadError: the overview could not be read.
    """
    model = contract_of(classifier.model)
    most = min(model.overview_pixels, OVERVIEW_PIXELS) if whole else model.overview_pixels
    source = SlideSource(slide, tissue=tissue, batch=batch, max_overview=most, snap=snap)
    source.check_levels(model.overview_mpp)
    if not source.tissue_mask.mask.any():
        raise NoTissueError(f"{slide.path}: no tissue found; if there is some, give a mask of your own (column mask)")
    source.check_stored(model.overview_mpp, model.tile_mpp)
    overview_of(source, classifier)
    return source


@spent_on("attention")
def look(
    slide: Slide,
    source: SlideSource,
    classifier: Classifier,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    effort: Effort = USUAL,
    kept: FeatureStore | None = None,
    known: FeaturedSource | BagSource | SideBySide | None = None,
    chosen: str = "",
    patient: str | None = None,
) -> Prediction:
    """Run the model once over a prepared source; arguments and errors as in `predict`, the effort checked.

    `known` is the same source with features of files, or it with the other slides of the patient; `chosen` says why the
    precision is the one given, where that was chosen for a whole batch, and `patient` whose slide it is, None where
    nobody says.
    """
    where = device_of(device)
    used, why = used_on(classifier, where, precision)
    seed = seed_of(slide.fingerprint, classifier.weights_sha256)
    torch.set_num_threads(torch.get_num_threads())  # sums depend on it, and new threads take it over only when asked
    model = placed(classifier.model, where)
    engine = computing_with(engine_for(classifier, used))
    with known_to(source, kept, classifier, used, where), torch.inference_mode(), autocast(where, used), engine:
        kinds = (source.failures, *([known.failures] if known else []))
        chance, label = torch.Generator().manual_seed(seed), calibration_of(classifier)
        output = looked(effort, model, known or source, chance, kinds, label)
        usual = usual_look(effort, classifier, model, known or source, seed, kinds) or output
    glimpses = output.glimpses[0]
    shown = shown_of(classifier, output.logits[0], slide.path)
    judged = judged_of(output, classifier, shown)
    unread = None if output.unread_mass is None else number_of(output.unread_mass)
    failures = [*source.failures, *(known.failures if known else ())]
    found = Prediction(
        slide=slide.path,
        extent=slide.dimensions,
        mpp=slide.mpp,
        bounds=(slide.facts.bounds.x, slide.facts.bounds.y) if slide.facts.bounds else (0, 0),
        classes=shown.classes,
        probabilities=judged.probabilities,
        spread=judged.spread,
        glimpses=glimpses,
        maps=output.maps[0],
        tissue=source.tissue_mask,
        counters=source.counters,
        overview_pixels=source.overview_pixels,
        provenance=provenance_of(slide, classifier, seed, used)
        | {"snap": source.snap}
        | effort.facts()
        | facts_of(chosen or why)
        | judged.uncalibrated
        | certificate_facts(output, classifier)
        | facts_of_members(classifier, output),
        notes=(
            *source.notes,
            *notes_of_bag(classifier, patient),
            *notes_of_members(classifier, output),
            *(notes_of(known, source.counters.tiles) if isinstance(known, FeaturedSource | BagSource) else ()),
            *(classifier.seen.note(slide.fingerprint) if classifier.seen else ()),
            *effort.missed(number_of(output.spread), unread, bool(judged.uncalibrated)),
            *certificate_notes(output, classifier, unread),
            *notes_of_sets(classifier, effort),
        ),
        unread_mass=unread,
        purpose=classifier.purpose,
        among=judged.among,
        certified=certified_in(output),
        target=classifier.target.kind,
        values=shown.values,
        called=shown.label,
        shortfalls=(*source.shortfalls, *unread_of(slide.path, failures, glimpses)),
    )
    return compared(found, classifier, known if isinstance(known, SideBySide) else source, usual)


def usual_look(
    effort: Effort,
    classifier: Classifier,
    model: Any,
    source: TileSource,
    seed: int,
    failures: Sequence[Sequence[str]],
) -> Output | None:
    """Return the look of an ordinary prediction, where a slide is to be compared and the effort was another one.

    What slides of the training look like is known of such looks: one tile that settles a certificate says little of a
    slide's focus. None too where the model reads every tile at any effort, or where an ordinary look could read none.

    Args:
        effort: that was made.
        classifier: whose folder may know what slides look like.
        model: its model, in eval mode, on its device.
        source: one image.
        seed: of the slide's draws.
        failures: as in `looked`.
    """
    if classifier.certainty.familiar is None or not effort.facts() or not isinstance(model, Estimating):
        return None
    try:
        return looked(USUAL, model, source, torch.Generator().manual_seed(seed), failures)
    except TileReadError:
        return None


def looked(
    effort: Effort,
    model: Any,
    source: TileSource,
    generator: torch.Generator,
    failures: Sequence[Sequence[str]],
    calibration: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Output:
    """Return the model's output; where nothing could be read, the error also says why the first tile could not.

    Args:
        effort: how much is read.
        model: in eval mode, on its device.
        source: one image.
        generator: of what is drawn.
        failures: lists that the source adds a line to for each tile that fails.
        calibration: as in `Effort.look`.

    Raises:
        TileReadError: nothing could be read.
    """
    try:
        return effort.look(model, source, generator, calibration)
    except TileReadError as error:
        first = next(iter(chain(*failures)), "")
        if not first or first in str(error):
            raise
        raise TileReadError(f"{error}: {first}") from error


def known_tiles(source: SlideSource, classifier: Classifier, file: str | Path) -> FeaturedSource | BagSource:
    """Return a slide's source that takes features from a file instead of reading tiles.

    Raises:
        InputError: the model can use no such features, or these are of another slide, encoder or tile size, or damaged.
    """
    expected = expected_of(classifier.model, classifier.config["options"], f"model {classifier.name}")
    return beside(source, classifier.model, file, expected)


def overview_of(source: SlideSource, classifier: Classifier) -> NDArray[np.uint8]:
    """Return the overview that the model sees, (h, w, 3), or a coarser one where it sees strips; read once."""
    return source.overview_rgb(source.whole_overview_downsample(contract_of(classifier.model).overview_mpp))


def seed_of(fingerprint: str, weights_sha256: str) -> int:
    """Return the seed of a slide's draws: the first 8 bytes of sha256(fingerprint + weights sha256), big-endian."""
    digest = hashlib.sha256(f"{fingerprint}{weights_sha256}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


@cache
def versions() -> dict[str, str]:
    """Return versions of this package and of those that pixels and numbers come from."""
    found = {"wsi-attention": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def facts_of_members(classifier: Classifier, output: Output) -> dict[str, object]:
    """Return what provenance says of the members of an ensemble; nothing for a single model."""
    if output.members is None:
        return {}
    return {"members": members_facts(classifier.classes, output.members[:, 0].cpu().numpy())}


def notes_of_members(classifier: Classifier, output: Output) -> tuple[str, ...]:
    """Return a sentence on members of an ensemble that disagree on the label; nothing where they agree."""
    if output.members is None:
        return ()
    return disagreement(classifier.classes, output.members[:, 0].cpu().numpy())


def notes_of_bag(classifier: Classifier, patient: str | None) -> tuple[str, ...]:
    """Return a sentence where a model of patients sees a slide of nobody; nothing else."""
    return (NOBODY,) if classifier.bag == "patient" and patient is None else ()


def notes_of_sets(classifier: Classifier, effort: Effort) -> tuple[str, ...]:
    """Return a sentence where conformal sets stand beside another effort than that they were fitted on."""
    options = classifier.config.get("options", {})
    other = effort.facts() or options.get("draws") != classifier.config.get("usual_draws", options.get("draws"))
    return (OTHER_DRAWS,) if classifier.certainty.conformal is not None and other else ()


def number_of(values: torch.Tensor) -> float | None:
    """Return the value of a single image; None for NaN."""
    value = float(values[0])
    return None if math.isnan(value) else value


def shown_of(classifier: Classifier, logits: torch.Tensor, path: str) -> Shown:
    """Return what people see of logits (k,): probabilities of the classes, or what else the target says.

    Raises:
        ModelError: the logits, or the numbers that the target makes of them, are not finite.
    """
    if not torch.isfinite(logits).all():
        raise ModelError(f"{path}: the model's logits are not finite ({logits.tolist()}); its weights cannot be right")
    shown = classifier.target.shown(classifier.target.read(logits.double()).cpu().numpy())
    if not all(map(math.isfinite, [*shown.probabilities.tolist(), *(number for _, number in shown.values)])):
        raise ModelError(f"{path}: the model's numbers are not finite ({shown.label}); its config.json cannot be right")
    return shown


def compared(prediction: Prediction, classifier: Classifier, source: TileSource, output: Output) -> Prediction:
    """Return the prediction, with how far its slide is from those of the training where the model's folder knows it.

    Args:
        prediction: as it is without.
        classifier: whose it is.
        source: what it looked at, with its pixels.
        output: of an ordinary look.
    """
    familiar = classifier.certainty.familiar
    known = None if familiar is None else familiar.distance(traits_of(classifier.model, source, output))
    if familiar is None or known is None:
        return prediction
    distance = FARTHEST if math.isnan(known[0]) else min(known[0], FARTHEST)
    return replace(prediction, unlike=distance, notes=(*prediction.notes, *familiar.note(distance, known[1])))


def judged_of(output: Output, classifier: Classifier, shown: Shown) -> Judged:
    """Return what to say of a slide: the model's own probabilities, or what its folder makes of them.

    Args:
        output: of one image.
        classifier: whose output it is; nothing is fitted to another target than one label.
        shown: what the output says by itself.
    """
    spread = number_of(output.spread)
    if classifier.target.kind != KIND:
        return Judged(shown.probabilities, spread, None, {})
    logits = output.logits[0].double().cpu().numpy()
    return classifier.certainty.judge(logits, shown.probabilities, spread, classifier.classes)


def unread_of(path: str, failures: Sequence[str], glimpses: tuple[Glimpse, ...]) -> tuple[str, ...]:
    """Return a sentence on tiles that could not be read, nothing where all could.

    Raises:
        TileReadError: more than half of them could not.
    """
    total = sum(len(glimpse.valid) for glimpse in glimpses)
    failed = sum(int(np.count_nonzero(~glimpse.valid)) for glimpse in glimpses)
    if not failed:
        return ()
    text = f"{failed} of {total} tiles could not be read: {failures[0] if failures else 'no reason given'}"
    if 2 * failed > total:
        raise TileReadError(f"{path}: {text}")
    return (text,)


def provenance_of(slide: Slide, classifier: Classifier, seed: int, precision: str) -> dict[str, object]:
    """Return where a prediction comes from, without the wishes of its caller."""
    return (
        {
            "fingerprint": slide.fingerprint,
            "weights_sha256": classifier.weights_sha256,
            "model": classifier.name,
            "seed": seed,
            "precision": precision,
            "mpp_source": slide.mpp_source,
            "reader": slide.reader,
            "versions": dict(versions()),
            **slide.options,
        }
        | ({"series_uid": slide.facts.series_id} if slide.facts.series_id else {})
        | ({"bounds": list(slide.facts.bounds)} if slide.facts.bounds else {})
    )
