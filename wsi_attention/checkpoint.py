"""A model as a folder: config.json, model.safetensors and README.md, as on the Hugging Face hub; never unpickled.

The configuration names the method and every option of it, so a folder stays readable when defaults change.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from wsi_attention import __version__
from wsi_attention.certainty.fitted import NOTHING, Certainty
from wsi_attention.certainty.stored import is_finite
from wsi_attention.errors import InputError, ModelError
from wsi_attention.files import write_folder
from wsi_attention.json_values import as_plain, parse
from wsi_attention.learnt_from import KEY, LearntFrom
from wsi_attention.methods.ensemble import ensemble_of, repeated_names, share_encoder
from wsi_attention.methods.method import brief, build_model, find_method
from wsi_attention.model_card import ModelCard, ModelConfig, readme
from wsi_attention.model_encoder import KEY as ENCODER_KEY
from wsi_attention.model_encoder import EncoderPart, encoder_part, fill_from_pointer, own_weights
from wsi_attention.once import once
from wsi_attention.protocols import Stated, contract_of
from wsi_attention.structures import DEMONSTRATION, purpose_warning
from wsi_attention.targets.find import aim, target_of
from wsi_attention.targets.target import Target

SHIPPED = Path(__file__).resolve().parent / "shipped"


@dataclass(frozen=True, eq=False)
class Classifier:
    """A loaded model; pickles as the folder it came from, and is loaded again where it is unpickled.

    Attributes:
        model: in eval mode.
        classes: class names in the order of the logits.
        config: what config.json says.
        weights_sha256: of the weights file.
        name: of the folder.
        folder: absolute path of the folder; None if the model was made in memory.
        certainty: what the folder says of how far to believe its labels.
    """

    model: nn.Module
    classes: tuple[str, ...]
    config: ModelConfig
    weights_sha256: str
    name: str
    folder: Path | None = field(default=None)
    certainty: Certainty = NOTHING

    def __repr__(self) -> str:
        shown = ", ".join(self.classes[:6]) + f" … ({len(self.classes)} in all)" * (len(self.classes) > 6)
        about = [f"method {self.config.get('method', 'unknown')}", f"classes {shown}"]
        about += [f"reads {mpp:g} µm/px"] if isinstance(mpp := self.config.get("mpp"), int | float) else []
        return f"Classifier({self.name!r}: {', '.join([*about, *filter(None, [purpose_warning(self.purpose)])])})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: classes, purpose, method, scale, and where the model comes from."""
        from wsi_attention.notebook import classifier_html

        return classifier_html(self)

    @property
    def seen(self) -> LearntFrom | None:
        """Which slides it has learnt from, None where its folder does not say."""
        return LearntFrom.from_config(self.config)

    @once
    def target(self) -> Target:
        """Return what its logits mean: one label, or what config.json says under `target`."""
        return target_of(self.config.get("target"), self.classes)

    def check_one_class(self, whom: str) -> None:
        """Raise ModelError unless the model says one class a slide, which is all that somebody takes.

        Args:
            whom: who that is, such as "TIAToolbox".
        """
        if self.target.kind not in ("label", "ordinal"):
            raise ModelError(
                f"model {self.name} was asked for {self.target.kind!r}, and {whom} takes one class a slide; use "
                "wsi-attention classify, or a model for one label"
            )

    @property
    def purpose(self) -> str:
        """What config.json says that the model is for: "demonstration", or "" where it says nothing."""
        said = str(self.config.get("purpose", "")).strip().lower()
        return DEMONSTRATION if said.startswith("demo") else said

    @property
    def bag(self) -> str:
        """What a label of the training was of: "slide", or "patient" where all slides of one were seen together."""
        return str((self.config.get("recipe") or {}).get("bag", "slide"))

    @property
    def encoder(self) -> EncoderPart | None:
        """What config.json says of a published encoder in it: origin, licence, whether the folder contains it."""
        return EncoderPart.of(self.config.get(ENCODER_KEY))

    @property
    def config_sha256(self) -> str:
        """What tells one configuration from another, sha256 (hex): the same weights may be judged by other rules."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True, default=str).encode()).hexdigest()

    def __reduce__(self) -> tuple[Callable[..., Classifier], tuple[str, str, str, str]]:
        if self.folder is None:
            raise ModelError(f"model {self.name} has no folder, so it cannot go to another process; save it first")
        device = next(self.model.parameters()).device
        return _load_again, (str(self.folder), str(device), self.weights_sha256, self.config_sha256)


ClassifierLike = Classifier | str | os.PathLike[str]
"""A loaded model; or the folder of one, or a shipped name."""


def save_model(folder: str | Path, model: nn.Module, card: ModelCard) -> str:
    """Write a model folder: into a temporary folder that is renamed, or file by file where the folder exists.

    Other files in an existing folder stay. Each file is written under a temporary name and renamed, the configuration
    last; a folder caught between old and new weights is refused by `load_model`, for the hash does not fit.

    Args:
        folder: where to; missing parents are made.
        model: what `card.method` builds from `card.arguments`, trained.
        card: what to know about it.

    Weights of an encoder that others published and that may not be given on are left out; config.json points to them.

    Returns:
        The sha256 of the weights.

    Raises:
        InputError: the card's method or arguments name nothing, or the folder would contain an encoder whose licence
            forbids giving on what training made of it.
        ModelError: the folder cannot be written.
    """
    options = find_method(card.method).complete(card.arguments)
    part = encoder_part(model, options, card.encoder)
    repeated = repeated_names(model)
    own = {name: value for name, value in own_weights(model, part).items() if name not in repeated}
    weights = save_tensors({name: value.detach().cpu().contiguous() for name, value in own.items()})
    sha256 = hashlib.sha256(weights).hexdigest()
    config: ModelConfig = {
        "format": FORMAT if card.target is None else FORMAT_OF_TARGETS,
        "package_version": __version__,
        "method": card.method,
        "options": options,
        "classes": list(card.classes),
        "negative": card.negative,
        "mpp": contract_of(model).tile_mpp,
        "mean": options.get("mean"),
        "std": options.get("std"),
        "recipe": dict(card.recipe),
        "data_fingerprint": card.data_fingerprint,
        "metrics": dict(card.metrics),
        "weights_sha256": sha256,
        KEY: card.seen.as_dict() if card.seen else None,
    }
    if card.purpose:
        config["purpose"] = card.purpose
    if card.target is not None:
        config["target"] = dict(card.target)
    if card.plain_images:
        config["plain_images"] = True
    if part:
        config["encoder_weights"] = part.as_dict()
    if card.members:
        config["members"] = [dict(one) for one in card.members]
    text = json.dumps(as_plain({**config, **card.certainty.as_config()}), indent=2) + "\n"
    told = part.sentences if part else ()
    files = {
        WEIGHTS: weights,
        README: readme(card, config, model.quantity if isinstance(model, Stated) else "", told).encode(),
        CONFIG: text.encode(),
    }
    try:
        write_folder(Path(folder), files)
    except OSError as error:
        raise ModelError(f"model folder {folder} cannot be written: {error.strerror or error}") from error
    return sha256


def load_model(path: str | os.PathLike[str], device: str = "cpu") -> Classifier:
    """Return a model from its folder, or a shipped one by name, in eval mode.

    Args:
        path: a folder that `save_model` wrote, or a shipped name such as "demo".
        device: where to put the weights.

    Raises:
        InputError: neither a path nor a name was given.
        ModelError: no such folder, not a model folder, of another version, a method that is not installed, weights
            that are damaged, were exchanged, or do not fit, or an encoder outside the folder that is not here.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(
            f"a model is a folder that train wrote, or the name of a shipped one ({', '.join(shipped_models())});"
            f" got {type(path).__name__}"
        )
    folder = model_folder(path)
    config = read_config(folder)
    weights, sha256 = read_weights(folder, config)
    _check_members(config, weights, folder)
    try:
        with torch.random.fork_rng(devices=[]):  # what the layers draw is thrown away, the caller's generator is not
            target = target_of(config.get("target"), config["classes"])
            model = _built(config, target.outputs)
            aim(model, target)
    except InputError as error:
        raise ModelError(f"{folder / CONFIG}: {error}") from error
    mpp = contract_of(model).tile_mpp
    if not math.isclose(config["mpp"], mpp, rel_tol=1e-6):
        raise ModelError(
            f"{folder / CONFIG}: 'mpp' is {config['mpp']:g}, but its options make a model for"
            f" {mpp:g} µm/px; copy the whole folder again"
        )
    part = EncoderPart.of(config.get(ENCODER_KEY))
    outside: Mapping[str, Tensor] = {}
    if part and not part.contained:
        outside = fill_from_pointer(model, part, folder, (config.get("recipe") or {}).get("encoder_start"))
    weights |= {name: weights[first] for name, first in repeated_names(model).items() if first in weights}
    check_fit(weights, {name: value for name, value in model.state_dict().items() if name not in outside}, folder)
    model.load_state_dict({**outside, **weights})
    try:
        model = model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"model {folder} cannot be put on device {device!r}: {error}") from error
    name = folder.resolve().name
    classes = tuple(config["classes"])
    return Classifier(model, classes, config, sha256, name, folder.resolve(), certainty_of(config, folder / CONFIG))


