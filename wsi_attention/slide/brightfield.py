"""Refuses slides whose metadata says that they are not brightfield; what only pixels tell is `tissue.py`'s part."""

from __future__ import annotations

import re
from collections.abc import Mapping

from wsi_attention.errors import UnsupportedSlideError
from wsi_attention.slide.metadata import OME_IMAGE

_WAVELENGTH = re.compile(r"\bExcitationWave[Ll]ength=([1-9]\d*)")
_OME_FLUORESCENT = re.compile(r"\b(?:ExcitationWavelength|Fluor|IlluminationType)\s*=\s*[\"']([^\"']+)[\"']")
_CHANNEL_NAME = re.compile(r"<(?:\w+:)?Channel\b[^>]*\bName\s*=\s*[\"']([^\"']+)[\"']")
_FLUOROPHORE = re.compile(
    r"\b(dapi|hoechst|fitc|tritc|cy ?[357]|alexa|gfp|rfp|yfp|cfp|mcherry|texas ?red|autofluorescence)\b", re.IGNORECASE
)
_ILLUMINATION = (".illumination-source", "SLIDE_TYPE", "IlluminationTypeCodeSequence[0].CodeMeaning")


def check_metadata(path: str, properties: Mapping[str, str]) -> None:
    """Refuses a slide that its own tags call fluorescent.

    Raises:
        UnsupportedSlideError: Hamamatsu excitation wavelengths, Leica, MIRAX, DICOM or OME illumination say so.
    """
    reason = _fluorescence(properties)
    if reason:
        raise UnsupportedSlideError(
            f"{path}: a fluorescence slide ({reason}); only RGB brightfield slides can be classified, leave it out"
        )


def _fluorescence(properties: Mapping[str, str]) -> str:
    for key, value in properties.items():
        if key.startswith("hamamatsu.") and (found := _WAVELENGTH.search(value)):
            return f"its tags name an excitation wavelength of {found[1]} nm"
        if key.endswith(_ILLUMINATION) and "fluorescen" in value.lower():
            return f"{key.rpartition('.')[2]} is {value.strip()!r}"
    description = properties.get(OME_IMAGE) or properties.get("tiff.ImageDescription", "")
    if OME_IMAGE in properties or "<OME" in description or "<ome:OME" in description:
        for value in _OME_FLUORESCENT.findall(description):
            if value not in {"Transmitted", "Oblique", "NonLinear", "Other"}:
                return f"its OME-XML names {value!r}"
    channels = ", ".join((properties.get("ome-zarr.channels", ""), *_CHANNEL_NAME.findall(description)))
    if dye := _FLUOROPHORE.search(channels):
        return f"a channel is called {dye[0]!r}"
    return ""
