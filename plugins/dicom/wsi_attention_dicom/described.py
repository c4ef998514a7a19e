"""A least description of a slide that is no DICOM file, for archives that give it one of their own."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.uid import VLWholeSlideMicroscopyImageStorage

from wsi_attention import Prediction
from wsi_attention_dicom.description import uid_of


def minimal_source(prediction: Prediction) -> Dataset:
    """The slide as one level of a DICOM series: size, spacing and UIDs made from its content; no patient.

    The frame of reference is our own: its origin is the centre of the first pixel, x grows to the right, y downwards.
    Pass it, or a function that fills in what your archive knows, to an exporter: `AnnotationExporter(minimal_source)`.
    """
    mark = str(prediction.provenance.get("fingerprint") or prediction.slide)
    source = Dataset()
    source.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    source.Modality = "SM"
    source.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        setattr(source, name, uid_of("described", name, mark))
    for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(source, name, None)
    source.StudyDate = source.StudyTime = source.PositionReferenceIndicator = None
    source.ContainerIdentifier = uid_of("described", "container", mark)
    source.IssuerOfTheContainerIdentifierSequence = source.ContainerTypeCodeSequence = []
    specimen = Dataset()
    specimen.SpecimenIdentifier = specimen.SpecimenUID = uid_of("described", "specimen", mark)
    specimen.IssuerOfTheSpecimenIdentifierSequence = specimen.SpecimenPreparationSequence = []
    source.SpecimenDescriptionSequence = [specimen]
    return _sized(source, prediction)


def _sized(source: Dataset, prediction: Prediction) -> Dataset:
    source.TotalPixelMatrixColumns, source.TotalPixelMatrixRows = prediction.extent
    source.Columns = source.Rows = 256
    source.NumberOfFrames = -(-prediction.extent[0] // 256) * -(-prediction.extent[1] // 256)
    source.DimensionOrganizationType = "TILED_FULL"
    source.ImageOrientationSlide = [1, 0, 0, 0, 1, 0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0
    source.TotalPixelMatrixOriginSequence = [origin]
    measures = Dataset()
    measures.PixelSpacing = [round(prediction.mpp / 1000, 12)] * 2
    measures.SliceThickness = 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    source.SharedFunctionalGroupsSequence = [shared]
    return source
