"""WSInfer's own reader opens what we write for it.

It needs an older zarr than the package, so it runs in an environment without it, and without the shared fixtures.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if find_spec("wsinfer") is None or find_spec("wsi_attention_files") is None:
    pytest.skip("needs wsinfer and plugins/files in one environment: tox run -e plugin-files-wsinfer", True)

ROOT = Path(__file__).resolve().parents[2]
SLIDE = ROOT / "sample_slides" / "sample_01.svs"


def declare_operators() -> None:
    """torchvision on PyPI is built for GPUs and misses two operators beside a CPU build of torch."""
    import torch

    if torch.version.cuda is None and not hasattr(torch.ops.torchvision, "nms"):
        declare_operators.library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[attr-defined]
        for name in ("nms", "qnms"):
            declare_operators.library.define(  # type: ignore[attr-defined]
                f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )


@pytest.fixture(scope="module")
def host() -> Any:
    declare_operators()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import wsinfer.modellib.data
        import wsinfer.wsi

        wsinfer.wsi.set_backend("openslide")
        return wsinfer.modellib.data


def test_wsinfer_reads_the_same_tiles(tmp_path: Path, host: Any) -> None:
    import openslide
    from wsi_attention_files import Bag, write_bag

    places = np.array([[3840, 1536], [0, 0], [511, 77]], np.int64)
    (path,) = write_bag(Bag("sample_01", places, 256, 128, (6144, 6144), 0.5), tmp_path, "wsinfer")
    dataset = host.WholeSlideImagePatches(SLIDE, path)
    dataset.worker_init()
    with openslide.OpenSlide(SLIDE) as slide:
        for number, (x, y) in enumerate(places.tolist()):
            pixels, box = dataset[number]
            assert box.tolist() == [x, y, 256, 256]
            expected = slide.read_region((x, y), 0, (256, 256)).convert("RGB")
            np.testing.assert_array_equal(np.asarray(pixels), np.asarray(expected))
