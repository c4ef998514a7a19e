"""What to know about a model, and its model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypedDict

from wsi_attention.certainty.fitted import NOTHING, Certainty
from wsi_attention.encoders.origin import NOBODY, Origin
from wsi_attention.learnt_from import LearntFrom
from wsi_attention.structures import purpose_warning

LIMITS = (
    "Research use only. Not a medical device; not validated for diagnosis.",
    "The label of a slide rests on the few tiles listed with it; tissue that was not inspected may hold anything.",
    "Slides from other scanners, stains, organs or laboratories than those it was trained on may be labelled wrongly "
    "without any sign of it.",
)


class ModelConfig(TypedDict):
    """What config.json holds; folders from elsewhere have at least what `checkpoint.REQUIRED` names."""

    format: int
    package_version: str
    method: str
    options: dict[str, Any]
    classes: list[str]
    negative: str | None
    mpp: float
    mean: object
    std: object
    recipe: dict[str, object]
    data_fingerprint: str
    metrics: dict[str, object]
    weights_sha256: str
    learnt_from: object
    purpose: NotRequired[str]
    target: NotRequired[dict[str, object]]
    encoder_weights: NotRequired[object]
    calibration: NotRequired[object]
    conformal: NotRequired[object]
    familiar: NotRequired[object]
    members: NotRequired[list[dict[str, object]]]
    usual_draws: NotRequired[int]
    plain_images: NotRequired[bool]


@dataclass(frozen=True)
class ModelCard:
    """What a model folder says besides the weights.

    Attributes:
        method: registered name of the builder, e.g. "ats".
        arguments: options of the method; those left out have their defaults.
        classes: class names in the order of the logits.
        recipe: how it was trained, plain values.
        metrics: name -> number, e.g. of the validation slides.
        data_fingerprint: sha256 over the training slides and labels.
        command: the command that trained it.
        negative: class that means that nothing was found, None where there is none or nobody said.
        seen: which slides it has learnt from; None where that is not known.
        purpose: "demonstration" for a model whose label means nothing on real tissue; every output then says so.
        page: README.md in full; written from all the rest where empty.
        encoder: where the encoder's weights come from; where it is empty, `arguments` say it by the encoder's name.
        certainty: what is fitted to its predictions, and why something is not.
        members: of an ensemble, a table for each member: its `options`, whether its encoder is `shared`, and more that
            people want to know; empty for a single model.
        target: what it was asked for beyond one label (`targets`); None for one label.
        plain_images: whether it learnt from plain images, which have neither tissue nor a scale of their own.
    """

    method: str
    arguments: Mapping[str, object]
    classes: tuple[str, ...]
    recipe: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, object] = field(default_factory=dict)
    data_fingerprint: str = ""
    command: str = ""
    negative: str | None = None
    seen: LearntFrom | None = None
    purpose: str = ""
    page: str = ""
    encoder: Origin = NOBODY
    certainty: Certainty = NOTHING
    members: Sequence[Mapping[str, object]] = ()
    target: Mapping[str, object] | None = None
    plain_images: bool = False


def readme(card: ModelCard, config: ModelConfig, quantity: str = "", encoder: Sequence[str] = ()) -> str:
    """Return the model card in Markdown with the front matter of the Hugging Face hub; `card.page` if there is one.

    Args:
        card: what to know about the model.
        config: what config.json says.
        quantity: what the model's answer estimates (`protocols.Stated`).
        encoder: sentences on the origin and licence of the encoder's weights.
    """
    if card.page:
        return card.page
    parts = [
        "---\nlibrary_name: wsi-attention\ntags: [digital-pathology, whole-slide-image, attention]\n---",
        f"# {card.method}: {', '.join(card.classes)}",
        f"A whole-slide classifier of wsi-attention {config['package_version']}. It reads tiles at {config['mpp']:g} "
        "µm/px.",
        f"Purpose: {card.purpose}; {purpose_warning(card.purpose)}." if card.purpose else "",
        f"## What it estimates\n{quantity or 'Nothing is drawn at random at prediction; there is no sum to estimate.'}",
        "## Limits\n" + "\n".join(f"* {line}" for line in LIMITS),
        "## Encoder\n" + "\n".join(f"* {line}" for line in encoder) if encoder else "",
        f"## {_heading(card)}\n" + "\n".join(f"{i}. {_class(name, card)}" for i, name in enumerate(card.classes, 1)),
        f"## Target\n\n```json\n{_json(card.target)}\n```" if card.target else "",
        "## Probabilities\n" + "\n".join(f"* {line}" for line in card.certainty.sentences),
        _metrics(card.metrics, card.recipe.get("best")),
        "## Training\n" + _command(card.command),
        f"Data fingerprint: `{card.data_fingerprint or 'not given'}`  \nWeights sha256: `{config['weights_sha256']}`",
        f"Recipe:\n\n```json\n{_json(card.recipe)}\n```",
        f"Options of `{card.method}`:\n\n```json\n{_json(config['options'])}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(card: ModelCard) -> str:
    """Return what the names are."""
    kind = card.target.get("kind") if card.target else None
    kinds = {"ordinal": "Grades, lowest first", "labels": "Labels", "regression": "Values"}
    return {**kinds, "survival": "Ends of the intervals"}.get(str(kind), "Classes")


def _class(name: str, card: ModelCard) -> str:
    return f"{name} (nothing found)" if name == card.negative else name


def _command(command: str) -> str:
    return f"```bash\n{command}\n```" if command else "The command was not recorded."


def _metrics(metrics: Mapping[str, object], best: object) -> str:
    if not metrics:
        return "## Metrics\nNone were recorded."
    chosen = "\n\nValidation slides chose the epoch too: judge the model by slides that it has not seen."
    rows = [f"| {name} | {_value(value)} |" for name, value in metrics.items()]
    note = chosen if best != "last" and any(name.startswith("validation") for name in metrics) else ""
    return "## Metrics\n| metric | value |\n|---|---|\n" + "\n".join(rows) + note


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        return " to ".join(map(_value, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _json(values: Mapping[str, object]) -> str:
    return json.dumps(values, indent=2, default=list)
