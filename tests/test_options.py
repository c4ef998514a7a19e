"""Options: a value is checked wherever it comes from, and a mistake is one line that says what is possible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, fields

import pytest

from wsi_attention import registry
from wsi_attention.config import Recipe
from wsi_attention.errors import InputError
from wsi_attention.methods.method import FunctionMethod, Method, find_method
from wsi_attention.nn.encoders import TileEncoder
from wsi_attention.options import Options, listed, option, other_default, parse, table

OURS = [name for name in registry.names(registry.MODELS) if registry.origin(registry.MODELS, name) == "wsi-attention"]


@dataclass(frozen=True, kw_only=True)
class Inner(Options):
    """A table in a table."""

    name: str = option("plain", "a name")
    sides: tuple[int, ...] = option((2, 3), "sides in pixels", low=1)

    @classmethod
    def named(cls, name: str) -> Inner:
        return cls(name=name)


@dataclass(frozen=True, kw_only=True)
class Outer(Options):
    """Every kind of field."""

    count: int = option(4, "how many", low=1, high=9)
    share: float = option(0.5, "a share", "a paper, §2", low=0, high=1)
    kind: str = option("a", "which", choices=("a", "b"))
    index: int | None = option(None, "an index, or none")
    on: bool = option(True, "a switch")
    inner: Inner = option(Inner(), "a table")
    more: Mapping[str, object] = table("anything")

    def check(self) -> None:
        if self.kind == "b" and not self.on:
            raise InputError("kind 'b' needs on = true")


@dataclass(frozen=True, kw_only=True)
class Further(Outer):
    count: int = other_default(Outer, "count", 7, "another paper")


def test_values_become_what_the_fields_are() -> None:
    made = parse(Outer, {"share": 1, "inner": {"sides": [4]}, "more": {"x": [1]}}, "here")
    assert (made.share, type(made.share), made.inner.sides, made.more) == (1.0, float, (4,), {"x": [1]})
    assert parse(Outer, {"inner": "vit"}, "here").inner == Inner(name="vit")
    assert parse(Outer, made.as_dict(), "here") == made
    with pytest.raises(FrozenInstanceError):
        made.count = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"coutn": 1}, r"here: unknown key 'coutn'; did you mean 'count'\?"),
        ({"count": 0}, "here: count is 0; it must lie between 1 and 9"),
        ({"count": 1.0}, "count must be a whole number, not 1.0"),
        ({"count": True}, "count must be a whole number, not True"),
        ({"count": None}, "count must be a whole number, not None"),
        ({"share": float("nan")}, "share is nan"),
        ({"share": "1"}, "share must be a number, not '1'"),
        ({"kind": "c"}, "kind is 'c'; possible: a, b"),
        ({"index": 1e300}, "index must be a whole number"),
        ({"index": 10**13}, "index is 1e\\+13; it must lie between"),
        ({"on": 1}, "on must be true or false, not 1"),
        ({"inner": 3}, "inner must be a table"),
        ({"inner": {"sides": [2, 0]}}, r"\[inner\]: sides is 0"),
        ({"inner": {"sides": 2}}, r"\[inner\]: sides must be a list of whole numbers, not 2"),
        ({"inner": {"side": [2]}}, r"\[inner\]: unknown key 'side'; did you mean 'sides'\?"),
        ({"more": []}, "more must be a table"),
        ({"kind": "b", "on": False}, "kind 'b' needs on = true"),
    ],
)
def test_a_mistake_is_one_line(given: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        parse(Outer, given, "here")
    assert "\n" not in str(caught.value)


def test_python_callers_are_checked_too() -> None:
    with pytest.raises(InputError, match="count is 10"):
        Outer(count=10)


def test_an_option_of_a_parent_takes_another_default_and_keeps_its_meaning() -> None:
    assert Further().count == 7
    found = {one.name: one for one in listed(Further)}
    assert (found["count"].meaning, found["count"].source, found["count"].limits) == (
        "how many",
        "another paper",
        "1 to 9",
    )
    assert found["inner.sides"].default == [2, 3] and found["inner.sides"].limits == "at least 1"


@pytest.mark.parametrize("name", OURS)
def test_every_option_of_every_method_says_what_it_means(name: str) -> None:
    method = find_method(name)
    assert isinstance(method, Method) and method.summary.endswith(".") and "http" in method.paper
    found = list(method.listed())
    assert {one.name.split(".")[0] for one in found} == set(method.names())
    for one in found:
        assert len(one.meaning) > 5 and not one.meaning.endswith("."), one.name
    assert method.complete(method.complete({})) == method.complete({})
    assert all(one.kw_only for one in fields(method.options))


def test_recipes_say_what_their_options_mean() -> None:
    assert all(len(one.meaning) > 5 for one in listed(Recipe))


def test_names_beside_the_encoder_are_its_options() -> None:
    found = find_method("ats").complete({"encoder": "vit", "features": 64, "encoder_frozen": True})["encoder"]
    assert found == TileEncoder(name="vit", features=64, frozen=True).as_dict()
    assert find_method("ats").complete({"encoder": {"pool": "max"}, "features": 64})["encoder"]["pool"] == "max"  # type: ignore[index]


def test_a_plain_function_is_a_method_too() -> None:
    def build(classes: int, *, tiles: int = 8, name: str = "x") -> object:
        """Builds a thing.

        At length.
        """
        return classes, tiles, name

    method = FunctionMethod(build)  # type: ignore[arg-type]
    assert method(2, tiles=3) == (2, 3, "x")
    assert (method.summary, method.names()) == ("Builds a thing.", ("tiles", "name"))
    assert [(one.name, one.default) for one in method.listed()] == [("tiles", 8), ("name", "x")]
    with pytest.raises(InputError, match=r"unknown key 'tile'; did you mean 'tiles'\?"):
        method(2, tile=3)
    with pytest.raises(InputError, match="tiles is inf"):
        method(2, tiles=float("inf"))