def with_draws(classifier: Classifier, draws: int) -> Classifier:
    """Return the same model with another number of tiles drawn from each slide than it was trained with.

    More tiles make the estimate less noisy and cost as much more; each member of an ensemble draws as many.

    Args:
        classifier: a model of a method that draws tiles.
        draws: how many, at least 1.

    Raises:
        InputError: the method has no such option, or does not allow that number.
    """
    config = classifier.config
    if DRAWS not in config["options"]:
        raise InputError(f"model {classifier.name}: method {config['method']!r} has no option draws; leave --draws out")
    changed: ModelConfig = {**config, "options": {**config["options"], DRAWS: draws}}
    if members := config.get(MEMBERS):
        changed["members"] = [{**one, "options": _drawing(one["options"], draws)} for one in members]
    changed["usual_draws"] = config.get("usual_draws", config["options"][DRAWS])
    with torch.random.fork_rng(devices=[]):
        model = _built(changed, classifier.target.outputs)
        aim(model, classifier.target)
    model.load_state_dict(classifier.model.state_dict())
    device = next(classifier.model.parameters()).device
    return replace(classifier, model=model.to(device).eval(), config=changed)


def _drawing(options: object, draws: int) -> dict[str, object]:
    return {**cast(Mapping[str, object], options), DRAWS: draws}


