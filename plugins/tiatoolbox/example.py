"""Attention as a TIAToolbox step: `python plugins/tiatoolbox/example.py sample_slides/sample_01.svs demo out/`."""

from __future__ import annotations

import sys
from pathlib import Path

from tiatoolbox.annotation import SQLiteStore
from tiatoolbox.visualization.tileserver import TileServer
from wsi_attention_tiatoolbox import AttentionPredictor, WsiAttentionReader


def main(slide: str, model: str, folder: str) -> None:
    """Classify a slide, ask the store where the heaviest region is, and draw that place."""
    reader = WsiAttentionReader(slide)
    predictor = AttentionPredictor(model=model, verbose=False)
    (path,) = predictor.run([reader], save_dir=Path(folder) / "overlays", overwrite=True).values()
    store = SQLiteStore(path)
    facts = store.metadata["wsi-attention"]
    print(facts["label"], facts["probabilities"])
    (first,) = store.query(where="props['rank'] == 1").values()
    x, y = (round(value) for value in first.geometry.centroid.coords[0])
    print(f"heaviest region {first.geometry.bounds}, weight {first.properties['weight']}")
    print(f"{len(store.query((x, y, x + 1, y + 1)))} annotations at ({x}, {y})")

    server = TileServer("wsi-attention", {"slide": reader, "overlay": path})
    tile = server.test_client().get("/tileserver/layer/overlay/default/zoomify/TileGroup0/0-0-0@1x.jpg")
    (Path(folder) / "overlay.webp").write_bytes(tile.data)
    print(f"overlay drawn: {Path(folder) / 'overlay.webp'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
