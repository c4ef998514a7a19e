"""OpenVINO in place of torch for the tile encoder: where it is faster and equal, or asked for; else nothing changes."""

from __future__ import annotations

import copy
import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsi_attention.checkpoint import Classifier
from wsi_attention.devices import openvino_version
from wsi_attention.errors import InputError
from wsi_attention.inference import compiled, engine
from wsi_attention.inference.batch.classify import classify, run_key
from wsi_attention.inference.compiled import CompiledEncoder, cache_folder, key_of
from wsi_attention.inference.engine import Trial, engine_for, used_on
from wsi_attention.inference.predict import predict
from wsi_attention.nn.encoders import TileEncoder
from wsi_attention.protocols import contract_of

CPU = torch.device("cpu")
needs_openvino = pytest.mark.skipif(not openvino_version(), reason="openvino is not installed")


@pytest.fixture(autouse=True)
def tries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WSI_ATTENTION_ENGINE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("wsi_attention.devices._multiplies_in_bfloat16", lambda device: False)
    monkeypatch.setattr(engine, "_TRIALS", type(engine._TRIALS)())
    monkeypatch.setattr(engine, "_ENGINES", type(engine._ENGINES)())


def encoder_of(classifier: Classifier) -> torch.nn.Module:
    encoder = contract_of(classifier.model).encoder
    assert encoder is not None
    return encoder


def kept() -> Path:
    folder = cache_folder()
    assert folder is not None
    return folder


class Odd(torch.nn.Module):
    """An encoder that OpenVINO cannot convert."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder, self.dim = encoder, encoder.dim

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.encoder(tiles) + torch.special.bessel_j0(tiles).mean()
        return features


def test_without_the_package_nothing_is_tried_and_asking_for_it_says_what_to_install(
    tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "openvino_version", lambda: "")
    monkeypatch.setattr("wsi_attention.devices.openvino_version", lambda: "")
    assert used_on(tiny, CPU, "auto") == ("32", "")
    with pytest.raises(InputError, match=r"pip install 'openvino>="):
        used_on(tiny, CPU, "openvino")
    assert engine_for(tiny, "32") is None
    assert not kept().exists()


def test_only_the_processor_and_only_where_it_is_asked_or_left_open(
    tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_attention.devices.openvino_version", lambda: "1")
    monkeypatch.setattr(engine, "openvino_version", lambda: "1")
    with pytest.raises(InputError, match="openvino computes on the CPU, and the device is cuda:1"):
        used_on(tiny, torch.device("cuda:1"), "openvino")
    monkeypatch.setattr(engine, "_tried", lambda classifier: Trial(True, "faster"))
    assert [used_on(tiny, CPU, one) for one in ("auto", "32", "bf16")] == [
        ("openvino", "faster"),
        ("32", ""),
        ("bf16", ""),
    ]
    monkeypatch.setattr("wsi_attention.devices._multiplies_in_bfloat16", lambda device: True)
    assert used_on(tiny, CPU, "auto") == ("bf16", "")
    monkeypatch.setattr("wsi_attention.devices._multiplies_in_bfloat16", lambda device: False)
    monkeypatch.setenv("WSI_ATTENTION_ENGINE", "torch")
    assert used_on(tiny, CPU, "auto") == ("32", "")


def test_results_know_what_computed_them(tiny: Classifier) -> None:
    assert run_key(tiny, "openvino") != run_key(tiny, "32")
    assert run_key(tiny, "openvino").settings["precision"] == "openvino"


@needs_openvino
def test_a_prediction_by_openvino_is_equal_but_for_last_bits_and_says_so(
    tiny: Classifier, tmp_path: Path, write_slide: Callable[..., Any]
) -> None:
    path = write_slide(tmp_path / "x.tif")
    torch_s, own = (
        predict(path, tiny, device="cpu", precision="32"),
        predict(path, tiny, device="cpu", precision="openvino"),
    )
    np.testing.assert_allclose(own.probabilities, torch_s.probabilities, atol=1e-6)
    assert own.provenance["precision"] == "openvino"
    assert own.provenance["engine"] == {"openvino": openvino_version(), "why": "as asked"}
    assert torch_s.provenance["precision"] == "32" and "engine" not in torch_s.provenance
    report = classify(path, tmp_path / "out", tiny, what="tiles", device="cpu", precision="openvino", in_process=True)
    assert report.statuses == {"done": 1}
    assert '"precision": "openvino"' in (tmp_path / "out/states/x.json").read_text()


@needs_openvino
def test_a_trial_is_kept_and_made_again_where_its_record_is_damaged(
    tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, why = used_on(tiny, CPU, "auto")
    assert used == "32" and "too little to gain" in why
    monkeypatch.setattr(engine, "LEAST", 0.0)
    monkeypatch.setattr(engine, "FASTER", 0.0)
    assert used_on(tiny, CPU, "auto") == ("32", why)
    engine._TRIALS.clear()
    assert used_on(tiny, CPU, "auto") == ("32", why)
    (record,) = kept().glob("*.json")
    for damaged in (b"", b"[]", b'{"better": 1, "why": "x"}', b"\xff{"):
        record.write_bytes(damaged)
        assert engine._read(record) is None
    engine._TRIALS.clear()
    used, why = used_on(tiny, CPU, "auto")
    assert used == "openvino" and "times as fast as torch" in why
    monkeypatch.setattr(engine, "EQUAL", -1.0)
    record.unlink()
    engine._TRIALS.clear()
    used, why = used_on(tiny, CPU, "auto")
    assert used == "32" and "features of OpenVINO differ" in why


@needs_openvino
def test_nothing_is_told_to_a_server() -> None:
    """OpenVINO's import would, and its `convert_model` too."""
    assert compiled.without_telemetry().get_version()
    assert sys.modules["openvino.tools.ovc.telemetry_utils"].tm.__name__ == "openvino.tools.ovc.telemetry_stub"