def _built(config: ModelConfig, outputs: int) -> nn.Module:
    """Return the network of a configuration with fresh weights, of an ensemble with all its members."""
    method, members = config["method"], config.get(MEMBERS)
    if members is None:
        return build_model(method, outputs, **config["options"])
    shared = all(one.get("shared") for one in members)
    networks: list[nn.Module] = []
    for one in members:
        networks.append(build_model(method, outputs, **cast(Mapping[str, object], one["options"])))
        if shared and len(networks) > 1:  # at once, so that a large encoder is in memory twice at most
            share_encoder(networks[-1], networks[0])
    return ensemble_of(networks, shared=shared)


def _check_members(config: ModelConfig, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Raise ModelError unless there are weights of as many members as config.json names, before networks are built."""
    named = len(config.get(MEMBERS) or ())
    held = len({name.split(".")[1] for name in weights if name.startswith(f"{MEMBERS}.")}) if named else 0
    if held != named:
        raise ModelError(
            f"{folder / CONFIG} names {named} members, {WEIGHTS} holds those of {held}: copy the whole folder again"
        )


def as_classifier(given: ClassifierLike) -> Classifier:
    """Return a loaded model as it is, or load the one that a folder or a shipped name stands for.

    Raises:
        InputError: neither a model, nor a path or name.
        ModelError: as `load_model`.
    """
    return given if isinstance(given, Classifier) else load_model(given)


def shipped_models() -> tuple[str, ...]:
    """Return the names of the models that come with the package."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob(f"*/{CONFIG}")))


def _load_again(folder: str, device: str, weights: str, config: str) -> Classifier:
    classifier = load_model(folder, device)
    if (classifier.weights_sha256, classifier.config_sha256) != (weights, config):
        raise ModelError(f"model {folder} has changed since it was loaded first; start again")
    return classifier


def model_folder(path: str | os.PathLike[str]) -> Path:
    """Return the folder of a model, given as such or by its shipped name.

    Raises:
        ModelError: there is none.
    """
    folder, shipped = Path(path), SHIPPED / str(path)
    if (folder / CONFIG).is_file():
        return folder
    if str(path) in shipped_models():
        return shipped
    known = ", ".join(shipped_models()) or "none"
    if folder.is_dir():
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
        raise ModelError(f"{folder} is no model folder: it has no {CONFIG}, it has {found}; shipped models: {known}")
    if folder.exists():
        raise ModelError(
            f"{folder} is a file; a model is a folder with {CONFIG} and {WEIGHTS}; shipped models: {known}"
        )
    raise ModelError(f"no model folder {folder}, and no shipped model of that name; shipped models: {known}")


FORMAT = 2
"""Version of the folder's layout; raised when an older version of the package could not read a folder. Format 1, which
is read too, had the options under "arguments", those of the encoder among them."""
MEMBERS: Final = "members"
"""Where config.json of an ensemble keeps a table for each member: its `options`, whether its encoder is `shared`."""
DRAWS: Final = "draws"
"""The option of methods that draw tiles: how many of a slide."""
FORMAT_OF_TARGETS = 3
"""Of a model for a target beyond one label: versions that know one label alone must not take its logits for classes."""
CONFIG, WEIGHTS, README = "config.json", "model.safetensors", "README.md"
PURPOSE = re.compile(r"[A-Za-z0-9 -]{0,40}")
FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
"""Kinds of numbers that stand for each other in weights."""
REQUIRED: dict[str, type | tuple[type, ...]] = {
    "method": str,
    "options": dict,
    "classes": list,
    "mpp": (int, float),
    "weights_sha256": str,
}


def read_config(folder: Path) -> ModelConfig:
    """Return a folder's configuration, checked.

    Raises:
        ModelError: it cannot be read, is of another package or version, or lacks something.
    """
    file = folder / CONFIG
    try:
        config = parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{file} is no JSON: {error}") from error
    if not isinstance(config, dict) or "format" not in config:
        raise ModelError(f"{file} is no configuration of this package: it names no format; expected format {FORMAT}")
    if config["format"] == 1:
        config |= {"format": FORMAT, "options": config.pop("arguments", None)}
    wanted = FORMAT if config.get("target") is None else FORMAT_OF_TARGETS
    if config["format"] != wanted:
        made = config.get("package_version", "an unknown version")
        raise ModelError(
            f"{file} has format {config['format']!r}, written by wsi-attention {made}; version {__version__} reads "
            f"format {wanted}: install the version that wrote it, or train again"
        )
    for key, kind in REQUIRED.items():
        if not isinstance(config.get(key), kind):
            raise ModelError(f"{file}: {key!r} is missing or of the wrong kind, found {brief(config.get(key))}")
    classes = config["classes"]
    if not classes or len(set(map(str, classes))) < len(classes) or not all(isinstance(one, str) for one in classes):
        raise ModelError(f"{file}: 'classes' must be different names, found {brief(classes)}")
    _check_values(config, file)
    members = config.get(MEMBERS, [{"options": {}}])
    if not isinstance(members, list) or not members or not all(_is_member(one) for one in members):
        raise ModelError(f"{file}: {MEMBERS!r} must be a list of tables with options, found {brief(members)}")
    purpose = config.get("purpose", "")
    if not isinstance(purpose, str) or not PURPOSE.fullmatch(purpose):
        raise ModelError(f"{file}: 'purpose' must be a few plain words such as demonstration, found {brief(purpose)}")
    return cast(ModelConfig, config)


def _check_values(config: Mapping[str, object], file: Path) -> None:
    """Raise ModelError where an entry has a value that would break what reads it."""
    if isinstance(config["mpp"], int) and not is_finite(config["mpp"]):
        raise ModelError(f"{file}: 'mpp' must be a number that can be computed with, found {brief(config['mpp'])}")
    if not isinstance(config.get("recipe"), dict | None):
        raise ModelError(f"{file}: 'recipe' must be a table, found {brief(config['recipe'])}")
    try:
        LearntFrom.from_config(config)
    except ModelError as error:
        raise ModelError(f"{file}: {error}") from error


def certainty_of(config: ModelConfig, file: Path) -> Certainty:
    """Return what a configuration says of how far to believe the model's labels.

    Args:
        config: what `read_config` returns.
        file: where it stands, for errors.

    Raises:
        ModelError: an entry is damaged.
    """
    try:
        found = Certainty.from_config(config, len(config["classes"]))
    except ValueError as error:
        raise ModelError(f"{file}: {error}; copy the whole folder again, or train again") from error
    if config.get("target") is not None and (found.calibration or found.conformal):
        raise ModelError(
            f"{file}: 'calibration' and 'conformal' are for one label a slide, and this model has a 'target'; copy the"
            " whole folder again, or train again"
        )
    return found


def _is_member(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("options"), dict)


def read_weights(folder: Path, config: ModelConfig) -> tuple[dict[str, Tensor], str]:
    """Return a folder's weights and the sha256 of their file.

    Raises:
        ModelError: they cannot be read, or are not those that the configuration names.
    """
    file = folder / WEIGHTS
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}") from error
    sha256 = hashlib.sha256(raw).hexdigest()
    if sha256 != config["weights_sha256"]:
        raise ModelError(
            f"{file} has sha256 {sha256[:12]}…, {CONFIG} expects {config['weights_sha256'][:12]}…: damaged, cut short, "
            "or of another model; copy the whole folder again"
        )
    try:
        return load_tensors(raw), sha256
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{file} is no safetensors file: {error}") from error


def check_fit(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], folder: Path) -> None:
    """Raise ModelError unless the weights are those of a network.

    Raises:
        ModelError: a name, shape or kind of number differs, or a value is not finite.
    """
    problem = _misfit(weights, wanted)
    if problem:
        raise ModelError(
            f"{folder / WEIGHTS} does not fit {CONFIG}: {problem}; copy the whole folder again, or train again"
        )
    for name, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            raise ModelError(f"{folder / WEIGHTS} cannot be used: {name} holds values that are not finite; train again")


def _misfit(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    for name, value in wanted.items():
        if name not in weights:
            return f"it lacks {name}, shape {tuple(value.shape)}"
        if weights[name].shape != value.shape:
            return f"{name} has shape {tuple(weights[name].shape)}, the model has {tuple(value.shape)}"
        if not _same_kind(weights[name].dtype, value.dtype):
            return f"{name} holds {_plain(weights[name].dtype)}, the model has {_plain(value.dtype)}"
    return next((f"it has {name}, the model has not" for name in sorted(weights) if name not in wanted), None)


def _same_kind(stored: torch.dtype, wanted: torch.dtype) -> bool:
    return stored == wanted or {stored, wanted} <= FLOATS


def _plain(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")
