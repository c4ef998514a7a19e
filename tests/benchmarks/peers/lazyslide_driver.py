"""LazySlide: tissue, tiles, features of all tissue tiles, their mean, a label; `--bf16` with its own autocast."""

from __future__ import annotations

import sys

from driver import CLASSES, MEAN, MPP, STD, TILE, Clock, let_torchvision_load, network, options, tell


def main() -> None:
    """Run the pipeline on one slide."""
    half = "--bf16" in sys.argv
    if half:
        sys.argv.remove("--bf16")
    given, clock = options(), Clock()
    let_torchvision_load()
    import lazyslide as zs
    import torch
    from torchvision.transforms import v2
    from wsidata import open_wsi

    clock.mark("import")
    model = network(given.weights)
    head, model.fc = model.fc, torch.nn.Identity()
    transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    wsi = open_wsi(given.slide, reader="openslide", store=str(given.out / "wsi.zarr"))
    zs.pp.find_tissues(wsi)
    zs.pp.tile_tissues(wsi, TILE, mpp=MPP)
    tiles = len(wsi.shapes["tiles"])
    clock.mark("prepare")
    if given.prepare_only:
        tell("lazyslide", clock, tiles, [])
        return
    kind = {"amp": True, "autocast_dtype": torch.bfloat16} if half else {}
    features = zs.tl.feature_extraction(
        wsi, model, model_name="resnet18", transform=transform, device="cpu", num_workers=given.workers,
        pbar=False, return_features=True, **kind,
    )  # fmt: skip
    wsi.write()
    with torch.inference_mode():
        label = head(torch.from_numpy(features).float().mean(0)).softmax(0)
    clock.mark("encode")
    tell("lazyslide", clock, tiles, label.tolist())
    assert len(label) == len(CLASSES)


if __name__ == "__main__":
    main()
