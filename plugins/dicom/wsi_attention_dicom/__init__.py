"""Attention as DICOM objects that refer to the slide they are about; the exporters are `dicom-ann` and `dicom-pmap`."""

__version__ = "0.1.0"
