"""One `Prediction` from a file of features alone, its slide not at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from wsi_attention.bags.bag import Bag
from wsi_attention.bags.dialects import read_alone
from wsi_attention.bags.expected import check_features
from wsi_attention.bags.rows import fingerprint_of
from wsi_attention.bags.source import BagSource, StoredTiles, notes_of
from wsi_attention.checkpoint import Classifier, ClassifierLike, as_classifier
from wsi_attention.devices import Precision, autocast, device_of, placed, precision_on
from wsi_attention.errors import InputError
from wsi_attention.inference.certify import calibration_of, certificate_facts, certificate_notes, certified_in
from wsi_attention.inference.effort import USUAL, Effort
from wsi_attention.inference.exactness import precision_of
from wsi_attention.inference.predict import (
    compared,
    facts_of_members,
    judged_of,
    looked,
    notes_of_bag,
    notes_of_members,
    notes_of_sets,
    number_of,
    seed_of,
    shown_of,
    unread_of,
    usual_look,
    versions,
)
from wsi_attention.inference.stored_features import expected_of
from wsi_attention.structures import Counters, Prediction, TissueMask
from wsi_attention.timing import spent_on

POOLING = "mil"
"""The method that takes all tiles and looks at no overview."""


@dataclass(frozen=True, eq=False)
class OpenBag:
    """A file of features that has been read.

    Attributes:
        path: of the file.
        bag: what it says.
        fingerprint: of its places and features; the seed of what is drawn comes from it.
        given_mpp: whether the caller says µm per level-0 pixel.
    """

    path: str
    bag: Bag
    fingerprint: str
    given_mpp: bool = False

    def source(self, classifier: Classifier) -> BagSource:
        """Return the bag as a `TileSource` for a model.

        Raises:
            InputError: the features are not those that the model takes.
        """
        expected = expected_of(classifier.model, classifier.config["options"], f"model {classifier.name}")
        check_features(self.bag, expected, self.path)
        return BagSource(self.bag, StoredTiles(self.bag, expected.pixels), expected.tile_mpp)

    def notes(self, source: BagSource) -> tuple[str, ...]:
        """Return what a reader of places should know, one sentence each."""
        if self.bag.own_pixels:
            return (
                f"places are in pixels of {source.mpp:.4g} µm, the tiles' own, as the file does not say the slide's;"
                " give it (--mpp) to see them on the slide",
            )
        if self.bag.mpp is None:
            return (f"the file does not say µm per pixel; {source.mpp:.4g} follows from the tiles the model reads",)
        return ()


def open_bag(path: str | Path, mpp: float | None = None) -> OpenBag:
    """Read a file of features.

    Args:
        path: of TRIDENT, CLAM, STAMP or LazySlide.
        mpp: µm per level-0 pixel of its slide, where the caller knows it.

    Raises:
        InputError: it cannot be read, or is damaged.
    """
    bag = read_alone(path, mpp)
    fingerprint = "" if bag.features is None else fingerprint_of(bag.locations, bag.features)
    return OpenBag(str(path), bag, fingerprint, mpp is not None)


def predict_alone(
    file: str | Path,
    classifier: ClassifierLike,
    *,
    mpp: float | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    effort: Effort = USUAL,
) -> Prediction:
    """Return the label of a file of features whose slide is not at hand, with the tiles it rests on.

    Args:
        file: of TRIDENT, CLAM, STAMP or LazySlide, with features of the model's encoder.
        classifier: what `load_model` returns, or what it loads.
        mpp: µm per level-0 pixel of the slide, where the file is silent or wrong.
        device: as in `predict`.
        precision: as in `predict`.
        effort: as in `predict`.

    Raises:
        InputError: the file cannot be used, or the model looks at the slides themselves.
        ModelError: the model cannot be loaded, or its logits are not finite.
    """
    model = as_classifier(classifier)
    check_alone(model)
    effort.check(model)
    precision, opened = precision_of(model, precision), open_bag(file, mpp)
    return look_alone(opened, opened.source(model), model, device=device, precision=precision, effort=effort)


def check_alone(classifier: Classifier) -> None:
    """Check that a model needs no more of a slide than a bag of features.

    Raises:
        InputError: it takes no features, or its attention looks at the slides themselves.
    """
    options: Mapping[str, object] = classifier.config["options"]
    method = classifier.config["method"]
    if not expected_of(classifier.model, options, f"model {classifier.name}").on_a_grid and method != POOLING:
        raise InputError(
            f"model {classifier.name}: its attention looks at the slides themselves: give them too (-i), or a model of"
            f" method {POOLING}, or one that was trained on features alone"
        )


@spent_on("attention")
def look_alone(
    opened: OpenBag,
    source: BagSource,
    classifier: Classifier,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    effort: Effort = USUAL,
    patient: str | None = None,
) -> Prediction:
    """Run the model once over a bag; arguments and errors as in `predict_alone`, all checked.

    `patient` says whose slide it is, None where nobody does.
    """
    where = device_of(device)
    used = precision_on(where, precision)
    seed = seed_of(opened.fingerprint, classifier.weights_sha256)
    torch.set_num_threads(torch.get_num_threads())  # as for slides: new threads take it over only when asked
    model = placed(classifier.model, where)
    with torch.inference_mode(), autocast(where, used):
        chance, label = torch.Generator().manual_seed(seed), calibration_of(classifier)
        output = looked(effort, model, source, chance, (source.failures,), label)
        usual = usual_look(effort, classifier, model, source, seed, (source.failures,)) or output
    shown = shown_of(classifier, output.logits[0], opened.path)
    judged = judged_of(output, classifier, shown)
    unread = None if output.unread_mass is None else number_of(output.unread_mass)
    mask, downsample = source.covered()
    found = Prediction(
        slide=opened.path,
        extent=source.extent,
        mpp=opened.bag.mpp or source.mpp,
        bounds=(0, 0),
        classes=shown.classes,
        probabilities=judged.probabilities,
        spread=judged.spread,
        glimpses=output.glimpses[0],
        maps=output.maps[0],
        tissue=TissueMask(mask, downsample, "tiles with features"),
        counters=Counters(),
        overview_pixels=0,
        provenance=_provenance(opened, classifier, seed, used)
        | effort.facts()
        | judged.uncalibrated
        | certificate_facts(output, classifier)
        | facts_of_members(classifier, output),
        notes=(
            *notes_of_bag(classifier, patient),
            *notes_of_members(classifier, output),
            *notes_of(source, 0),
            *opened.notes(source),
            *(classifier.seen.note(opened.fingerprint) if classifier.seen else ()),
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
        shortfalls=unread_of(opened.path, source.failures, output.glimpses[0]),
    )
    return compared(found, classifier, source, usual)


def _provenance(opened: OpenBag, classifier: Classifier, seed: int, precision: str) -> dict[str, object]:
    said = (
        "given"
        if opened.given_mpp
        else "the tiles"
        if opened.bag.own_pixels or opened.bag.mpp is None
        else "the file of features"
    )
    return {
        "fingerprint": opened.fingerprint,
        "weights_sha256": classifier.weights_sha256,
        "model": classifier.name,
        "seed": seed,
        "precision": precision,
        "mpp_source": said,
        "reader": opened.bag.dialect,
        "versions": dict(versions()),
    }
