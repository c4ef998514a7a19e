"""Runs with a feature store: the same numbers as without, nothing read twice, and no feature of another slide."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from wsi_attention.checkpoint import Classifier, build_model, load_model, save_model
from wsi_attention.cli.app import app
from wsi_attention.config import Recipe, parse_recipe
from wsi_attention.errors import InputError
from wsi_attention.feature_store import shards
from wsi_attention.feature_store.kind import kind_of
from wsi_attention.feature_store.store import MARK
from wsi_attention.inference import known
from wsi_attention.inference.predict import predict
from wsi_attention.model_card import ModelCard
from wsi_attention.nn.encoders import TileEncoder
from wsi_attention.nn.preprocess import Normalise
from wsi_attention.slide.slide import open_slide
from wsi_attention.structures import TileSet
from wsi_attention.testing.slides import SlideSpec, write_slide
from wsi_attention.tiles.source import SlideSource
from wsi_attention.training.run import train

MODEL: dict[str, Any] = {
    "tile_size": 32,
    "tile_mpp": 0.5,
    "overview_mpp": 8.0,
    "draws": 6,
    "encoder_widths": [8, 16],
    "features": 16,
    "attention_widths": [8, 8],
}
ZOOM: dict[str, Any] = {"view_mpps": [2.0], "cells_um": [64.0, 16.0]}
RECIPE: dict[str, Any] = {
    "epochs": 2,
    "batch": 2,
    "validation_share": 0.5,
    "model": {**MODEL, "encoder_frozen": True},
    "augmentation": {"symmetry": "none", "stain": 0.0, "brightness": 0.0},
}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    rows = ["slide,label"]
    for seed in range(4):
        label = ("benign", "lesion")[seed % 2]
        write_slide(folder / f"s{seed}.svs", SlideSpec(size=(640, 512), seed=seed, label=label, lesion_scale=8))
        rows.append(f"s{seed},{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Classifier]:
    """Two methods with the same encoder, and one of them with another."""
    folder, made = tmp_path_factory.mktemp("models"), {}
    for name, method, seed in (("ats", "ats", 0), ("zoom-in", "zoom-in", 1), ("other", "ats", 2)):
        arguments = MODEL | (ZOOM if method == "zoom-in" else {})
        torch.manual_seed(seed)
        model = build_model(method, 2, **arguments)
        if name == "zoom-in":
            model.encoder.load_state_dict(made["ats"].model.encoder.state_dict())
        save_model(folder / name, model, ModelCard(method=method, classes=("benign", "lesion"), arguments=arguments))
        made[name] = load_model(folder / name)
    return made


class Reads:
    """Counts the tiles at full resolution that slides are asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tiles = 0
        read = SlideSource.read

        def counted(source: SlideSource, tiles: TileSet) -> Any:
            self.tiles += len(tiles) if tiles.downsample == 1.0 else 0  # views of Zoom-In are coarser
            return read(source, tiles)

        monkeypatch.setattr(SlideSource, "read", counted)

    def since(self) -> int:
        """How many since the last call."""
        count, self.tiles = self.tiles, 0
        return count


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


@pytest.fixture(autouse=True)
def fresh_process() -> Iterator[None]:
    """Each test opens its stores as a new process does."""
    known._OPENED.clear()
    known._ONCE.said.clear()
    yield
    known._OPENED.clear()


def anew() -> None:
    known._OPENED.clear()


def test_a_second_prediction_reads_no_tile_and_is_equal(
    slides: Path, models: dict[str, Classifier], tmp_path: Path, reads: Reads
) -> None:
    plain = predict(slides / "s1.svs", models["ats"], device="cpu")
    first = predict(slides / "s1.svs", models["ats"], device="cpu", feature_store=tmp_path / "f")
    assert reads.since() == 12
    anew()
    second = predict(slides / "s1.svs", models["ats"], device="cpu", feature_store=tmp_path / "f")
    assert reads.since() == 0 and second.counters.tiles == 0
    for one in (first, second):
        assert one.probabilities.tobytes() == plain.probabilities.tobytes() and one.spread == plain.spread
        assert one.glimpses[0].weights.tobytes() == plain.glimpses[0].weights.tobytes()


