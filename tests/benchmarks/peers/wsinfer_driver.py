"""WSInfer: tissue, patches, a TorchScript model over all patches, CSV; the slide's label is the mean over them."""

from __future__ import annotations

from pathlib import Path

from driver import CLASSES, MEAN, MPP, STD, TILE, Clock, let_torchvision_load, network, options, tell


def scripted(weights: Path, out: Path) -> Path:
    """The network as TorchScript, as WSInfer wants its models."""
    import torch

    path = out / "model.pt"
    torch.jit.script(network(weights)).save(path)
    return path


def main() -> None:
    """Run the pipeline on the one slide of a folder."""
    given, clock = options(), Clock()
    let_torchvision_load()
    import h5py
    import pandas
    from wsinfer.modellib.models import LocalModelTorchScript
    from wsinfer.modellib.run_inference import run_inference
    from wsinfer.patchlib import segment_and_patch_directory_of_slides
    from wsinfer.wsi import set_backend
    from wsinfer_zoo.client import ModelConfiguration, TransformConfigurationItem

    clock.mark("import")
    set_backend("openslide")
    folder = given.out / "slides"
    folder.mkdir(parents=True)
    (folder / given.slide.name).symlink_to(given.slide.resolve())
    model = scripted(given.weights, given.out)
    clock.mark("model")
    segment_and_patch_directory_of_slides(folder, given.out, patch_size_px=TILE, patch_spacing_um_px=MPP)
    with h5py.File(next((given.out / "patches").glob("*.h5"))) as file:
        tiles = len(file["coords"])
    clock.mark("prepare")
    if given.prepare_only:
        tell("wsinfer", clock, tiles, [])
        return
    steps = [("ToTensor", None), ("Normalize", {"mean": MEAN, "std": STD})]
    transform = [TransformConfigurationItem(name, arguments) for name, arguments in steps]
    config = ModelConfiguration("resnet18", len(CLASSES), CLASSES, TILE, MPP, transform)
    info = LocalModelTorchScript(config=config, model_path=str(model))
    run_inference(folder, given.out, info, num_workers=given.workers)
    table = pandas.read_csv(next((given.out / "model-outputs-csv").glob("*.csv")))
    clock.mark("encode")
    tell("wsinfer", clock, tiles, [float(table[f"prob_{name}"].mean()) for name in CLASSES])


if __name__ == "__main__":
    main()
