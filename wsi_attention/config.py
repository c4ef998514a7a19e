"""Training recipes: TOML in, frozen dataclasses out; a slip is one line that names the nearest right key."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from wsi_attention.errors import InputError

RECIPES = Path(__file__).parent / "shipped" / "recipes"
"""The recipes that come with the package, one TOML a name."""

T = TypeVar("T")


@dataclass(frozen=True)
class Optimiser:
    """AdamW with a clipped gradient and a learning rate that warms up, then stays or falls along a cosine.

    Attributes:
        learning_rate: the highest rate, reached after the warm-up.
        weight_decay: AdamW's decoupled decay.
        clip: largest norm of the gradient of a step; a longer one is scaled down to it.
        schedule: "cosine" (down to 0 at the last step) or "constant".
        warmup_epochs: epochs over which the rate rises linearly from 0.
    """

    learning_rate: float = 5e-4
    weight_decay: float = 1e-3
    clip: float = 1.0
    schedule: str = "cosine"
    warmup_epochs: float = 1.0


@dataclass(frozen=True)
class Augmentation:
    """How far a training slide may differ from the file; 0 switches a change off.

    Attributes:
        symmetry: "dihedral" (the 8 flips and quarter turns) or "none".
        stain: largest relative change of each stain's strength (haematoxylin, eosin, DAB/residue).
        brightness: largest relative change of the light.
    """

    symmetry: str = "dihedral"
    stain: float = 0.15
    brightness: float = 0.05


@dataclass(frozen=True)
class Recipe:
    """All that decides a training run besides the labels and the slides.

    Attributes:
        method: registered model name.
        model: arguments of the method's builder.
        start: model folder or shipped name whose weights training starts from; fresh ones where empty.
        encoder_start: where the encoder's weights come from, after `start`: a .safetensors file (`save_encoder`, or a
            library's own), a model folder or shipped name, or "pretrained" (published ones, downloaded).
        epochs: passes over the training slides.
        patience: epochs without a better validation (see `best`) after which training stops.
        best: what tells the best epoch: the highest validation "auroc", or the lowest validation "loss", which changes
            less by chance where few slides are kept for validation.
        batch: slides whose gradients are averaged into one step.
        precision: "auto" (bfloat16 where the hardware has it, else 32), "32" or "bf16".
        seed: decides split, weights, order, draws and augmentation.
        validation_share: share of the slides that is kept for validation.
        validation_passes: forward passes that are averaged for a validation slide.
        class_weights: "balanced" (each class counts the same) or "none".
        statistics: colour mean and deviation to normalise by: "builder" (its own), "tissue" (of these slides) or
            "encoder" (what the encoder's weights were trained with).
        accumulate: what training keeps of the class maps, or else of the evidence of sampled tiles, of each slide:
            their "maximum" or "mean" over the epochs, beside the model (see `training.map_store`), or "none".
        negative: class that means that nothing was found; "none" where every class is a finding. Where empty, the one
            whose name says so (see `training.negative`).
        maps: model folder whose accumulated maps a method such as oaa-plus learns.
        snap: whether sampled tiles move to the file's own tile grid, as `classify` does by default.
        optimiser: see `Optimiser`.
        augmentation: see `Augmentation`.
    """

    method: str = "zoom-in"
    model: Mapping[str, Any] = field(default_factory=dict)
    start: str = ""
    encoder_start: str = ""
    epochs: int = 30
    patience: int = 10
    best: str = "auroc"
    batch: int = 4
    precision: str = "auto"
    seed: int = 0
    validation_share: float = 0.2
    validation_passes: int = 1
    class_weights: str = "balanced"
    statistics: str = "builder"
    accumulate: str = "none"
    negative: str = ""
    maps: str = ""
    snap: bool = True
    optimiser: Optimiser = field(default_factory=Optimiser)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain values, ready for JSON."""
        return {**asdict(replace(self, model={})), "model": dict(self.model)}


CHOICES = {
    "best": ("auroc", "loss"),
    "precision": ("auto", "32", "bf16"),
    "class_weights": ("balanced", "none"),
    "statistics": ("builder", "tissue", "encoder"),
    "accumulate": ("none", "maximum", "mean"),
    "schedule": ("cosine", "constant"),
    "symmetry": ("dihedral", "none"),
}
LIMITS: dict[str, tuple[float, float]] = {
    "epochs": (1, 100_000),
    "patience": (1, 100_000),
    "batch": (1, 100_000),
    "seed": (0, 2**31 - 1),
    "validation_share": (0.01, 0.9),
    "validation_passes": (1, 1000),
    "learning_rate": (1e-9, 10.0),
    "weight_decay": (0.0, 1.0),
    "clip": (1e-6, 1e6),
    "warmup_epochs": (0.0, 10_000.0),
    "stain": (0.0, 0.9),
    "brightness": (0.0, 0.9),
}


def load_recipe(path: str | Path) -> Recipe:
    """Reads a recipe from a TOML file.

    Raises:
        InputError: no such file, no TOML, an unknown key (the nearest valid one is named), a value out of range.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"recipe {path} does not exist; shipped recipes: {', '.join(shipped_recipes())}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"recipe {path} cannot be read as TOML: {error}") from error
    return parse_recipe(table, str(path))


def shipped_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    return tuple(sorted(path.stem for path in RECIPES.glob("*.toml")))


def default_recipe(method: str) -> Recipe:
    """The shipped recipe of a method, or plain defaults where none is shipped."""
    path = RECIPES / f"{method}.toml"
    return load_recipe(path) if path.is_file() else Recipe(method=method)


def parse_recipe(table: Mapping[str, Any], name: str) -> Recipe:
    """A recipe from a parsed table; `name` is what errors call it.

    Raises:
        InputError: as `load_recipe`.
    """
    return _parse(Recipe, table, name, "")


def changed(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with some values replaced, checked like a file's; a change of None is no change.

    Raises:
        InputError: a value out of range.
    """
    table = recipe.as_dict() | {key: value for key, value in changes.items() if value is not None}
    return parse_recipe(table, "the command line")


def unknown_key(key: str, valid: tuple[str, ...], name: str) -> InputError:
    """The error for a key that does not exist, naming the nearest one that does."""
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}"
    return InputError(f"{name}: unknown key {key!r}; {hint}")


