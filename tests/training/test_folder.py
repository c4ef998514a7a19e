"""Beginning anew removes what training wrote, and nothing of the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_attention.errors import InputError
from wsi_attention.training.folder import forget

OURS = (
    "training/finished.json",
    "training/learning_curve.svg",
    "training/metrics.csv",
    "training/split.csv",
    "training/state.safetensors",
)
MODEL = ("README.md", "config.json", "model.safetensors")


def filled(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    return folder


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_all_that_training_wrote_goes(tmp_path: Path) -> None:
    forget(filled(tmp_path, *OURS, *MODEL, "training/.tmp-state.safetensors"))
    assert left(tmp_path) == []


def test_maps_that_a_kill_left_without_a_model_go_too(tmp_path: Path) -> None:
    forget(filled(tmp_path, *OURS, "attention_maps.zarr.zip"))
    assert left(tmp_path) == []


def test_what_is_the_users_own_stays(tmp_path: Path) -> None:
    forget(filled(tmp_path, "README.md", "notes.txt", "training/slide.svs"))
    assert left(tmp_path) == ["README.md", "notes.txt", "training", "training/slide.svs"]
    forget(filled(tmp_path, *OURS))
    assert left(tmp_path) == ["README.md", "notes.txt", "training", "training/slide.svs"]


def test_a_model_from_elsewhere_stays(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was not trained there"):
        forget(filled(tmp_path, *MODEL, "training/slide.svs"))
    assert len(left(tmp_path)) == 5
