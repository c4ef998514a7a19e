"""What both objects say about themselves: equipment, algorithm, codes, ids from content, dates of the slide."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID, uuid5

from highdicom import UID, AlgorithmIdentificationSequence
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes

from wsi_attention import Prediction
from wsi_attention.structures import shown_class
from wsi_attention_dicom import __version__

NAMESPACE = UUID("0c0a4c4e-7c53-5a4e-9b0a-6f5d1a3b8e21")
"""UIDs are UUIDv5 in this namespace; changing it would change the UIDs of every export."""
SCHEME = "99WSIATTENTION"
MEASURED = {
    "Attention": ("attention", "1"),
    "Attention percentile": ("attention-percentile", "%"),
    "Sampling probability": ("sampling-probability", "1"),
    "Weight": ("weight", "1"),
    "Rank": ("rank", "1"),
    "Tiles": ("tiles", "1"),
}
"""Code and UCUM unit of each measurement; no standard context group has them."""
UNITS = {"1": ("1", "no units"), "%": ("%", "Percent")}


def concept(meaning: str) -> CodedConcept:
    """The private code of a measurement."""
    return CodedConcept(value=MEASURED[meaning][0], scheme_designator=SCHEME, meaning=meaning)


def unit(meaning: str) -> CodedConcept:
    """The UCUM unit of a measurement."""
    value, name = UNITS[MEASURED[meaning][1]]
    return CodedConcept(value=value, scheme_designator="UCUM", meaning=name)


def uid_of(*parts: str | bytes) -> UID:
    """The UID of a content: the same parts give the same one on every run."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return UID.from_uuid(str(uuid5(NAMESPACE, digest.hexdigest())))


def algorithm(prediction: Prediction) -> AlgorithmIdentificationSequence:
    """The model as DICOM identifies an algorithm; its version is the beginning of its weights' sha256."""
    facts = prediction.provenance
    return AlgorithmIdentificationSequence(
        name=str(facts.get("model", "wsi-attention"))[:64],
        version=str(facts.get("weights_sha256", "unknown"))[:16],
        family=codes.DCM.ArtificialIntelligence,
    )


def common(prediction: Prediction, source: Dataset, kind: str, content: bytes) -> dict[str, Any]:
    """Arguments that highdicom wants for either object; ids come from slide, weights and content.

    Args:
        prediction: what is shown.
        source: the image that it is about.
        kind: of object, e.g. "ann".
        content: all that the object will hold.
    """
    weights = str(prediction.provenance.get("weights_sha256", ""))
    model = str(prediction.provenance.get("model", "wsi-attention"))
    about = prediction.warning or f"{prediction.label}: where the label rests; research use only"
    return {
        "source_images": [source],
        "series_instance_uid": uid_of(kind, "series", str(source.SeriesInstanceUID), weights),
        "series_number": 9000 + ("ann", "pmap").index(kind),
        "sop_instance_uid": uid_of(kind, "instance", str(source.SOPInstanceUID), weights, content),
        "instance_number": 1,
        "manufacturer": "wsi-attention",
        "manufacturer_model_name": "wsi-attention",
        "software_versions": __version__,
        "device_serial_number": "none",
        "content_description": about[:64],
        "series_description": f"Attention of {shown_class(model, prediction.purpose)}"[:64],
    }


def fixed(written: Dataset, source: Dataset) -> Dataset:
    """The object with the slide's dates for the clock's and ids from content for random ones: a second run gives the
    same bytes."""
    taken = str(source.get("AcquisitionDateTime") or "")
    written.ContentDate = source.get("ContentDate") or source.get("StudyDate") or taken[:8] or "19000101"
    written.ContentTime = source.get("ContentTime") or source.get("StudyTime") or "000000"
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):
        if keyword in written:
            delattr(written, keyword)
    if "SpecimenDescriptionSequence" not in written:
        written.Laterality = None  # what it was taken from is unknown
    for equipment in written.get("ContributingEquipmentSequence", ()):
        equipment.pop("ContributionDateTime", None)
    dimensions = uid_of("dimensions", str(written.SOPInstanceUID))
    for item in (*written.get("DimensionOrganizationSequence", ()), *written.get("DimensionIndexSequence", ())):
        item.DimensionOrganizationUID = dimensions
    return written
