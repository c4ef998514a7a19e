"""The NumPy reference, loaded by path: test folders are no packages."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

REFERENCE = Path(__file__).resolve().parent.parent / "reference" / "ats_numpy.py"


@pytest.fixture(scope="session")
def ats_numpy() -> ModuleType:
    """tests/reference/ats_numpy.py."""
    spec = spec_from_file_location("ats_numpy", REFERENCE)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
