"""The attention map as a DICOM Parametric Map that lies in the slide's frame of reference, a pixel a cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from highdicom import CoordinateSystemNames, PixelMeasuresSequence, PlanePositionSequence, VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.spatial import ImageToReferenceTransformer
from numpy.typing import NDArray
from pydicom import Dataset

from wsi_attention import AttentionMap, Prediction
from wsi_attention.errors import SlideError
from wsi_attention.export import main_map
from wsi_attention_dicom.description import common, concept, fixed, unit
from wsi_attention_dicom.source import Source, source_of, usable

TILE = 512
"""Rows and columns of a frame, at most."""


class ParametricMapExporter:
    """Writes the attention map over the whole slide; the values are the map's own, float32, NaN where it has none.

    Args:
        source: finds or describes the image to refer to.
    """

    suffix: ClassVar[str] = "dicom-pmap/{slide}.dcm"

    def __init__(self, source: Source = source_of) -> None:
        self.source = source

    def __call__(self, prediction: Prediction, path: Path) -> None:
        """Write the file; the same prediction of the same slide gives the same bytes.

        Raises:
            SlideError: no DICOM slide, one without an origin, or no attention map.
        """
        source = self.source(prediction)
        if not source.get("TotalPixelMatrixOriginSequence"):
            raise SlideError(
                f"{prediction.slide}: does not say where its pixels lie (no TotalPixelMatrixOriginSequence), "
                "so a parametric map has no place on the slide; leave dicom-pmap out"
            )
        found = main_map(prediction)
        if found is None or not np.isfinite(found.values).any():
            raise SlideError(
                f"{prediction.slide}: the model gave no attention map: nothing to show as a parametric map"
            )
        with usable(prediction):
            written = _written(prediction, found, source)
        written.FloatPixelPaddingValue = written.FloatPixelPaddingRangeLimit = float("nan")
        fixed(written, source).save_as(path, enforce_file_format=True)


def _written(prediction: Prediction, found: AttentionMap, source: Dataset) -> ParametricMap:
    content = f"{found.name} {found.grid} {prediction.shown_label}".encode() + found.values.astype("<f4").tobytes()
    known = found.values[np.isfinite(found.values)].astype(np.float64)
    low, high = float(known.min()), float(known.max())
    return ParametricMap(
        pixel_array=np.ascontiguousarray(found.values, np.float32),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_mapping(found.name, low, high)],
        voi_lut_transformations=[_window(low, high)],
        pixel_measures=_measures(found, source),
        plane_positions=[_position(found, source)],
        tile_pixel_array=True,
        tile_size=tuple(min(TILE, side) for side in found.values.shape),
        content_label="ATTENTION",
        **common(prediction, source, "pmap", content),
    )


def _mapping(name: str, low: float, high: float) -> RealWorldValueMapping:
    return RealWorldValueMapping(
        lut_label="ATTENTION",
        lut_explanation=f"Attention of each cell ({name})"[:64],
        unit=unit("Attention"),
        value_range=(low, high),
        slope=1.0,
        intercept=0.0,
        quantity_definition=concept("Attention"),
    )


def _window(low: float, high: float) -> VOILUTTransformation:
    """The whole range of the values; a flat map is shown at half brightness."""
    width = high - low if high > low else max(abs(high), 1.0)
    return VOILUTTransformation(window_center=(low + high) / 2, window_width=width, voi_lut_function="LINEAR_EXACT")


def _measures(found: AttentionMap, source: Dataset) -> PixelMeasuresSequence:
    """A cell's size in mm, from the slide's own pixel spacing, which may differ between rows and columns."""
    told: Any = source.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    rows, cols = (float(value) for value in told.PixelSpacing)
    return PixelMeasuresSequence(
        pixel_spacing=(rows * found.grid.step[1], cols * found.grid.step[0]),
        slice_thickness=float(told.get("SliceThickness") or 0.001),
    )


def _position(found: AttentionMap, source: Dataset) -> PlanePositionSequence:
    """Where the first cell's centre lies on the slide, mm."""
    placed = ImageToReferenceTransformer.for_image(source, for_total_pixel_matrix=True)
    centre: NDArray[np.float64] = np.array([found.grid.origin]) + np.array([found.grid.step]) / 2
    return PlanePositionSequence(
        coordinate_system=CoordinateSystemNames.SLIDE,
        image_position=tuple(float(value) for value in placed(centre)[0]),
        pixel_matrix_position=(1, 1),
    )
