"""Results of a slide with a lesion in a known place, a server for them, and a real browser."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from wsi_attention.slide.slide import open_slide
from wsi_attention.viewer.content import Content
from wsi_attention.viewer.library import Library
from wsi_attention.viewer.server import Server

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lesion_slide import prediction_of, write_slide, write_state


def write_results(folder: Path) -> Path:
    """Writes a results folder of one slide with a lesion and one that failed."""
    slide = write_slide(folder / "slides/a.tif")
    with open_slide(slide) as opened:
        prediction = prediction_of(slide, opened.fingerprint)
    write_state(folder / "results", "a", slide, prediction)
    write_state(folder / "results", "b", folder / "slides/b.tif", None)
    return folder / "results"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder of one slide with a lesion and one that failed."""
    return write_results(tmp_path)


@pytest.fixture
def add_named(results: Path) -> Callable[[str, float], None]:
    """Adds a result under any name, with a probability, for the same slide."""

    def add(name: str, probability: float) -> None:
        slide = results.parent / "slides/a.tif"
        with open_slide(slide) as opened:
            made = prediction_of(slide, opened.fingerprint)
        shares = np.array([1 - probability, probability])
        write_state(results, name, slide, replace(made, probabilities=shares, notes=(f"note of {name}",)))

    return add


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Serves a results folder on a free port until the test ends."""
    with servers() as start:
        yield start


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests of a module that change nothing."""
    with servers() as start:
        yield start(write_results(tmp_path_factory.mktemp("served")))


@contextmanager
def servers() -> Iterator[Callable[..., Server]]:
    """Gives what serves a results folder on a free port; all of them end with it."""
    running: list[Server] = []

    def start(results: Path, *folders: Path) -> Server:
        server = Server(Content(Library(results, folders)))
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()
        server.content.library.close()


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((found for found in map(shutil.which, names) if found), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; tests that need it skip where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = _chromium()
    if program is None:
        pytest.skip("no Chromium here")
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=root)
        yield found
        found.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page whose test fails if the browser complains of anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, device_scale_factor=1)
    opened = context.new_page()
    trouble: list[str] = []
    opened.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on("dialog", lambda dialog: (trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    yield opened
    context.close()
    assert trouble == []
