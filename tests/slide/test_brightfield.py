"""Metadata that calls a slide fluorescent."""

from __future__ import annotations

import pytest

from wsi_attention.errors import UnsupportedSlideError
from wsi_attention.slide.brightfield import check_metadata

DICOM = "dicom.OpticalPathSequence[0].IlluminationTypeCodeSequence[0].CodeMeaning"


@pytest.mark.parametrize(
    "properties",
    [
        {"hamamatsu.Shading": "Name=DAPI\r;ExcitationWaveLength=387\r;EmissionWaveLength=455"},
        {"leica.illumination-source": "fluorescence"},
        {"mirax.GENERAL.SLIDE_TYPE": "SLIDE_TYPE_FLUORESCENCE"},
        {DICOM: "Epifluorescence illumination"},
        {"tiff.ImageDescription": '<OME><Channel Name="a" Fluor="DAPI"/></OME>'},
        {"tiff.ImageDescription": '<OME><Channel ID="Channel:0" Name="Cy5"/></OME>'},
        {"tiff.ImageDescription": '<OME><Channel IlluminationType="Epifluorescence"/></OME>'},
        {"ome-zarr.channels": "DAPI, FITC, Cy3"},
    ],
)
def test_fluorescence_is_refused(properties: dict[str, str]) -> None:
    with pytest.raises(UnsupportedSlideError, match=r"^slide\.x: a fluorescence slide .*brightfield"):
        check_metadata("slide.x", properties)


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"hamamatsu.Shading": "ExcitationWaveLength=0\r;EmissionWaveLength=0", "hamamatsu.AHEX[0].fluorescence": "00"},
        {"leica.illumination-source": "brightfield"},
        {"mirax.GENERAL.SLIDE_TYPE": "SLIDE_TYPE_BRIGHTFIELD"},
        {DICOM: "Brightfield illumination"},
        {"tiff.ImageDescription": '<OME><Channel Name="RGB" IlluminationType="Transmitted"/></OME>'},
        {"tiff.ImageDescription": "Aperio Image Library|Filename = DAPI 7"},
        {"ome-zarr.channels": "Red, Green, Blue"},
    ],
)
def test_brightfield_passes(properties: dict[str, str]) -> None:
    check_metadata("slide.x", properties)
