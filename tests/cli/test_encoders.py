"""`wsi-attention encoders`: a line an encoder, all facts of one, and what is not established says so."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from wsi_attention.cli.app import app
from wsi_attention.encoders.table import entries
from wsi_attention.errors import InputError


def run(*words: str) -> str:
    ran = CliRunner().invoke(app, ["encoders", *words])
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    return ran.output


def test_every_encoder_is_a_line() -> None:
    head, *lines = run().splitlines()
    assert head.split() == ["name", "features", "input", "µm/px", "licence", "commercial", "gated"]
    assert [line.split()[0] for line in lines if line and not line.startswith("?")] == list(entries())
    (uni2,) = [line for line in lines if line.startswith("uni2-h ")]
    assert uni2.split() == ["uni2-h", "1536", "224", "0.5", "CC-BY-NC-ND-4.0", "no", "yes"]
    (mstar,) = [line for line in lines if line.startswith("mstar ")]
    assert mstar.split() == ["mstar", "1024", "224", "0.5", "?", "?", "yes"]
    assert "?: not established" in lines[-1]


def test_one_encoder_with_its_licence_and_what_nobody_knows() -> None:
    facts = dict(line.split("  ", 1) for line in run("gigapath").splitlines() if "  " in line and line[0] != " ")
    told = {key: value.strip() for key, value in facts.items()}
    assert told["licence"] == "Apache-2.0 with conditions" and told["commercial use"] == "no"
    assert told["may be given on"] == "not established" and told["gated"] == "yes"
    assert told["tiles"] == "256 or 224 px" and told["scale"] == "0.5 µm/px"
    assert told["resize"] == "other tiles than 224 px to 256 px, bicubic, then the centre of 224 px"
    assert told["mean"] == "0.485, 0.456, 0.406" and told["feature"] == "1536 numbers: class token"


@pytest.mark.parametrize("name", entries())
def test_every_encoder_can_be_shown(name: str) -> None:
    output = run(name)
    assert output.startswith(f"{name}: ") and entries()[name].repository in output
    if not entries()[name].licence:
        assert "licence           not established" in output


def test_a_slip_is_one_sentence() -> None:
    with pytest.raises(InputError, match="'uni2h' is not known; did you mean 'uni2-h'"):
        run("uni2h")
