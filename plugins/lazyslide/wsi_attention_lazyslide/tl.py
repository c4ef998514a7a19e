"""`tl.attention`: a slide's label and the regions it rests on, written to a `WSIData` as LazySlide's tools write."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
from wsidata import WSIData

from wsi_attention import Classifier, Prediction, Slide, load_model, predict, tile_features
from wsi_attention.errors import InputError
from wsi_attention.export import deciding
from wsi_attention.inference import has_encoder
from wsi_attention_lazyslide.candidates import TILES, TISSUES, candidates, key_of
from wsi_attention_lazyslide.elements import (
    AGGREGATE,
    MEASURED,
    Read,
    add_read_tiles,
    add_regions,
    add_table,
    facts_of,
    maps_of,
    reads_of,
)
from wsi_attention_lazyslide.slides import as_slide


def attention(
    wsi: WSIData,
    model: Classifier | str | Path,
    key_added: str = "attention",
    tissue_key: str | bool | None = None,
    tile_key: str | bool | None = None,
    device: str | None = None,
    *,
    batch_size: int = 32,
    top: int = 5,
    tolerance: float | None = None,
    budget: int | None = None,
    exact: bool = False,
    snap: bool = True,
) -> Prediction:
    """Classify the slide from the tiles that attention asks for, and write what it rests on.

    With `key_added="attention"` there are afterwards:

    * `shapes["attention"]`: the heaviest tiles, united where they touch, by rank, with their weight;
    * `shapes["attention_tiles"]`: every tile read in the last look, with `weight`, `attention` and
      `attention_percentile`, and a `TileSpec`, so that LazySlide's functions take them as tiles; methods that look
      several times have one such element a look, named after it;
    * `tables["weights_attention_tiles"]`: the same three numbers as variables, attention maps in `uns["maps"]`;
    * `tables["features_attention_tiles"]`: what the model's encoder says of each tile, and the slide's feature, their
      weighted sum, for `wsidata.agg_wsi(…, "features", "attention_tiles", agg_key="agg_attention")`; not with
      methods that encode no tiles;
    * `attrs["attention"]`: label, probabilities, spread, notes, provenance, and the keys of all these.

    All shapes are in level-0 pixels. An earlier run's results of the same name are replaced.

    Args:
        wsi: the slide.
        model: what `wsi_attention.load_model` gives, or what it takes.
        key_added: name of the results.
        tissue_key: contours that attention is confined to; None takes "tissues" if it is there, False none.
        tile_key: tiles that attention is confined to; None takes "tiles" if they are there, False none.
        device: e.g. "cpu" or "cuda:0"; None for LazySlide's setting where that is loaded, else "auto".
        batch_size: tiles read by one task.
        top: how many of the heaviest tiles become regions.
        tolerance: as in `wsi_attention.predict`; also `budget`, `exact` and `snap`.
        budget: the most tiles to read for a tolerance.
        exact: reads every tile.
        snap: moves tiles by less than half a stored tile, to where they are cheap to read.

    Returns:
        The prediction, for the exporters of wsi-attention; everything of it that LazySlide can use is in `wsi`.

    Raises:
        InputError: no such key, shapes that leave nothing to look at, or a name that cannot be used.
        SlideError: the slide has no mpp, cannot be read, or has no tissue.
        ModelError: the model cannot be used.
    """
    _check_name(wsi, key_added)
    classifier = model if isinstance(model, Classifier) else load_model(model)
    tissues, tiles = key_of(wsi, tissue_key, TISSUES), key_of(wsi, tile_key, TILES)
    where = device or _device()
    with as_slide(wsi) as slide:
        found = predict(
            slide,
            classifier,
            tissue=candidates(wsi, tissues, tiles),
            device=where,
            batch=batch_size,
            tolerance=tolerance,
            budget=budget,
            exact=exact,
            snap=snap,
        )
        _write(wsi, key_added, found, (slide, classifier, where, batch_size), tissues, top)
    return found


def _write(
    wsi: WSIData,
    key: str,
    found: Prediction,
    encoding: tuple[Slide, Classifier, str, int],
    tissues: str | None,
    top: int,
) -> None:
    keys: dict[str, object] = {"regions": key if add_regions(wsi, key, found, top) else None}
    names = _element_names(key, found)
    for name, glimpse, read in zip(names, found.glimpses, reads_of(found), strict=True):
        if not len(read.first):
            continue
        add_read_tiles(wsi, name, glimpse, read, tissues)
        add_table(wsi, f"weights_{name}", name, read.measured, list(MEASURED), {"maps": maps_of(found)})
        if glimpse is deciding(found):
            keys |= {"tiles": name, "weights": f"weights_{name}"}
            keys["features"] = _add_features(wsi, name, found, read, encoding)
    wsi.attrs[key] = facts_of(found) | {"keys": keys, "looks": names}


def _add_features(
    wsi: WSIData, tile_key: str, found: Prediction, read: Read, encoding: tuple[Slide, Classifier, str, int]
) -> str | None:
    slide, classifier, device, batch = encoding
    if not has_encoder(classifier):
        return None
    glimpse = deciding(found)
    assert glimpse is not None
    values, _ = tile_features(slide, classifier, glimpse.tiles.select(read.first), device=device, batch=batch)
    weighted = read.measured["weight"].to_numpy() @ values
    uns = {"agg_ops": {AGGREGATE: {"features": weighted[None].astype(np.float32)}}}
    name = f"features_{tile_key}"
    add_table(wsi, name, tile_key, values, [f"feature_{k}" for k in range(values.shape[1])], uns)
    return name


def _element_names(key: str, found: Prediction) -> list[str]:
    """A name for the tiles of each look: after the look, numbered where several have one name."""
    plain = [re.sub(r"[^0-9A-Za-z_.-]+", "_", glimpse.name) for glimpse in found.glimpses]
    deciding_one = deciding(found)
    last = next((k for k, glimpse in enumerate(found.glimpses) if glimpse is deciding_one), -1)
    names = [f"{key}_{name}" if plain.count(name) == 1 else f"{key}_{name}_{k}" for k, name in enumerate(plain)]
    return [f"{key}_tiles" if k == last else name for k, name in enumerate(names)]


def _check_name(wsi: WSIData, key: str) -> None:
    if not re.fullmatch(r"[0-9A-Za-z_.-]+", key) or key.startswith(("__", ".")):
        raise InputError(f"key_added {key!r}: SpatialData takes letters, digits, dots, - and _ in a name")
    earlier = isinstance(wsi.attrs.get(key), dict) and "probabilities" in wsi.attrs[key]
    taken = key in wsi.attrs or any(key == name for _, name, _ in wsi.gen_elements())
    if taken and not earlier:
        raise InputError(f"key_added {key!r} is the name of something else in this WSIData; take another")


def _device() -> str:
    """LazySlide's setting where it is loaded, else the first GPU or the CPU; Apple's GPUs lack the float64 needed."""
    lazyslide = sys.modules.get("lazyslide")
    chosen = "auto" if lazyslide is None else str(lazyslide.settings.device)
    return "auto" if chosen.startswith("mps") else chosen
