"""Pickles of weights become safetensors in another process; what is more than tensors is refused in a sentence."""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from wsi_attention.encoders.conversion import About, about_file, convert
from wsi_attention.encoders.conversion_process import Refused, loaded, unwrapped
from wsi_attention.encoders.encoder_weights import read_encoder
from wsi_attention.encoders.origin import Origin
from wsi_attention.errors import InputError

pytestmark = pytest.mark.usefixtures("warm_processes")
NET = {"conv.weight": torch.arange(12.0).reshape(3, 4), "conv.bias": torch.ones(3, dtype=torch.float16)}
LAB = Origin("lab-vit", "lab/vit", "", "CC-BY-NC-ND-4.0", False)


def pickled(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def under(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in NET.items()}


@pytest.mark.parametrize(
    ("content", "inside"),
    [
        (NET, []),
        ({"state_dict": NET, "epoch": 3}, ["state_dict"]),
        ({"model": under("module.")}, ["model", "module."]),
        (
            {"student": {}, "teacher": under("backbone.") | {"dino_head.weight": torch.ones(2)}},
            ["teacher", "backbone."],
        ),
        ({"state_dict": {"model": under("module.backbone.")}}, ["state_dict", "model", "module.", "backbone."]),
        (under("_orig_mod."), ["_orig_mod."]),
    ],
    ids=["plain", "state_dict", "module", "teacher", "nested", "compiled"],
)
def test_state_dicts_are_found_where_training_programs_put_them(content: object, inside: list[str]) -> None:
    found, way, left = unwrapped(content)
    assert found.keys() == NET.keys()
    assert all(found[name] is value for name, value in NET.items())
    assert way == inside
    assert left == (["dino_head.weight"] if "teacher" in inside else [])


def test_a_file_is_converted_whole(tmp_path: Path) -> None:
    done = convert(pickled(tmp_path / "w.pth", {"teacher": under("backbone."), "epoch": 3}))
    assert done.path == tmp_path / "w.safetensors"
    (tmp_path / "usual").touch()
    assert done.path.stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert done.sentence == f"{done.path}: 2 tensors, found under teacher > backbone."
    found = load_file(done.path)
    assert found.keys() == NET.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in NET.items())


def test_colours_and_origin_are_kept(tmp_path: Path) -> None:
    source = pickled(tmp_path / "w.bin", NET)
    done = convert(source, tmp_path / "new" / "lab.safetensors", About((0.7, 0.5, 0.6), (0.2, 0.3, 0.1), LAB))
    weights = read_encoder(done.path)
    assert (weights.mean, weights.std, weights.origin) == ((0.7, 0.5, 0.6), (0.2, 0.3, 0.1), LAB)
    with safe_open(done.path, framework="pt") as file:
        told = json.loads(file.metadata()["wsi_attention"])
    assert told["made_from"] == "w.bin"
    assert len(told["made_from_sha256"]) == 64


def test_colours_and_origin_come_from_where_the_file_lies(tmp_path: Path) -> None:
    folder = tmp_path / "models--lab--net" / "snapshots" / ("a" * 40)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"architecture": "vit", "pretrained_cfg": {"mean": [0.7, 0.5, 0.6], "std": [0.2, 0.3, 0.1]}})
    )
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-nd-4.0\ntags: [x]\n---\n# A network\n")
    about = about_file(folder / "pytorch_model.bin")
    assert (about.mean, about.std) == ((0.7, 0.5, 0.6), (0.2, 0.3, 0.1))
    assert about.origin == Origin(f"hub:lab/net@{'a' * 40}", "lab/net", "a" * 40, "cc-by-nc-nd-4.0", False)
    assert about_file(tmp_path / "w.bin") == About()
    known = about_file(tmp_path / "w.bin", "UNI2-h")
    assert (known.origin.name, known.origin.redistributable) == ("uni2-h", False)
    assert known.mean == (0.485, 0.456, 0.406)
    assert about_file(tmp_path / "w.bin", "uni2-h", (0.1,), (0.2,)).mean == (0.1,)
    with pytest.raises(InputError, match="encoder 'uni2h' is not known; did you mean 'uni2-h'"):
        about_file(tmp_path / "w.bin", "uni2h")
    with pytest.raises(InputError, match="mean has 1 values and std 0"):
        about_file(tmp_path / "w.bin", None, (0.1,))


class Hostile:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def refusal(source: Path) -> str:
    with pytest.raises(InputError) as caught:
        convert(source)
    assert not [*source.parent.glob("*.safetensors"), *source.parent.glob(".tmp*")]
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_full_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    text = refusal(pickled(tmp_path / "w.bin", Hostile(tmp_path / "ran")))
    assert re.search(
        r"w.bin is not converted: it is a full pickle \(it wants \w+.mkdir\), which can run any code", text
    )
    assert "ask its authors for safetensors" in text
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        ({"teacher": NET, "args": argparse.Namespace(lr=1)}, "argparse.Namespace"),
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"path": Path("x")}, "pathlib."),
    ],
)
def test_what_is_more_than_tensors_is_named(content: object, asked: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=rf"it is a full pickle \(it wants {asked}"):
        loaded(str(pickled(tmp_path / "w.bin", content)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\3\4 cut short", "cannot be read as tensors"),
        (b"", "cannot be read as tensors"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is no file of torch.save"),
    ],
)
def test_files_that_are_none_are_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(content)
    with pytest.raises(Refused, match=reason) as caught:
        loaded(str(tmp_path / "w.bin"))
    assert "\n" not in str(caught.value)


def test_what_holds_no_tensors_by_name_is_said(tmp_path: Path) -> None:
    for content, held in (({"epoch": 1, "loss": 2.0}, "epoch, loss"), ([torch.ones(2)], "list"), ({}, "dict")):
        with pytest.raises(Refused, match=f"it holds no tensors by name, it holds {held}"):
            unwrapped(content)
    with pytest.raises(InputError, match=r"nowhere.bin does not exist"):
        convert(tmp_path / "nowhere.bin")
    (tmp_path / "x.safetensors").touch()
    with pytest.raises(InputError, match=r"convert turns \.bin.* into \.safetensors, not"):
        convert(tmp_path / "x.safetensors")
