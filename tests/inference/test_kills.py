"""Killed at a random moment and started again: the results of an undisturbed run. Many more: `benchmarks/kills.py`."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("psutil")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`benchmarks/kills.py`, which finds its neighbours."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("kills", BENCHMARKS / "kills.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "kills", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("warm_processes")
def test_three_kills(kills: ModuleType, tmp_path: Path) -> None:
    random.seed(1)
    slides = kills.slide_folder(tmp_path / "slides", 4)
    whole = kills.Whole.run(lambda out: kills.classify(slides, out, "--what", "tiles"), kills.results, tmp_path)
    both = kills.disturbed(whole, 2, (kills.group, kills.parent))
    assert (both.landed, both.identical) == (2, 2), both.wrong
    one = kills.without_a_worker(whole, 1)
    assert (one.landed, one.identical) == (1, 1), one.wrong
