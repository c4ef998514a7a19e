"""How far features differ between tiles of 256 px scaled to 224, as authors do, and 224 px read over the same field.

Per network the distance between both features of a tile (1 − cosine; features have length 1), beside what else moves a
feature: another interpolation, the 224 px in the middle of the 256, the tile moved by an eighth of its side, another
tile. Weights are the published ones where they lie on this machine, else random.

    wsi-attention encoders fetch efficientnet-lite0
    python tests/benchmarks/tile_sides.py --slide SLIDE efficientnet-lite0
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common import machine, options_parser, save, table
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_attention import Slide, open_slide
from wsi_attention.encoders.encoder_weights import fill_encoder
from wsi_attention.encoders.hub_files import entry_weights
from wsi_attention.encoders.places import on_this_machine
from wsi_attention.encoders.published import origin_of_entry
from wsi_attention.encoders.resizing import resized
from wsi_attention.encoders.table import entry_of
from wsi_attention.geometry import Grid
from wsi_attention.nn.encoders import TileEncoder
from wsi_attention.nn.preprocess import Normalise
from wsi_attention.slide.view import View
from wsi_attention.tiles.source import SlideSource

SAMPLE = Path(__file__).resolve().parents[2] / "sample_slides" / "sample_01.svs"
LARGE, SMALL, MPP = 256, 224, 0.5
MARGIN = (LARGE - SMALL) // 2
FORMS = (
    "256 scaled (bilinear)",
    "256 scaled (bicubic)",
    "224 read, same field",
    "224 read at 0.5",
    "moved by 1/8",
    "another tile",
)


def main() -> None:
    parser = options_parser(__doc__, "tile_sides")
    parser.add_argument("names", nargs="*", default=["efficientnet-lite0"], help="encoders [efficientnet-lite0]")
    parser.add_argument("--slide", type=Path, default=SAMPLE, help="where tiles are read [a sample slide]")
    parser.add_argument("--tiles", type=int, default=64, help="how many, at most [64]")
    options = parser.parse_args()
    began = machine()
    with open_slide(options.slide) as slide:
        pixels = tiles_of(slide, options.tiles)
    found = [distances(name, pixels) for name in options.names]
    print(
        f"{len(next(iter(pixels.values())))} tiles of {options.slide.name}, {MPP} µm/px; 1 − cosine to the first form"
    )
    print(table(("network", "weights", "form", "mean", "95 %", "largest"), [row for rows in found for row in rows]))
    save(options.json, options, dict(zip(options.names, found, strict=True)), began)


def tiles_of(slide: Slide, most: int) -> dict[str, Tensor]:
    """The same fields in every form, (n, 3, 224, 224) of 0 to 255 each."""
    downsample = MPP / slide.mpp
    side = LARGE * downsample
    source = SlideSource(slide)
    grid = Grid.covering(slide.dimensions, (side, side))
    corners = grid.boxes()[source.tissue(grid)[0].flatten().numpy(), :2]
    picked = corners[np.linspace(0, len(corners) - 1, min(most, len(corners))).astype(int)]
    large = read(slide, picked, LARGE, downsample)
    moved = read(slide, picked + round(side / 8), LARGE, downsample)
    return {
        FORMS[0]: resized(large, SMALL, "bilinear"),
        FORMS[1]: resized(large, SMALL, "bicubic"),
        FORMS[2]: read(slide, picked, SMALL, side / SMALL),
        FORMS[3]: large[..., MARGIN:-MARGIN, MARGIN:-MARGIN],
        FORMS[4]: resized(moved, SMALL, "bilinear"),
        FORMS[5]: resized(large.roll(len(large) // 2, 0), SMALL, "bilinear"),
    }


def read(slide: Slide, corners: NDArray[np.int64], side: int, downsample: float) -> Tensor:
    """Tiles (n, 3, side, side) at level-0 corners."""
    view = View(slide, downsample)
    pictures = [view.read((int(x), int(y)), (side, side)) for x, y in corners]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def distances(name: str, pixels: dict[str, Tensor]) -> Sequence[tuple[str, str, str, str, str, str]]:
    """A row for each form but the first."""
    entry = entry_of(name)
    torch.manual_seed(0)
    encoder = TileEncoder(name=name).build().eval()
    there = bool(on_this_machine(origin_of_entry(entry)))
    if there:
        fill_encoder(encoder, entry_weights(entry), name)
    colours = Normalise(entry.mean, entry.std)
    features = {form: encoded(encoder, colours, tiles) for form, tiles in pixels.items()}
    rows = []
    for form in FORMS[1:]:
        away = 1 - (features[form] * features[FORMS[0]]).sum(-1).numpy()
        numbers = (f"{value:.2g}" for value in (away.mean(), np.quantile(away, 0.95), away.max()))
        rows.append((name, "published" if there else "random", form, *numbers))
    return rows


def encoded(encoder: nn.Module, colours: nn.Module, tiles: Tensor) -> Tensor:
    """Features (n, d) of length 1, in float64."""
    with torch.inference_mode():
        parts = [encoder(colours(part.to(torch.uint8))) for part in tiles.split(8)]
    return torch.nn.functional.normalize(torch.cat(parts).double(), dim=-1)


if __name__ == "__main__":
    main()
