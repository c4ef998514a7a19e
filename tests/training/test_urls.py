"""Training on slides behind URLs: what was fetched once is not fetched again, also by a training that goes on."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wsi_attention.config import parse_recipe
from wsi_attention.errors import InputError
from wsi_attention.slide import fingerprint
from wsi_attention.slide.readers.remote.cache import FOLDER_VARIABLE
from wsi_attention.slide.readers.remote.objects import HEAD
from wsi_attention.slide.readers.remote.recent import RECENT
from wsi_attention.testing.slides import SlideSpec, write_slide
from wsi_attention.training.folder import FETCHED
from wsi_attention.training.run import train

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "slide"))

from servers import Server, serving

MODEL: dict[str, Any] = {
    "tile_size": 32,
    "tile_mpp": 0.5,
    "overview_mpp": 8.0,
    "draws": 6,
    "encoder_widths": [8, 16],
    "features": 16,
    "attention_widths": [8, 8],
}
RECIPE = parse_recipe({"method": "ats", "epochs": 4, "batch": 2, "validation_share": 0.5, "model": MODEL}, "recipe")


class Killed(BaseException):
    """Takes the place of a kill: nothing in the program catches it."""


class KilledAfter:
    """A listener that ends the training after an epoch."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def line(self, text: str) -> None:
        """Raises `Killed` at the line that ends the next epoch, which is lost."""
        if text.startswith(f"epoch {self._epoch + 1}:"):
            raise Killed

    def progress(self, stage: str, done: int, total: int) -> None:
        """Does nothing."""


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    rows = ["slide,label"]
    for seed in range(4):
        label = ("benign", "lesion")[seed % 2]
        spec = SlideSpec((768, 640), seed=seed, label=label, lesion_scale=8, quality=95)
        write_slide(folder / f"s{seed}.svs", spec)
        rows.append(f"s{seed},{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def server(slides: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(fingerprint, "WHOLE", 0)  # as for slides that are not small
    monkeypatch.setattr(fingerprint, "SAMPLE_BYTES", 256)
    with serving(slides) as running:
        yield running


def trained(server: Server, slides: Path, out: Path, epochs_before_a_kill: int | None = None) -> None:
    """Trains as a new process does, to the end or until it is killed."""
    RECENT.clear()
    urls = [server.url(f"s{seed}.svs") for seed in range(4)]
    listener = None if epochs_before_a_kill is None else KilledAfter(epochs_before_a_kill)
    train(slides / "labels.csv", urls, out, RECIPE, device="cpu", listener=listener)


def fetched(server: Server) -> list[tuple[str, int, int]]:
    """Each range that was sent: of which file, and its first and last byte; without the looks whether it is there."""
    found = []
    for request in server.requests:
        name = request.split()[1]
        found += [
            (name, int(first), int(last)) for first, last in re.findall(r"(\d+)-(\d+)", request.split("bytes=")[1])
        ]
    return [each for each in found if each[1:] != (0, HEAD - 1)]


def test_nothing_is_fetched_twice_and_a_training_that_goes_on_asks_only_for_what_is_new(
    server: Server, slides: Path, tmp_path: Path
) -> None:
    trained(server, slides, tmp_path / "whole")
    whole = fetched(server)
    assert len(set(whole)) == len(whole) > 20
    server.reset()
    with pytest.raises(Killed):
        trained(server, slides, tmp_path / "killed", 2)
    before = fetched(server)
    assert (tmp_path / "killed" / "training" / FETCHED).is_dir()
    trained(server, slides, tmp_path / "killed")
    both = fetched(server)
    assert len(before) <= len(both) <= len(whole) * 1.05
    assert len(set(both)) == len(both)
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert models[0] == models[1]


def test_a_finished_training_keeps_nothing_that_was_fetched(server: Server, slides: Path, tmp_path: Path) -> None:
    trained(server, slides, tmp_path / "model")
    assert not (tmp_path / "model" / "training" / FETCHED).exists()
    assert (tmp_path / "model" / "training" / "finished.json").is_file()


def test_a_folder_that_was_named_keeps_it_instead(
    server: Server, slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "mine"))
    trained(server, slides, tmp_path / "first")
    server.reset()
    trained(server, slides, tmp_path / "second")
    assert fetched(server) == []


def test_whole_slides_are_not_downloaded_unasked(server: Server, slides: Path, tmp_path: Path) -> None:
    server.manners.ranges = False
    with pytest.raises(InputError, match="4 of 4 slides"):
        trained(server, slides, tmp_path / "model")
    assert not list((tmp_path / "model").rglob("whole"))
