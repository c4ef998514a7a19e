"""What training accumulates: in the slide's own frame, by gate and warm-up, and the same after any number of kills."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import warm_python
from torch import Tensor, nn

from wsi_attention.attention.cam import attention_maps
from wsi_attention.checkpoint import load_model
from wsi_attention.config import Recipe
from wsi_attention.errors import InputError
from wsi_attention.geometry import Grid
from wsi_attention.methods.ats import ats
from wsi_attention.methods.oaa.model import AccumulatedAttention, OaaOptions
from wsi_attention.methods.oaa.trunks import Trunk
from wsi_attention.methods.zoom_in.model import zoom_in
from wsi_attention.nn.preprocess import Normalise
from wsi_attention.protocols import contract_of
from wsi_attention.structures import AttentionMap, Glimpse, Output, TileSet
from wsi_attention.testing.models import FailingSource
from wsi_attention.testing.slides import SlideSpec, write_slide
from wsi_attention.tiles.tensors import TensorSource
from wsi_attention.training import run
from wsi_attention.training.accumulation import Accumulation, begin, packed, unpacked
from wsi_attention.training.augment import AugmentedSource, Change, Symmetry
from wsi_attention.training.data import Example
from wsi_attention.training.map_store import STORE, completed, open_maps, write_maps

SYMMETRIES = [Symmetry(*flags) for flags in product((False, True), repeat=3)]
CLASSES = ("benign", "lesion")


def example(label: int = 1, key: str = "k") -> Example:
    return Example(f"name-{key}", label, key, lambda: None, seen={"mpp": key})  # type: ignore[arg-type, return-value]


class Cells(Trunk):
    """Equivariant under every flip and turn: the mean of each cell's pixels, a channel a class."""

    stride = 4

    def forward(self, view: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(view, 4)[:, :2]


def equivariant() -> AccumulatedAttention:
    plain = Normalise((0.5,) * 3, (0.25,) * 3)
    return AccumulatedAttention(Cells(), nn.Identity(), plain, OaaOptions(overview_mpp=2.0)).eval()


def canvas(height: int = 83, width: int = 121) -> Tensor:
    return torch.randint(0, 255, (1, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def shown(source: Any, symmetry: Symmetry, model: nn.Module) -> AugmentedSource:
    return AugmentedSource(source, Change(symmetry, None), 2.0, contract_of(model).map_stride)


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=str)
def test_a_turned_slide_accumulates_what_the_plain_one_does(canvas_source: Any, symmetry: Symmetry) -> None:
    """OAA page (h), flip consistency: sizes fit neither the cell nor the overview's pixel."""
    mask = torch.zeros(83, 121, dtype=torch.bool)
    mask[10:70, 5:90] = True
    source, model, found = canvas_source(canvas(), mask), equivariant(), []
    for turn in (Symmetry(), symmetry):
        memory = Accumulation("maximum", CLASSES, 9)
        seen = shown(source, turn, model)
        output = replace(model(seen), logits=torch.tensor([[0.0, 1.0]]))
        memory.add(example(), seen, output, epoch=2)
        found.append(memory.store().get("name-k", "lesion"))
    plain, turned = found
    assert plain.grid == turned.grid == Grid.covering((121, 83), (8.0, 8.0))
    assert (turned.visits == plain.visits).all() and (plain.visits == 1).all()
    np.testing.assert_array_equal(turned.values, plain.values)
    tissue = source.tissue(plain.grid)[0]
    assert (plain.values[~tissue.numpy()] == 0).all()
    class_maps = model(shown(source, Symmetry(), model)).terms["class_maps"]
    expected = attention_maps(class_maps.masked_fill(~tissue, -torch.inf))[0, 1]
    np.testing.assert_allclose(plain.values, expected.numpy(), atol=0.5 / 255 + 1e-6)


def maps_of(values: list[list[float]], logits: list[float]) -> Output:
    """An output with a map of 1 × 3 cells for each class."""
    grid = Grid(1, 3, (4.0, 4.0))
    named = tuple(AttentionMap(np.array([row], np.float32), grid, f"class-{c}") for c, row in enumerate(values))
    return Output(torch.tensor([logits]), ((),), (named,), torch.zeros(1))


@pytest.fixture
def strip(canvas_source: Any) -> AugmentedSource:
    return AugmentedSource(canvas_source(torch.zeros(1, 3, 4, 12)), Change(Symmetry(), None), 1.0, 4)


RIGHT, WRONG = [0.0, 1.0], [1.0, 0.0]


def values_of(memory: Accumulation, label: int = 1) -> list[float]:
    return [round(255 * value) for value in memory.found["k"].decoded[label].flatten().tolist()]


def test_warm_up_gate_and_maximum(strip: AugmentedSource) -> None:
    """Nothing in the first epoch; a wrong prediction changes no bit; the absent class is never written."""
    memory = Accumulation("maximum", CLASSES, 9)
    first, second = maps_of([[1, 1, 1], [0.2, 0.8, np.nan]], RIGHT), maps_of([[1, 1, 1], [1, 0.4, 0]], RIGHT)
    memory.add(example(), strip, first, epoch=1)
    assert values_of(memory) == [0, 0, 0] and memory.store().slides == {}
    memory.add(example(), strip, first, epoch=2)
    assert values_of(memory) == [51, 204, 0]
    before = memory.found["k"]
    memory.add(example(), strip, maps_of([[1, 1, 1], [1, 1, 1]], WRONG), epoch=3)
    assert torch.equal(memory.found["k"].values, before.values)
    assert torch.equal(memory.found["k"].updates, before.updates)
    memory.add(example(), strip, second, epoch=4)
    assert values_of(memory) == [255, 204, 0]
    assert values_of(memory, 0) == [0, 0, 0]
    assert memory.found["k"].updates.flatten().tolist() == [0, 2]


def test_mean_is_the_mean_of_accepted_maps(strip: AugmentedSource) -> None:
    memory = Accumulation("mean", CLASSES, 9)
    for row, logits in (([0.1, 0.9, 0.3], RIGHT), ([1.0, 1.0, 1.0], WRONG), ([0.2, 0.0, 0.6], RIGHT)):
        memory.add(example(), strip, maps_of([[0, 0, 0], row], logits), epoch=3)
    torch.testing.assert_close(memory.found["k"].decoded[1], torch.tensor([[0.15, 0.45, 0.45]]))


def test_last_epoch_and_an_early_end_leave_no_label_without_a_map(strip: AugmentedSource) -> None:
    wrong = maps_of([[1, 1, 1], [0, 0.4, 0]], WRONG)
    planned, early = Accumulation("maximum", CLASSES, 5), Accumulation("maximum", CLASSES, 9)
    for memory in (planned, early):
        memory.add(example(), strip, maps_of([[1, 1, 1], [1, 0, 0]], WRONG), epoch=4)
        memory.add(example(), strip, wrong, epoch=5)
    assert early.store().slides == {}
    for store in (planned.store(), completed(early.store()), completed(planned.store())):
        found = store.get("k", "lesion")
        assert [round(255 * value) for value in found.values[0].tolist()] == [0, 102, 0]
        assert (found.visits == 1).all()
        assert (store.get("k", "benign").visits == 0).all()


def test_a_silent_map_counts_as_a_map_too(strip: AugmentedSource) -> None:
    memory = Accumulation("maximum", CLASSES, 9)
    memory.add(example(), strip, maps_of([[1, 1, 1], [0, 0, 0]], WRONG), epoch=2)
    assert (completed(memory.store()).get("k", "lesion").visits == 1).all()


def glimpsed(places: list[tuple[int, int]], evidence: list[list[float]], valid: list[bool]) -> Output:
    tiles = TileSet(np.array(places, np.int64), (4, 4), 2.0)
    n = len(places)
    glimpse = Glimpse(tiles, np.full(n, 1 / n), np.full(n, 0.1), np.array(valid))
    return Output(torch.tensor([WRONG]), ((glimpse,),), ((),), torch.zeros(1), tile_evidence=torch.tensor([evidence]))


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=str)
def test_glimpses_become_coverage_with_visits(canvas_source: Any, symmetry: Symmetry) -> None:
    """Cells of a tile's size; a failed tile is no visit; seen without evidence is not unseen."""
    source = AugmentedSource(canvas_source(torch.zeros(1, 3, 16, 32)), Change(symmetry, None), 2.0)
    memory = Accumulation("maximum", CLASSES, 9)
    centres = np.array([[4.0, 4.0], [20.0, 12.0], [4.0, 4.0], [28.0, 4.0]])
    corners = [(int(x), int(y)) for x, y in source.shown_points(centres) - 4]
    looks = glimpsed(corners, [[0.9, 0.2], [0.4, 0.6], [0.2, 0.4], [0.0, 1.0]], [True, True, True, False])
    memory.add(example(), source, looks, epoch=1)
    assert memory.store().slides == {}
    memory.add(example(), source, looks, epoch=2)
    memory.add(example(), source, glimpsed(corners[1:2], [[0.0, 0.0]], [True]), epoch=3)
    found = memory.store().get("k", "lesion")
    assert memory.store().kind == "glimpses"
    assert found.grid == Grid(2, 4, (8.0, 8.0))
    assert found.visits.tolist() == [[2, 0, 0, 0], [0, 0, 2, 0]]
    np.testing.assert_allclose(found.values, [[0.4, 0, 0, 0], [0, 0, 0.6, 0]], atol=0.5 / 255)
    np.testing.assert_allclose(memory.store().get("k", "benign").values[0, 0], 0.9, atol=0.5 / 255)


def test_ats_tells_the_evidence_of_its_tiles(canvas_source: Any) -> None:
    torch.manual_seed(0)
    model = ats(2, tile_size=16, tile_mpp=1.0, overview_mpp=4.0, draws=4, attention_widths=(8, 8), features=16).train()
    source = AugmentedSource(canvas_source(canvas(96, 128)), Change(SYMMETRIES[3], None), 4.0)
    memory, drawn = Accumulation("maximum", CLASSES, 9), 0
    for epoch in (2, 3, 4):
        output = model(source, torch.Generator().manual_seed(epoch))
        evidence = output.tile_evidence
        assert evidence.shape == (1, 4, 2) and not evidence.requires_grad
        torch.testing.assert_close(evidence.sum(-1), torch.ones(1, 4))
        drawn += len(output.glimpses[0][0].tiles)
        memory.add(example(), source, output, epoch)
    found = memory.store().get("k", "lesion")
    assert found.visits.sum() == drawn
    assert (found.values[found.visits > 0] > 0).all() and (found.values[found.visits == 0] == 0).all()


@pytest.mark.parametrize("failed", [(), (1,)])
def test_zoom_in_tells_the_evidence_of_each_tile_it_drew(failed: tuple[int, ...]) -> None:
    """What the last glimpse's tiles give alone, in its order, though a tile may be drawn more than once."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"tile_size": 16, "tile_mpp": 1.0, "overview_mpp": 8.0, "view_mpps": (4.0,)}
    model = zoom_in(2, **sizes, cells_um=(64.0, 16.0), draws=12, features=16, attention_widths=(8, 8)).train()
    source = FailingSource(canvas(136, 200), failed)
    output = model(source, torch.Generator().manual_seed(0))
    glimpse, evidence = output.glimpses[0][-1], output.tile_evidence
    assert evidence.shape == (1, len(glimpse.tiles), 2)
    pixels = TensorSource(canvas(136, 200)).read(glimpse.tiles).pixels[0]
    with torch.no_grad():
        alone = model.classifier(model.encoder(model.preprocess(pixels))).softmax(-1)
    valid = torch.from_numpy(glimpse.valid)
    assert bool(valid.all()) == (not failed)
    torch.testing.assert_close(evidence[0][valid], alone[valid], atol=1e-4, rtol=1e-4)
    memory = Accumulation("maximum", CLASSES, 9)
    memory.add(example(), AugmentedSource(source, Change(Symmetry(), None), 8.0), output, 2)
    assert memory.store().get("k", "lesion").visits.sum() == int(valid.sum())


def test_a_model_without_maps_or_evidence_is_told_so(strip: AugmentedSource) -> None:
    nothing = Output(torch.zeros(1, 2), ((),), ((),), torch.zeros(1))
    with pytest.raises(InputError, match='accumulate = "maximum": this model gives no class maps and no evidence'):
        Accumulation("maximum", CLASSES, 9).add(example(), strip, nothing, 2)
    with pytest.raises(InputError, match="this model gives no class maps to average"):
        Accumulation("mean", CLASSES, 9).add(example(), strip, glimpsed([(0, 0)], [[0, 1]], [True]), 2)


class TwoOf:
    """Rank 0 of 2; the other one plays a recorded part."""

    world_size, device = 2, torch.device("cpu")

    def __init__(self, other: list[Tensor]) -> None:
        self.other = other

    def all_reduce(self, values: Tensor, reduce_op: str) -> Tensor:
        return values + self.other.pop(0)


def test_processes_share_what_each_took_in(strip: AugmentedSource) -> None:
    mine, yours = Accumulation("maximum", CLASSES, 9), Accumulation("maximum", CLASSES, 9)
    mine.add(example(key="a"), strip, maps_of([[0, 0, 0], [0.2, 1, 0]], RIGHT), 2)
    yours.add(example(key="b"), strip, maps_of([[0, 0, 0], [1, 0.6, 0]], WRONG), 2)
    length = float(len(packed(yours.found["b"])))
    part = [torch.tensor([[0.0, 0.0], [1.0, length]]).double(), torch.zeros(len(packed(mine.found["a"]))).double()]
    part += [packed(yours.found["b"]), torch.zeros(1)]
    mine.share(TwoOf(part), [example(key="a"), example(key="b")])  # type: ignore[arg-type]
    for one, other in ((mine.found["b"], yours.found["b"]), (mine.found["a"], mine.found["a"])):
        again = unpacked(packed(one), one.name, 2, one.values.dtype)
        for found in (one, again):
            assert found.grid == other.grid and found.name == other.name and found.waiting == other.waiting
            assert torch.equal(found.values, other.values) and torch.equal(found.updates, other.updates)
            assert (found.pending is None) == (other.pending is None)
    assert {key: one.seen["mpp"] for key, one in mine.found.items()} == {"a": "a", "b": "b"}
    assert mine.found["b"].pending is not None and torch.equal(mine.found["b"].pending, yours.found["b"].pending)  # type: ignore[arg-type]


RUNNER = """
import os, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent / "support")]
from test_accumulation import trained
import torch, wsi_attention.training.run, lightning_fabric, zarr, tiffslide
slides, output = Path(sys.argv[2]), Path(sys.argv[3])
while True:
    pid = os.fork()
    if pid == 0:
        trained(slides, output)
        os._exit(0)
    print(pid, flush=True)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
        break
