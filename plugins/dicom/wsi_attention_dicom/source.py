"""The DICOM instance that a prediction's level-0 pixels are: its total pixel matrix is their frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import VLWholeSlideMicroscopyImageStorage

from wsi_attention import Prediction
from wsi_attention.errors import SlideError

Source = Callable[[Prediction], Dataset]
"""Finds or describes the image that a prediction is about."""

FEW_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "ImageType",
    "TotalPixelMatrixColumns",
    "TotalPixelMatrixRows",
]
MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)
"""Attributes of type 2: some writers leave them out, derived objects must have them, empty."""
NOT_DICOM = (
    "is no DICOM slide, and DICOM annotations must refer to one: leave dicom-ann and dicom-pmap out, convert the \
slide, e.g. with wsidicomizer, or describe it yourself (see minimal_source)"
)


def source_of(prediction: Prediction) -> Dataset:
    """The instance whose total pixel matrix is level 0 of the prediction's slide, without its pixels.

    Args:
        prediction: of a DICOM slide, given as an instance of the series or as its folder.

    Raises:
        SlideError: no DICOM slide, not the slide that was classified, or an instance cut into several.
    """
    path = Path(prediction.slide)
    if not path.exists():
        raise SlideError(f"{prediction.slide}: the slide is not there; dicom-ann and dicom-pmap read its DICOM header")
    found = {str(few.SOPInstanceUID): (file, few) for file, few in _instances(path) if _is_level_0(few, prediction)}
    if not found:
        w, h = prediction.extent
        reason = f"holds no DICOM instance of {w} × {h} pixels" if _is_dicom(path) else NOT_DICOM
        raise SlideError(f"{prediction.slide}: {reason}")
    if len(found) > 1:
        raise SlideError(
            f"{prediction.slide}: {len(found)} instances hold level 0; a concatenation cannot be annotated"
        )
    return _complete(dcmread(next(iter(found.values()))[0], stop_before_pixels=True))


@contextmanager
def usable(prediction: Prediction) -> Iterator[None]:
    """Turn what highdicom holds against a slide's header into one line that names the slide.

    Raises:
        SlideError: an attribute that derived objects copy is missing or malformed.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        line = f"{prediction.slide}: nothing can refer to it, its DICOM header is wrong: {reason}"
        raise SlideError(line) from error


def _instances(path: Path) -> Iterator[tuple[Path, Dataset]]:
    """Slide instances of the series at a path, with a few tags."""
    wanted = None if path.is_dir() else _read_few(path)
    if wanted is None and not path.is_dir():
        return
    for file in sorted(path.iterdir() if path.is_dir() else path.parent.iterdir()):
        few = _read_few(file) if file.is_file() else None
        if few is not None and (wanted is None or few.get("SeriesInstanceUID") == wanted.get("SeriesInstanceUID")):
            yield file, few


def _read_few(file: Path) -> Dataset | None:
    try:
        few = dcmread(file, stop_before_pixels=True, specific_tags=FEW_TAGS)
    except (InvalidDicomError, OSError):
        return None
    return few if few.get("SOPClassUID") == VLWholeSlideMicroscopyImageStorage else None


def _is_level_0(few: Dataset, prediction: Prediction) -> bool:
    size = few.get("TotalPixelMatrixColumns"), few.get("TotalPixelMatrixRows")
    return "VOLUME" in few.get("ImageType", ()) and size == prediction.extent


def _is_dicom(path: Path) -> bool:
    return next(_instances(path), None) is not None


def _complete(source: Dataset) -> Dataset:
    for keyword in MAY_BE_EMPTY:
        if keyword not in source:
            setattr(source, keyword, None)
    return source
