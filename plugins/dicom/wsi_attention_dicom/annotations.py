"""Tiles and regions as Microscopy Bulk Simple Annotations, in pixels of the slide's total pixel matrix.

They are the objects of the GeoJSON export: a tile with its measurements as a rectangle, a region as a polygon.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from highdicom.ann import (
    AnnotationCoordinateTypeValues,
    AnnotationGroup,
    AnnotationGroupGenerationTypeValues,
    GraphicTypeValues,
    Measurements,
    MicroscopyBulkSimpleAnnotations,
    PixelOriginInterpretationValues,
)
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from wsi_attention import Prediction
from wsi_attention.errors import SlideError
from wsi_attention.export import geojson_features
from wsi_attention_dicom.cells import top_cells
from wsi_attention_dicom.description import MEASURED, algorithm, common, concept, fixed, uid_of, unit
from wsi_attention_dicom.source import Source, source_of, usable

TOP = 5
"""How many of the heaviest tiles, or cells of a map, become regions."""


class AnnotationExporter:
    """Writes one DICOM file a slide, beside which viewers show tiles and regions on the slide.

    Where a model read no tiles, the cells of its map with the highest attention are the regions.

    Args:
        source: finds or describes the image to refer to.
        top: how many of the heaviest tiles become regions; those that touch become one.
    """

    suffix: ClassVar[str] = "dicom-ann/{slide}.dcm"

    def __init__(self, source: Source = source_of, top: int = TOP) -> None:
        self.source = source
        self.top = top

    def __call__(self, prediction: Prediction, path: Path) -> None:
        """Write the file; the same prediction of the same slide gives the same bytes.

        Raises:
            SlideError: no DICOM slide, a header that cannot be referred to, or nothing to show.
        """
        source = self.source(prediction)
        objects = _objects(prediction, self.top)
        if not objects:
            raise SlideError(f"{prediction.slide}: no tile was read and no cell has attention: nothing to annotate")
        content = json.dumps([objects, prediction.shown_label], sort_keys=True).encode()
        about = common(prediction, source, "ann", content)
        with usable(prediction):
            written = MicroscopyBulkSimpleAnnotations(
                annotation_coordinate_type=AnnotationCoordinateTypeValues.SCOORD,
                pixel_origin_interpretation=PixelOriginInterpretationValues.VOLUME,
                annotation_groups=_groups(prediction, objects, about["sop_instance_uid"]),
                content_label="ATTENTION",
                **about,
            )
        fixed(written, source).save_as(path, enforce_file_format=True)


def _objects(prediction: Prediction, top: int) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = geojson_features(prediction, "none", top)["features"]
    return shown or top_cells(prediction, top)


def _groups(prediction: Prediction, objects: list[dict[str, Any]], instance: str) -> list[AnnotationGroup]:
    """Objects of one kind together; regions first."""
    kinds: dict[tuple[str, GraphicTypeValues], list[dict[str, Any]]] = defaultdict(list)
    for one in objects:
        kinds[_kind(prediction, one)].append(one)
    return [
        AnnotationGroup(
            number=number,
            uid=uid_of("group", instance, label),
            label=label,
            annotated_property_category=codes.SCT.SpatialAndRelationalConcept,
            annotated_property_type=codes.DCM.SelectedRegion,
            graphic_type=graphic,
            graphic_data=[_corners(one) for one in members],
            algorithm_type=AnnotationGroupGenerationTypeValues.AUTOMATIC,
            algorithm_identification=algorithm(prediction),
            measurements=_measurements(members) or None,
        )
        for number, ((label, graphic), members) in enumerate(kinds.items(), start=1)
    ]


def _kind(prediction: Prediction, one: dict[str, Any]) -> tuple[str, GraphicTypeValues]:
    told = one["properties"]
    if told["objectType"] == "annotation":
        return f"Attention regions: {prediction.shown_label}"[:64], GraphicTypeValues.POLYGON
    name = "Tiles not readable" if told["classification"]["name"] == "Not readable" else "Tiles read"
    return (f"{name}: {told['name']}" if "name" in told else name)[:64], GraphicTypeValues.RECTANGLE


def _corners(one: dict[str, Any]) -> NDArray[np.float32]:
    """(n, 2) x, y of the outline, which closes by itself; whole pixels are exact in float32 up to 16 million.

    A region's hole has no place in a DICOM polygon: the outer ring alone is written.
    """
    return np.array(one["geometry"]["coordinates"][0][:-1], np.float32)


def _measurements(members: list[dict[str, Any]]) -> list[Measurements]:
    """Every measurement that any member has; members without it have none in the file either."""
    found = {
        name: np.array([one["properties"]["measurements"].get(name, np.nan) for one in members]) for name in MEASURED
    }
    return [
        Measurements(name=concept(name), values=values, unit=unit(name))
        for name, values in found.items()
        if np.isfinite(values).any()
    ]
