"""Training recipes: TOML in, checked options out."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wsi_attention.errors import InputError
from wsi_attention.options import Options, option, parse, table

RECIPES = Path(__file__).parent / "shipped" / "recipes"
"""The recipes that come with the package, one TOML a name."""


@dataclass(frozen=True, kw_only=True)
class Optimiser(Options):
    """AdamW with a clipped gradient and a learning rate that warms up, then stays or falls along a cosine."""

    learning_rate: float = option(5e-4, "the highest rate, reached after the warm-up", low=1e-9, high=10.0)
    weight_decay: float = option(1e-3, "AdamW's decoupled decay", low=0.0, high=1.0)
    clip: float = option(
        1.0, "largest norm of the gradient of a step; a longer one is scaled down to it", low=1e-6, high=1e6
    )
    schedule: str = option("cosine", "cosine falls to 0 at the last step", choices=("cosine", "constant"))
    warmup_epochs: float = option(1.0, "epochs over which the rate rises linearly from 0", low=0.0, high=10_000.0)


@dataclass(frozen=True, kw_only=True)
class Augmentation(Options):
    """How far a training slide may differ from the file; 0 switches a change off."""

    symmetry: str = option("dihedral", "dihedral is the 8 flips and quarter turns", choices=("dihedral", "none"))
    stain: float = option(
        0.15, "largest relative change of each stain's strength (haematoxylin, eosin, DAB/residue)", low=0.0, high=0.9
    )
    brightness: float = option(0.05, "largest relative change of the light", low=0.0, high=0.9)
    overview_stain: float = option(
        0.0,
        "like stain, but of the overview alone and beside it: a frozen encoder's features are kept all the same",
        low=0.0,
        high=0.9,
    )


@dataclass(frozen=True, kw_only=True)
class Curriculum(Options):
    """Which training slides take part in which epoch, by a number that the labels give of each: easy ones first."""

    column: str = option(
        "",
        "column of the labels CSV with that number, such as the share of tumour; all slides take part in every epoch "
        "where empty",
    )
    first: str = option("largest", "which slides take part from the first epoch on", choices=("largest", "smallest"))
    start: float = option(
        0.25, "share of the slides of each class that take part in the first epoch", low=0.001, high=1.0
    )
    full: float = option(
        0.5, "share of the epochs after which all slides take part; their number rises evenly until then", low=0, high=1
    )

    def all_from(self, epochs: int) -> int:
        """Return the first epoch in which all slides take part, at most the last one; 1 where there is no column."""
        return min(epochs, 1 + round(self.full * epochs)) if self.column else 1

    def share(self, epoch: int, epochs: int) -> float:
        """Return the share of each class's slides that take part in an epoch, numbered from 1."""
        rising = self.all_from(epochs) - 1
        return 1.0 if epoch > rising else self.start + (1 - self.start) * (epoch - 1) / rising


KINDS = ("label", "ordinal", "labels", "regression", "survival")
"""What `target` may be."""
OF_TARGETS = ("target", "order", "columns", "intervals")


