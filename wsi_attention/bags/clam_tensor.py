"""Features as CLAM's training reads them: a saved tensor, `pt_files/<slide>.pt`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from wsi_attention.bags.bag import Bag


def write_tensor(bag: Bag, path: Path) -> Path:
    """Write the features as float32; `torch.load(weights_only=True)` reads them as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".tmp-{path.name}")
    torch.save(torch.from_numpy(np.asarray(bag.features, np.float32)), unfinished)
    unfinished.replace(path)
    return path
