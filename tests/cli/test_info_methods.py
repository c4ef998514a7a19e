"""`wsi-attention methods`."""

from __future__ import annotations

import typer
from typer.testing import CliRunner

from wsi_attention import registry
from wsi_attention.cli import info as module

app = typer.Typer()
app.command()(module.methods)


def test_every_method_is_a_line_with_what_it_is_and_whose() -> None:
    lines = CliRunner().invoke(app).output.splitlines()
    assert [line.split()[0] for line in lines] == list(registry.names(registry.MODELS))
    assert lines[0].startswith("ats          ATS for stained tissue") and lines[0].endswith("[wsi-attention]")