def test_another_method_with_the_same_encoder_shares_and_another_encoder_does_not(
    slides: Path, models: dict[str, Classifier], tmp_path: Path, reads: Reads
) -> None:
    every = {"device": "cpu", "feature_store": tmp_path / "f"}
    predict(slides / "s1.svs", models["zoom-in"], exact=True, **every)
    assert reads.since() > 20
    anew()
    again = predict(slides / "s1.svs", models["zoom-in"], exact=True, **every)
    assert reads.since() == 0
    plain = predict(slides / "s1.svs", models["zoom-in"], exact=True, device="cpu")
    assert again.probabilities.tobytes() == plain.probabilities.tobytes()
    kinds = [
        kind_of(model.model.encoder, model.model.preprocess, model.config["options"]["encoder"], "32", "cpu")
        for model in models.values()
    ]
    assert kinds[0] == kinds[1] != kinds[2]
    reads.since()
    predict(slides / "s1.svs", models["other"], **every)
    assert reads.since() == 6
    assert len(list((tmp_path / "f").glob("*/about.json"))) == 2


def test_what_features_depend_on_makes_another_kind() -> None:
    options = TileEncoder(widths=(8, 8), features=8)
    encoder, colours = options.build(), Normalise()
    kinds = [kind_of(encoder, colours, options.as_dict(), "32", "cpu")]
    kinds.append(kind_of(encoder, colours, options.as_dict(), "bf16", "cpu"))
    kinds.append(kind_of(encoder, Normalise((0.5,) * 3, (0.5,) * 3), options.as_dict(), "32", "cpu"))
    kinds.append(kind_of(encoder, colours, {**options.as_dict(), "pool": "max"}, "32", "cpu"))
    with torch.no_grad():
        next(iter(encoder.parameters())).mul_(1.001)
    kinds.append(kind_of(encoder, colours, options.as_dict(), "32", "cpu"))
    assert len({kind.key for kind in kinds}) == len(kinds)
    frozen = TileEncoder(widths=(8, 8), features=8, frozen=True)
    same = frozen.build()
    same.load_state_dict(encoder.state_dict())
    assert kind_of(same, colours, frozen.as_dict(), "32", "cpu") == kinds[-1]


def test_a_corrected_slide_is_another_slide(
    slides: Path, models: dict[str, Classifier], tmp_path: Path, reads: Reads
) -> None:
    path = tmp_path / "s.svs"
    shutil.copy(slides / "s1.svs", path)
    with path.open("ab") as file:
        file.write(bytes(3_000_000))
    predict(path, models["ats"], device="cpu", feature_store=tmp_path / "f")
    reads.since()
    with open_slide(path) as slide:
        before = slide.fingerprint, slide.identity
    state = path.stat()
    with path.open("r+b") as file:
        file.seek(state.st_size - 300_001)
        file.write(b"x")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with open_slide(path) as slide:
        assert slide.fingerprint == before[0] and slide.identity != before[1]
    predict(path, models["ats"], device="cpu", feature_store=tmp_path / "f")
    assert reads.since() == 6
    assert open_slide(open_slide(slides / "s1.svs").read((0, 0), 0, (64, 64))).identity == ""


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_classify_keeps_features_in_its_workers(slides: Path, models: dict[str, Classifier], tmp_path: Path) -> None:
    command = ["classify", "-i", str(slides), "-m", str(models["ats"].folder), "--device", "cpu"]
    kept = ["--feature-store", str(tmp_path / "f"), "-n", "2"]
    for name, more in (("plain", ["--in-process"]), ("first", kept), ("second", kept)):
        ran = CliRunner().invoke(app, [*command, "-o", str(tmp_path / name), "--what", "tiles", *more])
        assert ran.exit_code == 0, ran.output
    assert rows(tmp_path / "plain") == rows(tmp_path / "first") == rows(tmp_path / "second")
    tiles = {
        name: [json.loads(path.read_text())["record"]["counters"]["tiles"] for path in sorted(found)]
        for name in ("first", "second")
        if (found := list((tmp_path / name / "states").rglob("*.json")))
    }
    assert tiles == {"first": [6] * 4, "second": [0] * 4}


def test_classify_says_once_why_a_store_is_not_used(
    slides: Path, models: dict[str, Classifier], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = ["classify", "-i", str(slides), "-m", str(models["ats"].folder), "--device", "cpu", "--what", "tiles"]
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / MARK).write_text('{"format": 99}')
    ran = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "a"), "--feature-store", str(tmp_path / "f")])
    assert ran.exit_code == 0
    assert [record.getMessage().count("format 99") for record in caplog.records] == [1]
    ran = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "b"), "--feature-store", str(slides)])
    assert isinstance(ran.exception, InputError) and "holds other files" in str(ran.exception)


class Lines:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, stage: str, done: int, total: int) -> None:
        pass


