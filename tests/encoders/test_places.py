"""Weights are found in the own folder and in the hub's cache, without the hub's package and without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_attention.encoders.origin import Origin, permission
from wsi_attention.encoders.places import (
    VARIABLE,
    hub_cache,
    on_this_machine,
    own_file,
    own_folder,
    repository_of,
    snapshot,
    weights_in,
)
from wsi_attention.encoders.published import licence_of, origin_of_path, published

COMMIT = "f" * 40


def cached(cache: Path, reference: str = "main") -> Path:
    """A repository in a hub's cache."""
    folder = cache / "models--lab--vit"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / reference).write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True, exist_ok=True)
    return folder / "snapshots" / COMMIT


def test_the_variables_of_the_hub_and_of_this_package_say_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (VARIABLE, "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert own_folder() == tmp_path / "wsi-attention" / "encoders"
    assert hub_cache() == tmp_path / "huggingface" / "hub"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert hub_cache() == tmp_path / "hf" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    assert hub_cache() == tmp_path / "cache"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "ours"))
    assert own_file("uni2-h") == tmp_path / "ours" / "uni2-h.safetensors"
    assert (
        own_file("timm:hf-hub:lab/vit@v1")
        == own_file("hub:lab/vit@v1")
        == tmp_path / "ours" / "lab--vit@v1.safetensors"
    )
    assert own_file("../../etc/passwd").parent == tmp_path / "ours"


def test_snapshots_are_found_by_branch_and_by_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert snapshot("lab/vit") is None
    folder = cached(tmp_path)
    assert snapshot("lab/vit") == snapshot("lab/vit", "main") == snapshot("lab/vit", COMMIT) == folder
    assert snapshot("lab/vit", "other") is None
    assert repository_of(folder / "model.safetensors") == ("lab/vit", COMMIT)
    assert repository_of(tmp_path) == ("", "")


def test_the_own_folder_comes_before_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "ours"))
    origin = Origin("lab-vit", "lab/vit")
    folder = cached(tmp_path / "hub")
    (folder / "pytorch_model.bin").touch()
    assert on_this_machine(origin) == []
    (folder / "model.safetensors").touch()
    assert on_this_machine(origin) == [folder / "model.safetensors"]
    (tmp_path / "ours" / "lab-vit").mkdir(parents=True)
    (tmp_path / "ours" / "lab-vit" / "weights.safetensors").touch()
    assert on_this_machine(origin)[0] == tmp_path / "ours" / "lab-vit" / "weights.safetensors"
    (tmp_path / "ours" / "lab-vit.safetensors").touch()
    assert on_this_machine(origin)[0] == tmp_path / "ours" / "lab-vit.safetensors"


def test_one_file_is_the_weights_and_of_two_none(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").touch()
    assert weights_in(tmp_path) == tmp_path / "a.safetensors"
    (tmp_path / "b.safetensors").touch()
    assert weights_in(tmp_path) is None
    (tmp_path / "model.safetensors").touch()
    assert weights_in(tmp_path) == tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("head", "licence", "allowed"),
    [
        ("license: apache-2.0", "apache-2.0", True),
        ("license: MIT", "MIT", True),
        ("license: 'cc-by-nc-nd-4.0'", "cc-by-nc-nd-4.0", False),
        ("license: other\nlicense_name: owkin-non-commercial", "owkin-non-commercial", None),
        ("tags: [a]", "", None),
    ],
)
def test_a_page_of_the_hub_says_the_licence(head: str, licence: str, allowed: bool | None, tmp_path: Path) -> None:
    folder = cached(tmp_path)
    (folder / "README.md").write_text(f"---\n{head}\n---\n# A network\nlicense: mit\n")
    assert licence_of(folder / "README.md") == licence
    assert permission(licence) is allowed
    found = origin_of_path(folder / "model.safetensors")
    assert (found.repository, found.revision, found.licence, found.redistributable) == (
        "lab/vit",
        COMMIT,
        licence,
        allowed,
    )


def test_names_of_encoders_say_who_publishes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert not published("small")
    assert not published("timm:resnet50")
    assert published("UNI2_h") == published("hub:MahmoodLab/UNI2-h")
    assert published("uni2-h").redistributable is False
    (cached(tmp_path, "v2") / "README.md").write_text("---\nlicense: mit\n---\n")
    assert published("hub:lab/vit@v2") == Origin("hub:lab/vit@v2", "lab/vit", "v2", "mit", True)
    assert published("timm:hf-hub:lab/other") == Origin("hub:lab/other", "lab/other")


def test_an_origin_goes_through_json_and_says_its_rights() -> None:
    origin = Origin("uni", "lab/uni", "v1", "CC-BY-NC-ND-4.0", False)
    assert Origin.of(origin.as_dict()) == origin
    assert Origin.of(None) == Origin.of({"name": 3}) == Origin.of([]) == Origin()
    assert (Origin().contained, origin.contained, Origin("x", redistributable=True).contained) == (True, False, True)
    assert Origin("x").rights == "licence not known, not known whether it may be given on"