@needs_openvino
def test_a_compiled_encoder_is_loaded_from_disk_unless_it_is_damaged(
    tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, tiles = encoder_of(tiny), torch.rand(5, 3, 32, 32)
    with torch.inference_mode():
        expected = encoder(tiles)
        first = CompiledEncoder(encoder)(encoder, tiles)
        torch.testing.assert_close(first, expected, rtol=0, atol=1e-5)
        (blob,) = kept().glob("*.blob")
        content = blob.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(compiled, "_converted", lambda *given: pytest.fail("converted again"))
            assert torch.equal(CompiledEncoder(encoder)(encoder, tiles), first)
        for damaged in (b"", content[:50], content[:-100] + bytes(100)):
            blob.write_bytes(damaged)
            assert compiled._stored(blob) is None
        assert torch.equal(CompiledEncoder(encoder)(encoder, tiles), first)
        assert compiled._stored(blob) is not None
        other = torch.nn.Flatten()
        assert torch.equal(CompiledEncoder(encoder)(other, tiles), other(tiles))


def test_a_folder_that_cannot_be_written_is_no_matter_and_what_is_oldest_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    compiled.write_kept(tmp_path / "file" / "a.blob", b"1")
    monkeypatch.setattr(compiled, "MOST_KEPT", 5)
    for number, name in enumerate("abc"):
        compiled.write_kept(tmp_path / "kept" / name, b"12")
        os.utime(tmp_path / "kept" / name, (number, number))
    compiled.write_kept(tmp_path / "kept" / "d", b"12")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["c", "d"]


@needs_openvino
def test_an_encoder_that_cannot_be_converted_stays_in_torch_with_the_reason(
    tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LEAST", 0.0)
    odd = replace(tiny, model=copy.deepcopy(tiny.model))
    odd.model.encoder = Odd(encoder_of(tiny))
    used, why = used_on(odd, CPU, "auto")
    assert used == "32" and why.startswith("OpenVINO cannot convert the encoder: ")
    assert engine.facts_of(why) == {"engine": {"openvino": openvino_version(), "why": why}}
    assert used_on(odd, CPU, "openvino") == ("32", why)


@needs_openvino
def test_features_that_differ_leave_a_model_or_a_size_of_tiles_to_torch(
    tiny: Classifier, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoder, tiles = encoder_of(tiny), torch.rand(3, 3, 40, 40)
    compiled_one = CompiledEncoder(encoder)
    compiled_one.model((3, 32, 32))
    monkeypatch.setattr(compiled, "EQUAL", -1.0)
    with torch.inference_mode():
        assert torch.equal(compiled_one(encoder, tiles), encoder(tiles))
    assert "tiles of 3 x 40 x 40 are encoded by torch, not OpenVINO: features of OpenVINO differ" in caplog.text
    used, why = used_on(tiny, CPU, "openvino")
    assert used == "32" and why.startswith("features of OpenVINO differ by ")
    assert engine.used_by_all(tiny, CPU, "openvino") == "32"
    still = engine._still(Trial(True, "faster"), CompiledEncoder(encoder), (3, 32, 32))
    assert not still.better and "differ" in still.why


@needs_openvino
def test_a_blob_of_another_encoder_is_not_believed(tiny: Classifier) -> None:
    encoder, shape = encoder_of(tiny), (3, 32, 32)
    other = copy.deepcopy(encoder)
    with torch.no_grad():
        next(other.parameters()).mul_(-1)
    CompiledEncoder(other).model(shape)
    (blob,) = kept().glob("*.blob")
    own = blob.with_name(f"{key_of(encoder, shape)}.blob")
    blob.rename(own)
    tiles = torch.rand(5, *shape)
    with torch.inference_mode():
        torch.testing.assert_close(CompiledEncoder(encoder)(encoder, tiles), encoder(tiles), rtol=0, atol=1e-5)


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache/wsi-attention/openvino"

    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    assert cache_folder() is None and compiled.kept_at("x") is None
    compiled.write_kept(None, b"1")
    assert compiled._stored(None) is None and engine._read(None) is None


def test_a_folder_that_can_only_be_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled.write_kept(tmp_path / "a.blob", hashlib.sha256(b"body").digest() + b"body")

    def refuse(*given: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    assert compiled._stored(tmp_path / "a.blob") == b"body"


def test_links_and_folders_stop_nothing_and_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, victim = tmp_path / "kept", tmp_path / "victim"
    victim.write_text("mine")
    (folder / "inner").mkdir(parents=True)
    (folder / "broken").symlink_to(tmp_path / "gone")
    (folder / ".tmp-b").symlink_to(victim)
    monkeypatch.setattr(compiled, "MOST_KEPT", 3)
    compiled.write_kept(folder / "a", b"12")
    os.utime(folder / "a", (0, 0))
    compiled.write_kept(folder / "b", b"34")
    assert sorted(path.name for path in folder.iterdir()) == [".tmp-b", "b", "broken", "inner"]
    assert (victim.read_text(), (folder / "b").read_bytes()) == ("mine", b"34")


def test_methods_that_look_inside_the_encoder_and_encoders_with_listeners_stay_in_torch(tiny: Classifier) -> None:
    assert engine.hindrance(replace(tiny, config={**tiny.config, "method": "tnet"}), encoder_of(tiny))
    assert not engine.hindrance(tiny, encoder_of(tiny))
    handle = next(encoder_of(tiny).children()).register_forward_hook(lambda *given: None)
    assert "listens" in engine.hindrance(tiny, encoder_of(tiny))
    handle.remove()


def test_what_a_compiled_encoder_depends_on(tiny: Classifier) -> None:
    encoder = copy.deepcopy(encoder_of(tiny))
    before = key_of(encoder, (3, 32, 32))
    pooled = [key_of(encoder, (3, 32, 32), {"name": "vit", "pooling": one}) for one in ("cls", "mean")]
    assert len({before, *pooled}) == 3
    assert key_of(encoder, (3, 32, 32), {"name": "vit", "pooling": "cls", "frozen": True}) == pooled[0]
    assert before == key_of(encoder, (3, 32, 32)) != key_of(encoder, (3, 64, 64))
    with torch.no_grad():
        next(encoder.parameters()).add_(1)
    assert key_of(encoder, (3, 32, 32)) != before


def test_an_encoder_of_several_turns_is_compiled_with_all_of_them() -> None:
    made = [TileEncoder(widths=(8, 8), features=8, frozen=True, turns=turns).build().eval() for turns in (1, 8)]
    made[1].load_state_dict(made[0].state_dict())
    tiles = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        one, eight = (compiled.CompiledEncoder(encoder)(encoder, tiles) for encoder in made)
        torch.testing.assert_close(eight, made[1](tiles))
    assert float((one - eight).abs().max()) > 1e-3
    assert key_of(made[0], (3, 32, 32)) != key_of(made[1], (3, 32, 32))