"""


def recipe(**changes: Any) -> Recipe:
    small = {"overview_mpp": 16.0, "trunk_widths": [8, 8], "head_widths": [8], "context": 3}
    whole = Recipe(method="oaa", model=small, epochs=6, patience=50, batch=2, validation_share=0.34)
    return replace(whole, **{"accumulate": "maximum", **changes})


def trained(slides: Path, output: Path, **changes: Any) -> None:
    run.train(slides / "labels.csv", [slides], output, recipe(**changes), device="cpu")


@pytest.fixture(scope="module")
def slide_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    lines = ["slide,label"]
    for seed in range(6):
        write_slide(folder / f"s{seed}.svs", SlideSpec(size=(512, 480), seed=seed, label=CLASSES[seed % 2]))
        lines.append(f"s{seed},{CLASSES[seed % 2]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def straight(slide_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained in a process of its own, as those that are killed are: other tests change how torch sums here."""
    output = tmp_path_factory.mktemp("model") / "straight"
    assert not list(killed(slide_set, output, kills=0, seed=0))
    return output


def test_training_leaves_a_store_of_every_training_slide_and_nothing_else(slide_set: Path, straight: Path) -> None:
    store = open_maps(straight)
    assert store.kind == "maps" and store.classes == CLASSES
    rows = [row.split(",") for row in (straight / "training" / "split.csv").read_text().splitlines()[1:]]
    assert sorted(store.slides.values()) == sorted(row[0] for row in rows if row[-1] == "train")
    for name, label in ((row[0], row[1]) for row in rows if row[-1] == "train"):
        assert (store.get(name, label).visits > 0).all()
        assert sum(bool((store.get(name, other).visits > 0).any()) for other in CLASSES) == 1
    names = sorted(path.name for path in (straight / "training").iterdir())
    assert names == ["finished.json", "learning_curve.svg", "metrics.csv", "split.csv"]


