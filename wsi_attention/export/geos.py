"""Shapely's array functions, which carry no types, under one name."""

from __future__ import annotations

from typing import Any

import shapely

GEOS: Any = shapely
