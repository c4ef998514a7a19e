"""Accumulated maps as a teacher: a training of OAA+ reads the maps that a training of OAA left beside its model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from wsi_attention.config import Recipe
from wsi_attention.errors import InputError
from wsi_attention.protocols import Guided
from wsi_attention.slide.fingerprint import seen_otherwise
from wsi_attention.structures import Output
from wsi_attention.training.accumulation import centres, looked_up, plain_grid
from wsi_attention.training.augment import AugmentedSource
from wsi_attention.training.data import Example
from wsi_attention.training.listener import Listener
from wsi_attention.training.map_store import MapStore, open_maps


class Guide:
    """The accumulated maps of an earlier training, for a model that learns them.

    Args:
        store: of class maps.
        name: of the folder, for errors.
    """

    def __init__(self, store: MapStore, name: str) -> None:
        self.store, self.name = store, name

    def maps_for(self, example: Example, shown: AugmentedSource, output: Output) -> Tensor | None:
        """Return (1, classes, rows, cols) as the model sees the slide; None where the slide's label has no map.

        Raises:
            InputError: the model's cells are not those of the maps.
        """
        one = self.store.found.get(example.key)
        if one is None or not bool((one.updates[example.label] > 0).any()):
            return None
        grid = output.maps[0][-1].grid
        if plain_grid(shown, grid.step) != one.grid:
            raise InputError(
                f"{self.name}: its maps have cells of {one.grid.step[0]:g} level-0 pixels on slide {example.name}, this"
                f" model has cells of {grid.step[0]:g}; train with the overview_mpp and backbone of that model"
            )
        found = looked_up(one.decoded, one.grid, shown.plain_points(centres(grid)))
        return found.view(1, -1, *grid.shape)

    def missing(self, keys: Sequence[str]) -> int:
        """Return how many slides, by fingerprint, have no map."""
        return sum(key not in self.store.slides for key in keys)


def guide_for(
    model: nn.Module,
    recipe: Recipe,
    classes: Sequence[str],
    slides: Sequence[tuple[str, Mapping[str, str]]],
    output: Path,
    listener: Listener,
) -> Guide | None:
    """Return the guide that a recipe's `maps` names, None where the model takes none and none is named.

    Args:
        model: that is to be trained.
        recipe: with `method` and `maps`.
        classes: class names of this training.
        slides: fingerprint of each of its training slides, and what its reader sees besides pixels.
        output: the model folder of this training.
        listener: told how many slides have no map.

    Raises:
        InputError: the model needs maps and none are named, or the other way round, or they do not fit.
    """
    if not isinstance(model, Guided):
        if recipe.maps:
            raise InputError(f"method {recipe.method} does not learn accumulated maps; leave out maps")
        return None
    if not recipe.maps:
        raise InputError(
            f"method {recipe.method} learns the maps that a training of method oaa accumulated; name its model folder: "
            '--maps FOLDER, or maps = "FOLDER" in the recipe'
        )
    named = Path(recipe.maps).resolve()
    if output.resolve() == (named.parent if named.is_file() else named):
        raise InputError(f"{output} holds the maps to learn from; choose another output folder")
    store = _checked(open_maps(recipe.maps), recipe.maps, classes)
    other = _of_other_slides(store, slides)
    guide = Guide(replace(store, found={key: one for key, one in store.found.items() if key not in other}), recipe.maps)
    missing = guide.missing([key for key, _ in slides])
    some = "; ".join(f"{store.found[key].name}: {why} when its map was made" for key, why in [*other.items()][:3])
    if missing == len(slides):
        what = f"none of the {len(slides)} training slides has an accumulated map there"
        raise InputError(f"{recipe.maps}: {what}{some and f' ({some})'}")
    if missing:
        what = f"{missing} of {len(slides)} training slides have no accumulated map; their label teaches"
        listener.line(f"note: {what}{some and f' ({some})'}")
    return guide


def _of_other_slides(store: MapStore, slides: Sequence[tuple[str, Mapping[str, str]]]) -> dict[str, str]:
    """Return why maps do not stand for the slide of their content as it is now, by fingerprint."""
    seen: dict[str, list[Mapping[str, str]]] = {}
    for key, now in slides:
        seen.setdefault(key, []).append(now)
    found = {}
    for key in store.found.keys() & seen.keys():
        whys = [seen_otherwise(store.found[key].seen, now) for now in seen[key]]
        if whys[0] is not None and None not in whys:
            found[key] = whys[0]
    return dict(sorted(found.items()))


def _checked(store: MapStore, folder: str, classes: Sequence[str]) -> MapStore:
    if store.classes != tuple(classes):
        raise InputError(f"{folder}: its maps are of the classes {', '.join(store.classes)}, not {', '.join(classes)}")
    if store.kind != "maps":
        raise InputError(f"{folder}: holds what sampled tiles showed, not class maps; train a model of method oaa")
    return store
