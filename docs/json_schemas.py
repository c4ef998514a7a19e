"""JSON schemas of what a results folder and a model folder hold, made from the types and from what the writers write.

Dataclasses and typed dictionaries say their fields themselves. Where the file is laid out by hand (the record of a
prediction, GeoJSON), the schema is what all examples of `wsi_attention.testing` have in common.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from functools import reduce
from typing import NotRequired, Union, get_args, get_origin, get_type_hints

from wsi_attention.export import geojson_features, to_record
from wsi_attention.inference.results.state import State
from wsi_attention.model_card import ModelConfig
from wsi_attention.testing import example_prediction
from wsi_attention.testing.exporters import EXAMPLES

Schema = dict[str, object]
DRAFT = "https://json-schema.org/draft/2020-12/schema"
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
FREE = ("provenance", "versions")
"""Objects whose keys are not promised."""
NUMBERS = ("measurements", "probabilities", "values")
"""Objects of numbers whose keys differ from file to file, such as the names of classes."""


def schemas() -> dict[str, Schema]:
    """Return each schema by the name of its file."""
    predictions = [example_prediction(kind=kind) for kind in EXAMPLES]
    state = of_type(State)
    state["properties"] |= {"format": {"type": "integer"}, "record": of_record(predictions)}
    state["required"] = sorted({*state["required"], "format"} - {"patient"})
    return {
        "state": named(state, "states/<slide>.json: status, row, dependencies and the whole prediction of a slide"),
        "geojson": named(
            of_values([geojson_features(one) for one in predictions]),
            "geojson/<slide>.geojson: tiles and regions for QuPath; every number of `measurements` is finite",
        ),
        "model": named(of_type(ModelConfig), "config.json of a model folder"),
    }


def named(schema: Schema, description: str) -> Schema:
    """Return a schema with its head."""
    return {"$schema": DRAFT, "description": description, **schema}


def of_record(predictions: Sequence[object]) -> Schema:
    """Return the schema of a state's `record`, which is absent where a slide has no prediction."""
    found = of_values([to_record(one) for one in predictions])
    return {"anyOf": [found, {"type": "null"}]}


def of_type(kind: object) -> Schema:
    """Return the schema of a type as the package writes its values in JSON."""
    if kind in PLAIN:
        return {"type": PLAIN[kind]}
    if is_dataclass(kind) or hasattr(kind, "__required_keys__"):
        return _of_fields(kind)
    return _of_generic(kind)


def _of_generic(kind: object) -> Schema:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [of_type(one) for one in get_args(kind)]}
    if origin is NotRequired:
        return of_type(get_args(kind)[0])
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": of_type(get_args(kind)[1])}
    if origin in (tuple, list):
        return {"type": "array", "items": of_type(get_args(kind)[0])}
    return {}


def _of_fields(kind: object) -> Schema:
    hints = get_type_hints(kind, include_extras=True)
    told = _meanings(kind.__doc__ or "")
    properties = {name: of_type(one) | _description(told.get(name)) for name, one in hints.items()}
    # `beside` and what begins so is written only where slides were looked at together
    optional = {name for name, one in hints.items() if get_origin(one) is NotRequired or name.startswith("beside")}
    needed = sorted(hints.keys() - optional)
    return {"type": "object", "properties": properties, "required": needed}


def _description(told: str | None) -> Schema:
    return {"description": told} if told else {}


def _meanings(docstring: str) -> dict[str, str]:
    """Return name -> meaning from the section "Attributes:" of a docstring."""
    section = docstring.partition("Attributes:\n")[2]
    found = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", section, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in found}


def of_values(values: Sequence[object]) -> Schema:
    """Return the schema that all values of one place keep to."""
    return reduce(_joined, map(_of_value, values))


def _of_value(value: object, name: str = "") -> Schema:
    if isinstance(value, Mapping):
        if name in FREE:
            return {"type": "object"}
        if name in NUMBERS and all(isinstance(one, int | float) for one in value.values()):
            return {"type": "object", "additionalProperties": {"type": "number"}}
        properties = {key: _of_value(one, key) for key, one in value.items()}
        return {"type": "object", "properties": properties, "required": sorted(properties)}
    if isinstance(value, list | tuple):
        items = [_of_value(one, name) for one in value]
        return {"type": "array", **({"items": reduce(_joined, items)} if items else {})}
    kind = PLAIN[type(json.loads(json.dumps(value)))]
    return {"type": "number" if kind == "integer" else kind}


def _joined(one: Schema, other: Schema) -> Schema:
    """Return the schema of values that keep to either."""
    if one == other or not other:
        return one
    if one.get("type") != other.get("type") or "anyOf" in one:
        known = one.get("anyOf", [one])
        rest = [of for of in other.get("anyOf", [other]) if of not in known]
        return {"anyOf": [*known, *rest]}
    if one["type"] == "array":
        items = [of["items"] for of in (one, other) if "items" in of]
        return {"type": "array", **({"items": reduce(_joined, items)} if items else {})}
    if "properties" not in one or "properties" not in other:
        return one
    keys = dict.fromkeys([*one["properties"], *other["properties"]])
    both = {key: [of["properties"][key] for of in (one, other) if key in of["properties"]] for key in keys}
    required = sorted({*one["required"]} & {*other["required"]})
    return {"type": "object", "properties": {k: reduce(_joined, v) for k, v in both.items()}, "required": required}