def _parse(kind: type[T], table: Mapping[str, Any], name: str, section: str) -> T:
    types = get_type_hints(kind)
    valid = tuple(entry.name for entry in fields(kind))  # type: ignore[arg-type]
    for key in table:
        if key not in valid:
            raise unknown_key(key, valid, f"{name}{section}")
    return kind(**{key: _value(types[key], key, value, name) for key, value in table.items()})


def _value(wanted: Any, key: str, value: Any, name: str) -> Any:
    if is_dataclass(wanted):
        if not isinstance(value, Mapping):
            raise InputError(f"{name}: {key} must be a table, such as [{key}], not {value!r}")
        return _parse(wanted, value, name, f" [{key}]")  # type: ignore[arg-type]
    if wanted is bool:
        if not isinstance(value, bool):
            raise InputError(f"{name}: {key} must be true or false, not {value!r}")
        return value
    if wanted not in (int, float, str):
        if not isinstance(value, Mapping):
            raise InputError(f"{name}: {key} must be a table, such as [{key}], not {value!r}")
        return dict(value)
    accepted = (int, float) if wanted is float else (wanted,)
    if isinstance(value, bool) or not isinstance(value, accepted):
        raise InputError(f"{name}: {key} must be {_noun(wanted)}, not {value!r}")
    return _checked(key, wanted(value), name)


def _checked(key: str, value: Any, name: str) -> Any:
    if key in CHOICES and value not in CHOICES[key]:
        raise InputError(f"{name}: {key} is {value!r}; possible: {', '.join(CHOICES[key])}")
    if key in LIMITS:
        low, high = LIMITS[key]
        if not (math.isfinite(value) and low <= value <= high):
            raise InputError(f"{name}: {key} is {value:g}; it must lie between {low:g} and {high:g}")
    return value


def _noun(kind: type) -> str:
    return {int: "a whole number", float: "a number", str: "text in quotes"}[kind]
