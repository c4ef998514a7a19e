"""OAA+ learns what OAA accumulated: the maps are turned as the slide is, and what does not fit is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from wsi_attention.config import Augmentation, Optimiser, Recipe
from wsi_attention.devices import fabric_on
from wsi_attention.errors import InputError
from wsi_attention.methods.ats import ats
from wsi_attention.methods.oaa.model import oaa, oaa_plus
from wsi_attention.training.accumulation import Accumulation
from wsi_attention.training.augment import AugmentedSource, Change, Symmetry
from wsi_attention.training.data import Example
from wsi_attention.training.listener import Silent
from wsi_attention.training.loop import Job, fit
from wsi_attention.training.map_store import STORE, MapStore, completed, write_maps
from wsi_attention.training.maps import Guide, guide_for
from wsi_attention.training.state import TrainingState, copied
from wsi_attention.training.validation import validate

SYMMETRIES = [Symmetry(*flags) for flags in product((False, True), repeat=3)]
CLASSES = ("plain", "spotted")
SMALL: dict[str, Any] = {"overview_mpp": 4.0, "trunk_widths": (8, 16), "context": 3, "head_widths": (16,)}
RECIPE = Recipe(
    method="oaa", epochs=10, patience=100, batch=2, seed=1, optimiser=Optimiser(learning_rate=1e-2, warmup_epochs=0.5)
)


def built(build: Callable[..., nn.Module], **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build(2, **{**SMALL, **options})


def trained(model: nn.Module, train: tuple[Example, ...], validation: tuple[Example, ...], **kept: Any) -> nn.Module:
    state = TrainingState({"all": "x"}, "32", {name: copied(value) for name, value in model.state_dict().items()})
    recipe = replace(RECIPE, augmentation=Augmentation(brightness=0.02))
    job = Job(train, validation, recipe, (1.0, 1.0), lambda saved: None, Silent(), **kept)
    fit(fabric_on("cpu", 1, "32"), model, job, state)
    return model


@pytest.fixture(scope="module")
def module_examples() -> tuple[Example, ...]:
    from contextlib import nullcontext

    from wsi_attention.tiles.tensors import TensorSource

    found = []
    for seed in range(16):
        generator = torch.Generator().manual_seed(seed)
        canvas = 200 + torch.randint(-20, 20, (1, 3, 120, 104), generator=generator)
        if seed % 2:
            x, y = (int(v) for v in torch.randint(0, 80, (2,), generator=generator))
            canvas[..., y : y + 24, x : x + 24] -= torch.tensor([150, 150, 60]).view(3, 1, 1)
        source = TensorSource(canvas.clamp(0, 255).to(torch.uint8))
        found.append(Example(f"s{seed}", seed % 2, f"key{seed}", lambda source=source: nullcontext(source)))
    return tuple(found)


@pytest.fixture(scope="module")
def accumulated(module_examples: tuple[Example, ...]) -> MapStore:
    memory = Accumulation("maximum", CLASSES, RECIPE.epochs)
    model = built(oaa, pool="top", objective="cross-entropy")
    trained(model, module_examples[:12], module_examples[12:], accumulation=memory)
    return completed(memory.store())


def where_spotted(example: Example, shape: tuple[int, int]) -> np.ndarray:
    with example.open() as source:
        dark = source.overview(8.0)[0, 0].float() < 150
    return nn.functional.max_pool2d(dark.float()[None, None], 2, ceil_mode=True)[0, 0].numpy()[: shape[0], : shape[1]]


def test_maps_of_the_loop_lie_on_the_spot_though_every_view_was_turned(
    module_examples: tuple[Example, ...], accumulated: MapStore
) -> None:
    assert len(accumulated.slides) == 12
    hits = []
    for example in module_examples[1:12:2]:
        found = accumulated.get(example.key, "spotted")
        spot = where_spotted(example, found.values.shape)
        near = nn.functional.max_pool2d(torch.from_numpy(spot)[None], 3, stride=1, padding=1)[0].numpy()
        hits.append(near.flat[int(found.values.argmax())] > 0)  # the network sees a cell with its neighbours
    assert sum(hits) >= 5


@pytest.mark.parametrize("symmetry", SYMMETRIES, ids=str)
def test_the_guide_turns_with_the_slide(
    module_examples: tuple[Example, ...], accumulated: MapStore, symmetry: Symmetry
) -> None:
    model, example = built(oaa_plus).eval(), module_examples[1]
    guide = Guide(accumulated, "folder")
    with example.open() as source:
        shown = AugmentedSource(source, Change(symmetry, None), 4.0, int(model.map_stride))  # type: ignore[arg-type]
        found = guide.maps_for(example, shown, model(shown))
    assert found is not None
    torch.testing.assert_close(found[0], symmetry.image(accumulated.found[example.key].decoded), atol=0, rtol=0)


def test_oaa_plus_learns_the_maps(module_examples: tuple[Example, ...], accumulated: MapStore) -> None:
    train, fresh = module_examples[:12], module_examples[12:]
    model = built(oaa_plus, sets="class", pool="top", objective="cross-entropy")
    trained(model, train, fresh, guide=Guide(accumulated, "folder")).eval()
    inside, outside = [], []
    for example in train[1::2]:
        with example.open() as source, torch.no_grad():
            shown = model(source).maps[0][1].values
        spot = where_spotted(example, shown.shape) > 0
        inside.append(shown[spot].mean())
        outside.append(shown[~spot].mean())
    assert np.mean(inside) > 2 * np.mean(outside)
    probabilities, failed = validate(fabric_on("cpu", 1, "32"), model, fresh, 1, lambda done: None)
    assert probabilities.shape == (4, 2) and not failed


def test_a_slide_without_a_map_is_taught_by_its_label(
    module_examples: tuple[Example, ...], accumulated: MapStore
) -> None:
    model, example = built(oaa_plus).eval(), module_examples[13]
    with example.open() as source:
        shown = AugmentedSource(source, Change(Symmetry(), None), 4.0)
        assert Guide(accumulated, "folder").maps_for(example, shown, model(shown)) is None


def test_other_cells_are_refused(module_examples: tuple[Example, ...], accumulated: MapStore) -> None:
    model, example = built(oaa_plus, trunk_widths=(8, 8, 8)).eval(), module_examples[1]
    with example.open() as source, pytest.raises(InputError, match=r"cells of 16 level-0 pixels on slide s1, .* of 32"):
        shown = AugmentedSource(source, Change(Symmetry(), None), 4.0)
        Guide(accumulated, "folder").maps_for(example, shown, model(shown))


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def test_what_is_missing_or_does_not_fit_is_said(accumulated: MapStore, tmp_path: Path) -> None:
    plus, heard, seen = built(oaa_plus), Heard(), {"mpp": "0.5", "tags": "a"}
    found = {key: replace(one, seen=seen) for key, one in accumulated.found.items()}
    found["key3"] = replace(found["key3"], seen={**seen, "mpp": "0.25"})
    accumulated = replace(accumulated, found=found)
    write_maps(tmp_path / STORE, accumulated)
    named = replace(RECIPE, method="oaa-plus", maps=str(tmp_path))

    def ask(model: nn.Module, recipe: Recipe, *keys: str, output: str = "new", classes: Any = CLASSES) -> Guide | None:
        slides = [(key, seen) for key in keys or ("key1", "key2")]
        return guide_for(model, recipe, classes, slides, tmp_path / output, heard)

    assert ask(plus, named) is not None and not heard.lines
    assert ask(built(oaa), RECIPE) is None
    assert ask(plus, named, "key1", "other") is not None
    assert heard.lines == ["note: 1 of 2 training slides have no accumulated map; their label teaches"]
    guide = ask(plus, named, "key1", "key3")
    assert guide is not None and guide.store.found.keys() == accumulated.found.keys() - {"key3"}
    assert heard.lines[1:] == [
        "note: 1 of 2 training slides have no accumulated map; their label teaches"
        " (s3: the file has mpp 0.5, had 0.25 when its map was made)"
    ]
    with pytest.raises(
        InputError, match=r"none of the 1 training slides .* there \(s3: the file has mpp 0.5, had 0.25"
    ):
        ask(plus, named, "key3")
    with pytest.raises(InputError, match=r"method oaa-plus learns the maps .* folder: --maps FOLDER"):
        ask(plus, replace(named, maps=""))
    with pytest.raises(InputError, match="method ats does not learn accumulated maps; leave out maps"):
        ask(ats(2), replace(named, method="ats"))
    with pytest.raises(InputError, match="none of the 1 training slides has an accumulated map there"):
        ask(plus, named, "other")
    with pytest.raises(InputError, match="of the classes plain, spotted, not a, b"):
        ask(plus, named, classes=("a", "b"))
    with pytest.raises(InputError, match="holds the maps to learn from; choose another output folder"):
        ask(plus, named, output=".")
    with pytest.raises(InputError, match="holds the maps to learn from; choose another output folder"):
        ask(plus, replace(named, maps=str(tmp_path / STORE)), output=".")
    with pytest.raises(InputError, match="does not exist: no maps were accumulated there"):
        ask(plus, replace(named, maps=str(tmp_path / "none")))
    write_maps(tmp_path / STORE, replace(accumulated, kind="glimpses"))
    with pytest.raises(InputError, match="holds what sampled tiles showed, not class maps"):
        ask(plus, named)
