"""The slides CSV: slide[,mpp][,mask], one row a slide, paths relative to the CSV or to the input folder.

TRIDENT's list of slides, `wsi[,mpp]`, is read as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from wsi_attention.errors import InputError
from wsi_attention.inference.csv_table import read_table
from wsi_attention.inference.discovery import Found, SlideFile, find_slides
from wsi_attention.slide.metadata import COARSEST, FINEST
