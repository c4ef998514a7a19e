"""Fixtures every room shares."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "support"))

LONGEST = (
    *("test_readme", "test_isolation", "test_mutants", "test_kills", "test_resume", "test_cluster_failures"),
    *("test_train_processes", "test_outside_package", "test_python_step", "test_devices_devices"),
)
"""Files whose tests take longest: they begin first, so that no processor waits for one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)


def pytest_collection_finish() -> None:
    """What collecting has made stays to the end: no collection of garbage goes through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_nursery() -> Iterator[None]:
    """What starts worker processes is started once for all tests, when the first batch wants it."""
    from wsi_attention.inference.isolation import nursery

    with nursery.kept():
        yield


@pytest.fixture(scope="module", autouse=True)
def own_environment() -> Iterator[None]:
    """What libraries set in the environment, as dask does for its workers, is gone after a module of tests."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() | before:
        if os.environ.get(name) != before.get(name) and not name.startswith("PYTEST_"):
            os.environ.pop(name, None)
            os.environ |= {name: before[name]} if name in before else {}


@pytest.fixture(scope="session", autouse=True)
def torch_computes() -> None:
    """Where OpenVINO is installed, "auto" does not try it on every model of every test; `test_engine.py` does."""
    os.environ["WSI_ATTENTION_ENGINE"] = "torch"


@pytest.fixture
def warm_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python processes that a test starts through others' code are forked from a warm one: see `warm_python`."""
    import warm_python

    monkeypatch.setattr(subprocess, "Popen", warm_python.Popen)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real slides beside the checkout; tests that need it skip where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real slides are not at hand (../shared/data)")
    return folder


TILES: dict[str, Any] = {"tile_mpp": 0.5, "overview_mpp": 4.0}
ENCODER: dict[str, Any] = {"encoder_widths": (8, 8), "features": 8}
METHODS: dict[str, dict[str, Any]] = {
    "ats": {**TILES, **ENCODER, "tile_size": 32, "draws": 6, "attention_widths": (8, 8)},
    "zoom-in": {
        "tile_size": 16,
        "tile_mpp": 0.5,
        "overview_mpp": 8.0,
        "view_mpps": (2.0,),
        "cells_um": (64.0, 16.0),
        "draws": 6,
        "attention_widths": (8, 8),
        **ENCODER,
    },
    "tnet": {**TILES, **ENCODER, "base": 32, "grid": 3, "overlap": 0.5, "attended": (2, 2), "location_width": 8},
    "rams-trans": {**TILES, "size": 64, "patch": 8, "dim": 24, "depth": 3, "heads": 3},
    "grow": {**TILES, **ENCODER, "tile_size": 32, "draws": 5, "growth": 3, "attention_widths": (8, 8), "hidden": 8},
    "oaa": {"overview_mpp": 4.0, "trunk_widths": (8, 8), "context": 3, "head_widths": (8,)},
    "oaa-plus": {"overview_mpp": 4.0, "trunk_widths": (8, 8), "context": 3, "head_widths": (8,)},
    "mil": {**TILES, **ENCODER, "tile_size": 32, "hidden": 8},
    "trt": {**TILES, **ENCODER, "size": 48, "patch": 8, "dim": 24, "depth": 4, "budget": 8, "tile_size": 32},
}


@pytest.fixture(scope="session")
def small_arguments() -> dict[str, dict[str, Any]]:
    """Arguments of every method's builder for a model that runs in no time on slides of a few hundred pixels."""
    return METHODS


@pytest.fixture
def small_model(tmp_path: Path) -> Callable[[str], Any]:
    """A model of the named method with random weights, loaded from a folder."""

    def loaded(method: str) -> Any:
        import torch

        from wsi_attention.checkpoint import build_model, load_model, save_model
        from wsi_attention.model_card import ModelCard

        arguments = json.loads(json.dumps(METHODS[method]))
        torch.manual_seed(0)
        card = ModelCard(method=method, classes=("benign", "lesion/in situ"), arguments=arguments)
        save_model(tmp_path / f"model-{method}", build_model(method, 2, **arguments), card)
        return load_model(tmp_path / f"model-{method}")

    return loaded
