"""Attention as a LazySlide step: `python plugins/lazyslide/example.py sample_slides/sample_01.svs demo out/`."""

from __future__ import annotations

import sys
from pathlib import Path

import wsi_attention_lazyslide as wa
from wsidata import open_wsi

from wsi_attention.structures import error_text, shown_class


def main(slide: str, model: str, folder: str) -> None:
    """Classify a slide, write the store, open it again and print what it rests on."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    wsi = open_wsi(slide, reader="wsi-attention", store=folder)
    wa.tl.attention(wsi, model)
    wsi.write()

    again = open_wsi(slide, reader="wsi-attention", store=folder)
    facts = again.attrs["attention"]
    label, error = shown_class(facts["label"], facts["purpose"]), error_text(facts["spread"])
    print(f"{label} {facts['probabilities']}{error}, {facts['tiles_read']} tiles read")
    print(*facts["notes"], sep="\n")
    print(again.shapes["attention"][["rank", "weight", "tiles", "geometry"]].to_string(index=False))
    print(again.tables["features_attention_tiles"])


if __name__ == "__main__":
    main(*sys.argv[1:])
