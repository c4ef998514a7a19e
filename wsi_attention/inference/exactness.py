"""In which precision a model may compute: a published encoder that is used in float32 stays in float32."""

from __future__ import annotations

from wsi_attention.checkpoint import Classifier
from wsi_attention.devices import Precision
from wsi_attention.encoders.entry import Entry
from wsi_attention.encoders.published import entry_of_repository
from wsi_attention.encoders.table import entry_of, is_known
from wsi_attention.errors import InputError
from wsi_attention.methods.encoder_facts import entry_in

EXACT: Precision = "32"


def precision_of(classifier: Classifier, wanted: Precision) -> Precision:
    """Return the precision that was asked for, or float32 for "auto" where the model's encoder needs it.

    OpenVINO computes in float32 too.

    Args:
        classifier: the model.
        wanted: as in `predict`.

    Raises:
        InputError: bfloat16 or int8 was asked for, and the encoder is one that is used in float32.
    """
    entry = published_in(classifier)
    if entry is None or entry.precision != EXACT or wanted == "openvino":
        return wanted
    if wanted in ("bf16", "int8"):
        raise InputError(
            f"precision {wanted} contradicts encoder {entry.name!r} of model {classifier.name}, which is used in"
            " float32; give 32, or auto"
        )
    return EXACT


def published_in(classifier: Classifier) -> Entry | None:
    """Return the published encoder whose network a model contains or points to, None where it is another."""
    named = entry_in(classifier.config.get("options", {}))
    if named is not None:
        return named
    part = classifier.encoder
    if part is None:
        return None
    return entry_of(part.origin.name) if is_known(part.origin.name) else entry_of_repository(part.origin.repository)
