"""The fuzzer's modules, found from its tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sound slides that mutants are made from."""
    from mutants import write_sound

    folder = tmp_path_factory.mktemp("fuzz") / "sound"
    write_sound(folder)
    return folder