def trained(slides: Path, output: Path, recipe: dict[str, Any] = RECIPE, **more: Any) -> tuple[dict[str, Any], Lines]:
    lines = Lines()
    told: Recipe = parse_recipe({"method": "ats", **recipe}, "test")
    train(slides / "labels.csv", slides, output, told, device="cpu", listener=lines, **more)
    return load_file(output / "model.safetensors"), lines


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_second_training_reads_no_tile_and_gives_the_same_weights(slides: Path, tmp_path: Path, reads: Reads) -> None:
    plain, _ = trained(slides, tmp_path / "plain" / "model", feature_store_gb=0)
    everything = reads.since()
    assert everything == 2 * 4 * 6 and not (tmp_path / "plain" / "features").exists()
    first, lines = trained(slides, tmp_path / "first")
    assert 0 < reads.since() < everything  # the first epoch reads; the second draws some of the same tiles
    assert (tmp_path / "features" / MARK).is_file() and not any("features" in line for line in lines.lines)
    second, _ = trained(slides, tmp_path / "second")
    assert reads.since() == 0
    assert same(first, second)
    assert all(torch.allclose(plain[name], first[name], atol=1e-5) for name in plain)


def test_mirrored_slides_have_features_of_their_own(slides: Path, tmp_path: Path, reads: Reads) -> None:
    recipe = {**RECIPE, "augmentation": {"symmetry": "dihedral", "stain": 0.0, "brightness": 0.0}}
    plain, _ = trained(slides, tmp_path / "plain" / "model", recipe, feature_store_gb=0)
    first, _ = trained(slides, tmp_path / "first", recipe)
    reads.since()
    second, _ = trained(slides, tmp_path / "second", recipe)
    assert reads.since() == 0
    assert same(first, second) and all(torch.allclose(plain[name], first[name], atol=1e-5) for name in plain)


def test_changed_colours_bypass_the_store_with_one_note(slides: Path, tmp_path: Path, reads: Reads) -> None:
    recipe = {**RECIPE, "augmentation": {"symmetry": "none", "stain": 0.1, "brightness": 0.0}}
    for name, expected in (("first", range(25, 49)), ("second", [24])):
        _, lines = trained(slides, tmp_path / name, recipe)
        assert sum("changes the colours" in line for line in lines.lines) == 1
        assert reads.since() in expected  # training always reads its 2 × 2 × 6 tiles, validation once


def test_an_encoder_that_learns_keeps_nothing(slides: Path, tmp_path: Path) -> None:
    recipe = {**RECIPE, "model": MODEL}
    _, lines = trained(slides, tmp_path / "model", recipe, feature_store=tmp_path / "f")
    assert sum("the encoder learns" in line for line in lines.lines) == 1 and not (tmp_path / "f").exists()


def test_a_training_goes_on_without_a_store_it_cannot_use(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = trained(slides, tmp_path / "plain" / "model", feature_store_gb=0)
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "TCGA.h5").write_bytes(b"")
    beside, lines = trained(slides, tmp_path / "beside")
    assert same(plain, beside) and sum("holds other files" in line for line in lines.lines) == 1
    with pytest.raises(InputError, match="holds other files"):
        trained(slides, tmp_path / "asked", feature_store=tmp_path / "features")

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shards, "write_bytes", full)
    _, lines = trained(slides, tmp_path / "full", feature_store=tmp_path / "f")
    assert sum("the disk is full" in line for line in lines.lines) == 1
    assert not list((tmp_path / "f").rglob("*.zarr.zip"))


def turns_kept(store: Path) -> list[int]:
    return sorted(json.loads(path.read_text()).get("turns", 1) for path in store.glob("*/about.json"))


def test_training_sees_a_tile_in_one_turn_and_prediction_in_all(slides: Path, tmp_path: Path) -> None:
    made = []
    for turns in (1, 8):
        recipe = parse_recipe({**RECIPE, "model": {**RECIPE["model"], "encoder_turns": turns}}, "recipe")
        folder = tmp_path / f"model-{turns}"
        train(slides / "labels.csv", slides, folder, recipe, device="cpu", feature_store=tmp_path / "learnt")
        made.append(load_model(folder))
    one, eight = (load_file(tmp_path / f"model-{turns}" / "model.safetensors") for turns in (1, 8))
    assert one.keys() == eight.keys() and all(torch.equal(one[name], eight[name]) for name in one)
    assert turns_kept(tmp_path / "learnt") == [1]
    kept: dict[str, Any] = {"device": "cpu", "feature_store": tmp_path / "seen"}
    found = [predict(slides / "s1.svs", model, **kept) for model in made]
    assert found[0].counters.tiles == found[1].counters.tiles > 0
    assert abs(found[0].probabilities - found[1].probabilities).max() > 1e-6
    assert turns_kept(tmp_path / "seen") == [1, 8]
    anew()
    again = predict(slides / "s1.svs", made[1], **kept)
    assert again.counters.tiles == 0 and again.probabilities.tobytes() == found[1].probabilities.tobytes()
