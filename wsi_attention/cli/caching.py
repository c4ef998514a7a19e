"""`--cache FOLDER`: where bytes of URLs are kept, and word of downloads that take a while."""

from __future__ import annotations

import logging
import os
from pathlib import Path


def use_cache(folder: Path | None) -> None:
    """Keeps what is fetched of URLs in a folder, in this process and its workers; None leaves all as it is."""
    from wsi_attention.slide.readers.remote.cache import FOLDER_VARIABLE

    if folder is None:
        return
    os.environ[FOLDER_VARIABLE] = str(folder.absolute())
    log = logging.getLogger("wsi_attention.download")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("wsi-attention: %(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
