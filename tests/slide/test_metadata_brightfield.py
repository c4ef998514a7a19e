"""Metadata that calls a slide fluorescent; pixels whose colours are inverted."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from wsi_attention.errors import UnsupportedSlideError
from wsi_attention.slide.metadata import check_metadata
from wsi_attention.slide.tissue import check_brightfield
from wsi_attention.testing.slides import SlideSpec, paint_slide

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


def coverage(share: float) -> NDArray[np.uint8]:
    return paint_slide(SlideSpec(size=(1024, 1024), mpp=1.0, seed=2, coverage=share))[0][::8, ::8]


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_inverted_colours_are_refused(share: float) -> None:
    rgb = coverage(share)
    check_brightfield(rgb, "slide.x")
    with pytest.raises(UnsupportedSlideError, match=r"slide\.x: .* black and .* inverted colours"):
        check_brightfield(255 - rgb, "slide.x")


def test_tissue_all_over_beside_a_dark_border_is_brightfield() -> None:
    rgb = np.random.default_rng(0).normal((190, 120, 170), 15, (128, 128, 3)).clip(0, 255).astype(np.uint8)
    rgb[:, :40] //= 8
    check_brightfield(rgb, "slide.x")
