"""What is wanted of a certificate, and what a result says of it (docs/certificate.md)."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_attention.certificate.verdict import PROOF
from wsi_attention.checkpoint import MEMBERS, Classifier
from wsi_attention.errors import InputError
from wsi_attention.methods.certifying import check_level
from wsi_attention.protocols import Certifying, Estimating
from wsi_attention.structures import Certificate, Output

PROOF_WORD = "proof"
"""What the level of a proof is called."""
NO_SET = "the certificate is about the most probable class, and neither about the set nor about a label it withholds"
"""What the note of a model with conformal sets adds."""


def level_of(certify: bool | float | str | None) -> float | None:
    """Return the level that was asked for: 1 for a proof, a confidence, or None where no certificate is wanted.

    Raises:
        InputError: it is neither "proof" nor a number.
    """
    if certify is None or certify is False:
        return None
    if certify is True or certify == PROOF_WORD:
        return PROOF
    try:
        return float(certify)
    except (TypeError, ValueError):
        raise InputError(f"certify is {PROOF_WORD}, or a confidence such as 0.99; got {str(certify)[:40]!r}") from None


def word_of(level: float) -> str | float:
    """Return the level as results and settings show it: "proof", or the confidence."""
    return PROOF_WORD if level == PROOF else level


def check_certify(classifier: Classifier, level: float, budget: int | None) -> None:
    """Raise InputError unless the model gives certificates and the wishes make sense; before any slide is read.

    Args:
        classifier: the model.
        level: 1 for a proof, or a confidence.
        budget: tiles; None for all there are.
    """
    check_level(level, 1 if budget is None else budget)
    model, method = classifier.model, classifier.config.get("method", classifier.name)
    if classifier.config.get(MEMBERS):
        raise InputError(
            f"model {classifier.name} is an ensemble: the label of a mean of probabilities cannot be certified; certify"
            " one of its members, such as folds/1-1 of a study"
        )
    if why := _no_sum(classifier):
        raise InputError(f"model {classifier.name} {why}, so that no sum over all tiles has its label to certify")
    if not isinstance(model, Certifying):
        raise InputError(
            f"method {method!r} predicts from the regions that it chose, and not a sum over all tiles whose label could"
            " be certified: certify is for methods that have such a sum: ats, grow, zoom-in and mil"
        )
    if model.uncertifiable:
        raise InputError(f"model {classifier.name}: {model.uncertifiable}: no label of it can be certified")
    if budget is not None and not isinstance(model, Estimating):
        raise InputError(f"method {method!r} reads every tile, whatever the budget: leave the budget out")


def _no_sum(classifier: Classifier) -> str:
    """Say why the label is not that of one sum of logits, as what the model does; empty where it may be."""
    calibration = classifier.certainty.calibration
    if dict(classifier.config).get("target") is not None:
        return "predicts something else than one label of several"
    if calibration is not None and calibration.deciding is None:
        return "has isotonic calibration, whose label is not that of logits scaled and shifted"
    return ""


def calibration_of(classifier: Classifier) -> tuple[Sequence[float], Sequence[float]] | None:
    """Return factor and shift of each class's logit, after which the label is read off; None for the logits."""
    calibration = classifier.certainty.calibration
    if calibration is None or (deciding := calibration.deciding) is None:
        return None
    scale, bias = deciding
    return [scale] * len(bias), bias.tolist()


def facts_of(certificate: Certificate, classes: Sequence[str]) -> dict[str, object]:
    """Return the certificate as provenance: plain values, classes by name."""
    label, rival = (classes[index] for index in certificate.classes)
    return {
        "certified": certificate.kind,
        "label": label,
        "against": rival,
        "lead": list(certificate.lead),
        "score_of_a_tile": list(certificate.score),
        "score_from": certificate.score_source,
        "tiles": certificate.tiles,
        "tiles_drawn": certificate.drawn,
        "tiles_failed": certificate.failed,
    }


def sentence_of(certificate: Certificate, classes: Sequence[str], unread: float | None) -> str:
    """Say in a sentence what is settled."""
    label, rival = (classes[index] for index in certificate.classes)
    low, high = certificate.lead
    left = "" if unread is None else f", {unread:.1%} of the attention unread"
    over = f"in the sum over all tiles {label} leads {rival} by {low:.3g} to {high:.3g} (logits)"
    after = f"after {certificate.tiles} tile{'s' * (certificate.tiles != 1)}{left}"
    if certificate.level is None:
        return f"not certified {after}: {over}"
    how = "by proof" if certificate.level == PROOF else f"with confidence {certificate.kind}"
    return f"certified {how} {after}: {over}"


def certified_in(output: Output) -> str:
    """Return what `Prediction.certified` says."""
    return "" if output.certificate is None else output.certificate.kind


def certificate_facts(output: Output, classifier: Classifier) -> dict[str, object]:
    """Return what provenance says of a certificate; nothing where nobody asked for one."""
    return {} if output.certificate is None else {"certificate": facts_of(output.certificate, classifier.classes)}


def certificate_notes(output: Output, classifier: Classifier, unread: float | None) -> tuple[str, ...]:
    """Return what the notes say of a certificate; nothing where nobody asked for one."""
    if output.certificate is None:
        return ()
    told = sentence_of(output.certificate, classifier.classes, unread)
    return (told if classifier.certainty.conformal is None else f"{told}; {NO_SET}",)
