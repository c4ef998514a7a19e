"""`wsi-attention methods`."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from wsi_attention import registry
from wsi_attention.cli import methods as module
from wsi_attention.methods.method import find_method

app = typer.Typer()
app.command()(module.methods)


def test_every_method_is_a_line_with_what_it_is_and_whose() -> None:
    lines = CliRunner().invoke(app).output.splitlines()[:-2]
    assert [line.split()[0] for line in lines] == list(registry.names(registry.MODELS))
    assert lines[0].startswith("ats          ATS for stained tissue") and lines[0].endswith("[wsi-attention]")


@pytest.mark.parametrize("name", registry.names(registry.MODELS))
def test_every_option_of_a_method_stands_there_with_default_kind_and_meaning(name: str) -> None:
    output = CliRunner().invoke(app, [name]).output
    text = " ".join(output.split())
    for option in find_method(name).listed():
        assert f"{option.name} = {'nothing' if option.default is None else json.dumps(option.default)}" in text
        assert " ".join(option.meaning.split()) in text and option.limits in text
    assert max(map(len, output.splitlines())) <= 120
