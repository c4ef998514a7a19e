"""One slide from open to prediction in a process of its own: seconds by part, peak memory, bytes. For other scripts."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

DRAWS = 256


def model_folder(folder: Path, encoder: str = "resnet18", draws: int = DRAWS, **arguments: Any) -> Path:
    """An ATS model with random weights, saved in a folder."""
    import torch

    from wsi_attention.models.card import ModelCard
    from wsi_attention.models.checkpoint import build_model, save_model

    torch.manual_seed(0)
    given = {"encoder": encoder, "draws": draws, **arguments}
    made = folder / f"{encoder}-{draws}"
    save_model(
        made, build_model("ats", 2, **given), ModelCard(method="ats", classes=("benign", "lesion"), arguments=given)
    )
    return made


def classified(path: str, model: str) -> dict[str, Any]:
    """What `classify` does for one slide, without exports; weights are loaded before the clock starts."""
    from wsi_attention import load_model, open_slide
    from wsi_attention.inference.predict import look, prepare

    classifier = load_model(model)
    loaded, read = peak_mb(), characters_read()
    marks = [time.perf_counter()]
    with open_slide(path) as slide:
        marks.append(time.perf_counter())
        source = prepare(slide, classifier)
        marks.append(time.perf_counter())
        prediction = look(slide, source, classifier)
        marks.append(time.perf_counter())
    opened, prepared, looked = (b - a for a, b in pairwise(marks))
    return {
        "seconds": marks[-1] - marks[0],
        "open": opened,
        "overview_and_tissue": prepared,
        "look": looked,
        "tiles": prediction.counters.tiles,
        "bytes_counted": prediction.counters.bytes,
        "bytes_read": characters_read() - read,
        "overview_pixels": prediction.overview_pixels,
        "loaded_mb": loaded,
        "rss_mb": peak_mb(),
        "reader": slide.reader,
        "status": prediction.status,
    }


def peak_mb() -> float:
    """The most memory that this process has held, in MB; unlike `ru_maxrss`, without its parent's at the fork."""
    return _number("/proc/self/status", "VmHWM:") * 1024 / 1e6


def characters_read() -> int:
    """Bytes that this process has asked of files, Python modules included."""
    return _number("/proc/self/io", "rchar:")


def _number(file: str, name: str) -> int:
    lines = Path(file).read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
