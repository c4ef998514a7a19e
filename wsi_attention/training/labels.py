"""Which slide carries which label: the labels CSV, and the slides it names among the files that are there."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_attention.errors import InputError
from wsi_attention.slide.metadata import COARSEST, FINEST