@dataclass(frozen=True, kw_only=True)
class Recipe(Options):
    """All that decides a training run besides the labels and the slides."""

    method: str = option("grow", "registered name of the method")
    model: Mapping[str, object] = table("options of the method; `wsi-attention methods NAME` lists them")
    start: str = option("", "model folder or shipped name whose weights training starts from; fresh ones where empty")
    encoder_start: str = option(
        "",
        "where the encoder's weights come from, after start: a .safetensors file, an encoder's or model's folder, or "
        '"pretrained" (published ones, downloaded)',
    )
    bag: str = option(
        "slide",
        "what a label is of: a slide, or all slides of a patient together, whose tiles are then drawn from all of them "
        "in proportion to attention",
        choices=("slide", "patient"),
    )
    epochs: int = option(30, "passes over the training slides", low=1, high=100_000)
    patience: int = option(
        10, "epochs without a better validation (see best) after which training stops", low=1, high=100_000
    )
    best: str = option(
        "auroc",
        "what tells the best epoch: the highest validation AUROC, the lowest validation loss, which changes less by "
        "chance where few slides are kept for validation, or last: the last one whatever validation says, for a "
        "schedule that ends at 0; training does not stop early then",
        choices=("auroc", "loss", "last"),
    )
    batch: int = option(4, "slides whose gradients are averaged into one step", low=1, high=100_000)
    precision: str = option(
        "auto", "auto is bfloat16 where the hardware has it, else 32", choices=("auto", "32", "bf16")
    )
    seed: int = option(0, "decides split, weights, order, draws and augmentation", low=0, high=2**31 - 1)
    validation_share: float = option(0.2, "share of the slides that is kept for validation", low=0.01, high=0.9)
    validation_passes: int = option(1, "forward passes that are averaged for a validation slide", low=1, high=1000)
    class_weights: str = option(
        "balanced", "balanced counts each class the same in the loss", choices=("balanced", "none")
    )
    calibration: str = option(
        "auto",
        "how probabilities are calibrated at the end, on the validation slides of 20 patients or more: platt is a "
        "factor and a bias for each class, temperature a factor alone; auto is platt where each class has 10 patients, "
        "and isotonic where 100 patients or more show that it is better",
        choices=("auto", "temperature", "platt", "isotonic", "none"),
    )
    conformal: float = option(
        0.1,
        "share of slides whose set of classes may lack the right one; the label is undecided where the set does not "
        "hold one class alone; 0 for no sets. Fitted on the validation slides of 20 patients or more",
        low=0.0,
        high=0.99,
    )
    conformal_by: str = option(
        "all", "whether that share holds over all slides, or over those of each class", choices=("all", "class")
    )
    familiar: bool = option(
        True,
        "true: training ends with a look at its slides, so that prediction tells a slide that is unlike them, by "
        "stain, focus, scale, or what the model makes of it",
    )
    statistics: str = option(
        "builder",
        "colour mean and deviation to normalise by: the method's own options, those of these slides' tissue, or what "
        "the encoder's weights were trained with",
        choices=("builder", "tissue", "encoder"),
    )
    accumulate: str = option(
        "none",
        "what training keeps beside the model of the class maps, or else of the evidence of sampled tiles, of each "
        "slide over the epochs",
        choices=("none", "maximum", "mean"),
    )
    negative: str = option(
        "",
        'class that means that nothing was found; "none" where every class is a finding. Where empty, the one whose '
        "name says so",
    )
    target: str = option(
        "label",
        "what the model is asked for: one label a slide, or see docs/how-to/targets.md",
        choices=KINDS,
    )
    order: tuple[str, ...] = option((), 'the grades of target = "ordinal", lowest first')
    columns: tuple[str, ...] = option((), "columns of the labels CSV that hold the target, where it is not one label")
    intervals: int = option(4, 'intervals of time of target = "survival"', low=1, high=100)
    maps: str = option("", "model folder whose accumulated maps a method such as oaa-plus learns")
    snap: bool = option(True, "true: sampled tiles move to the file's own tile grid, as classify does by default")
    optimiser: Optimiser = option(Optimiser(), "the optimiser's options")
    augmentation: Augmentation = option(Augmentation(), "how training slides are varied")
    curriculum: Curriculum = option(Curriculum(), "which slides take part when; see docs/how-to/training.md")

    def as_dict(self) -> dict[str, object]:
        """Return all options as plain values; those of targets and of the curriculum only where they say something."""
        values = super().as_dict()
        if not self.curriculum.column:
            del values["curriculum"]
        plain = not (self.order or self.columns or self.target != KINDS[0])
        return {name: value for name, value in values.items() if not (plain and name in OF_TARGETS)}


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe from a TOML file.

    Raises:
        InputError: no such file, no TOML, an unknown key (the nearest valid one is named), a value out of range.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"recipe {path} does not exist; shipped recipes: {', '.join(shipped_recipes())}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"recipe {path} cannot be read as TOML: {error}") from error
    return parse_recipe(content, str(path))


def shipped_recipes() -> tuple[str, ...]:
    """Return the names of the recipes that come with the package."""
    return tuple(sorted(path.stem for path in RECIPES.glob("*.toml")))


def default_recipe(method: str) -> Recipe:
    """Return the shipped recipe of a method, or plain defaults where none is shipped."""
    path = RECIPES / f"{method}.toml"
    return load_recipe(path) if path.is_file() else Recipe(method=method)


def as_recipe(given: Recipe | str | os.PathLike[str] | None) -> Recipe:
    """Return a recipe as it is, the shipped one of a name such as "ats", or the one in a TOML file.

    Args:
        given: any of these; None is the shipped recipe of the default method.

    Raises:
        InputError: none of these, or as `load_recipe`.
    """
    if given is None:
        return default_recipe(Recipe.method)
    if isinstance(given, Recipe):
        return given
    if not isinstance(given, str | os.PathLike):
        raise InputError(
            f"a recipe is a Recipe, a TOML file or one of {', '.join(shipped_recipes())}; got {type(given).__name__}"
        )
    return default_recipe(str(given)) if str(given) in shipped_recipes() else load_recipe(Path(given))


def parse_recipe(content: Mapping[str, object], name: str) -> Recipe:
    """Return a recipe from a parsed table; `name` is what errors call it.

    Raises:
        InputError: as `load_recipe`.
    """
    return parse(Recipe, content, name)


def changed(recipe: Recipe, **changes: object) -> Recipe:
    """Return the recipe with some values replaced, checked like a file's; a change of None is no change.

    Raises:
        InputError: a value out of range.
    """
    content = recipe.as_dict() | {key: value for key, value in changes.items() if value is not None}
    return parse_recipe(content, "the command line")
