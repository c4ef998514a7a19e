"""One slide from open to prediction in a process of its own: seconds by part, peak memory, bytes. For other scripts."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

DRAWS = 256


def model_folder(folder: Path, draws: int = DRAWS, encoder: str = "resnet18", **arguments: Any) -> Path:
    """ATS with random weights and tiles of 256 px at full resolution, saved in a folder.

    Attention is near uniform at random weights: the tiles lie all over the tissue, the dearest case for reading.
    """
    import torch

    from wsi_attention.checkpoint import build_model, save_model
    from wsi_attention.model_card import ModelCard

    torch.manual_seed(0)
    arguments = {"encoder": encoder, "draws": draws, "tile_size": 256, "tile_mpp": 0.25} | arguments
    made = folder / f"{encoder}-{draws}"
    card = ModelCard(method="ats", classes=("benign", "lesion"), arguments=arguments)
    save_model(made, build_model("ats", 2, **arguments), card)
    return made


def classified(path: str, model: str, first: str | None = None, reader: str = "auto") -> dict[str, Any]:
    """What `classify` does for one slide, without exports; weights are loaded before the clock starts.

    Args:
        path: of the slide.
        model: a model folder or a shipped name.
        first: another slide that is classified before the clock starts, so that modules are imported and libraries
            have prepared themselves; None to measure a process that has done nothing yet.
        reader: as for `open_slide`.
    """
    from wsi_attention import load_model, open_slide
    from wsi_attention.inference.predict import look, prepare

    classifier = load_model(model)
    if first is not None:
        classified(first, model)
    loaded, read, fetched = peak_mb(), characters_read(), storage_read()
    cpu, marks = time.process_time(), [time.perf_counter()]
    with open_slide(path, reader=reader) as slide:
        marks.append(time.perf_counter())
        source = prepare(slide, classifier)
        marks.append(time.perf_counter())
        prediction = look(slide, source, classifier)
        marks.append(time.perf_counter())
        index = index_bytes(slide)
    opened, prepared, looked = (b - a for a, b in pairwise(marks))
    return {
        "seconds": marks[-1] - marks[0],
        "cpu_seconds": time.process_time() - cpu,
        "open": opened,
        "overview_and_tissue": prepared,
        "look": looked,
        "tiles": prediction.counters.tiles,
        "bytes_counted": prediction.counters.bytes,
        "bytes_index": index,
        "bytes_read": characters_read() - read,
        "bytes_storage": storage_read() - fetched,
        "overview_pixels": prediction.overview_pixels,
        "loaded_mb": loaded,
        "rss_mb": peak_mb(),
        "reader": slide.reader,
        "status": prediction.status,
        "label": prediction.label,
    }


def index_bytes(slide: Any) -> int:
    """Bytes of a BigTIFF's tables of stored tiles, as tifffile writes them: 8 of the offset and 4 of the count each."""
    sizes = zip(slide.level_dimensions, slide.facts.tile_sizes, strict=True)
    return sum(12 * -(-size[0] // tile[0]) * -(-size[1] // tile[1]) for size, tile in sizes if tile)


def peak_mb() -> float:
    """The most memory that this process has held, in MB; unlike `ru_maxrss`, without its parent's at the fork."""
    return _number("/proc/self/status", "VmHWM:") * 1024 / 1e6


def characters_read() -> int:
    """Bytes that this process has asked of files, Python modules included (rchar of /proc/self/io)."""
    return _number("/proc/self/io", "rchar:")


def storage_read() -> int:
    """Bytes that the disk delivered for this process, in whole pages (read_bytes of /proc/self/io)."""
    return _number("/proc/self/io", "read_bytes:")


def _number(file: str, name: str) -> int:
    lines = Path(file).read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