def killed(slides: Path, output: Path, kills: int, seed: int) -> Iterator[int]:
    """Trains in processes that are killed at random moments, half of them around the writing of an epoch."""
    chance, threads = random.Random(seed), {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-c", RUNNER, str(Path(__file__).parent), str(slides), str(output)]
    state = output / "training" / "state.safetensors"
    with warm_python.Popen(command, env=os.environ | threads, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        for number, line in enumerate(runner.stdout):
            if number < kills:
                if number % 2 == 0:
                    wait_for_change(state)
                time.sleep(chance.uniform(0.0, 0.2 if number % 2 == 0 else 0.8))
                with suppress(ProcessLookupError):
                    os.kill(int(line), signal.SIGKILL)
                yield number
    assert runner.returncode == 0


def wait_for_change(path: Path, seconds: float = 120.0) -> None:
    def stamp() -> int:
        with suppress(FileNotFoundError):
            return path.stat().st_mtime_ns
        return 0

    before, deadline = stamp(), time.monotonic() + seconds
    while stamp() in (before, 0) and time.monotonic() < deadline and not (path.parent / "finished.json").exists():
        time.sleep(0.01)


def check_kills(slides: Path, straight: Path, output: Path, kills: int, seed: int) -> int:
    """Every file with a final name is whole after every kill; at the end the bytes are those of the straight run."""
    seen = 0
    for _ in killed(slides, output, kills, seed):
        for path in (*output.glob("training/attention_maps-*.zarr.zip"), *output.glob(STORE)):
            try:
                open_maps(path)
            except InputError:
                assert not path.exists()  # the next process has replaced it since it was listed
            seen += 1
    for name in (STORE, "model.safetensors", "training/metrics.csv"):
        assert (output / name).read_bytes() == (straight / name).read_bytes(), name
    left = sorted(path.name for path in (output / "training").iterdir())
    assert left == ["finished.json", "learning_curve.svg", "metrics.csv", "split.csv"]
    return seen


def test_killed_at_random_moments_it_ends_with_the_same_store(slide_set: Path, straight: Path, tmp_path: Path) -> None:
    assert check_kills(slide_set, straight, tmp_path / "killed", kills=3, seed=0) > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_many_kills(slide_set: Path, straight: Path, tmp_path: Path, seed: int) -> None:
    assert check_kills(slide_set, straight, tmp_path / "killed", kills=25, seed=seed) > 0


def test_oaa_plus_trains_on_the_store_and_a_new_training_removes_it(
    slide_set: Path, straight: Path, tmp_path: Path
) -> None:
    """Other maps are another training; the store belongs to the training that made it."""
    again = tmp_path / "again"
    shutil.copytree(straight, again)
    trained(slide_set, tmp_path / "plus", method="oaa-plus", accumulate="none", maps=str(again), epochs=1)
    assert load_model(tmp_path / "plus").model.options.sets == "image"
    assert not (tmp_path / "plus" / STORE).exists()
    run.train(
        slide_set / "labels.csv",
        [slide_set],
        again,
        recipe(epochs=1, accumulate="none"),
        device="cpu",
        earlier="replace",
    )
    assert load_model(again).config["recipe"]["epochs"] == 1
    assert not (again / STORE).exists()
    with pytest.raises(InputError, match="no maps were accumulated there"):
        trained(slide_set, tmp_path / "plus", method="oaa-plus", accumulate="none", maps=str(again), epochs=1)
    write_maps(again / STORE, replace(open_maps(straight), rule="mean"))
    with pytest.raises(InputError, match="holds a training with a different maps"):
        trained(slide_set, tmp_path / "plus", method="oaa-plus", accumulate="none", maps=str(again), epochs=1)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ("s0,benign\ns2,benign", "training needs two classes or more; found only 'benign'"),
        ("s0,benign\ns2,benign\ns1,lesion", "class 'lesion' has one slide; training and validation need one each"),
    ],
)
def test_labels_that_teach_nothing_are_refused(slide_set: Path, tmp_path: Path, rows: str, text: str) -> None:
    (tmp_path / "labels.csv").write_text(f"slide,label\n{rows}\n")
    with pytest.raises(InputError, match=text):
        run.train(tmp_path / "labels.csv", [slide_set], tmp_path / "m", recipe(), device="cpu")
    assert not (tmp_path / "m").exists()


def test_a_lost_file_is_named(slide_set: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"attention_maps-3\.zarr\.zip does not exist"):
        begin("maximum", CLASSES, 9, tmp_path, 3)
    assert begin("none", CLASSES, 9, tmp_path, 3) is None
