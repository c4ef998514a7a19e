"""tiatoolbox: PatchPredictor over all tissue patches, results as zarr; the slide's label is the mean over them.

It finds tissue and places patches within its one call, so all of it counts as encoding.
"""

from __future__ import annotations

from typing import Any

from driver import CLASSES, MEAN, MPP, STD, TILE, Clock, let_torchvision_load, network, options, tell


def fill(model: Any, trained: Any) -> None:
    """Return tiatoolbox's network the weights: its layers are torchvision's in their order, under other names."""
    values = [value for name, value in trained.state_dict().items() if not name.startswith("fc.")]
    names = model.feat_extract.state_dict().keys()
    model.feat_extract.load_state_dict(dict(zip(names, values, strict=True)))
    model.classifier.load_state_dict(trained.fc.state_dict())


def main() -> None:
    """Run the pipeline on one slide."""
    given, clock = options(), Clock()
    let_torchvision_load()
    import numpy as np
    import zarr
    from tiatoolbox.models.architecture.vanilla import CNNModel
    from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig
    from tiatoolbox.models.engine.patch_predictor import PatchPredictor

    clock.mark("import")
    config = IOPatchPredictorConfig(
        input_resolutions=[{"units": "mpp", "resolution": MPP}],
        patch_input_shape=(TILE, TILE), stride_shape=(TILE, TILE),
    )  # fmt: skip
    if given.prepare_only:
        clock.mark("prepare")
        tell("tiatoolbox", clock, 0, [])
        return
    model = CNNModel("resnet18", num_classes=len(CLASSES))
    fill(model, network(given.weights))
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    model.preproc_func = lambda image: (np.asarray(image, np.float32) / 255 - mean) / std
    predictor = PatchPredictor(model=model, batch_size=32, num_workers=given.workers, device="cpu", verbose=False)
    out = predictor.run(
        [given.slide], patch_mode=False, ioconfig=config, save_dir=given.out / "tiatoolbox", output_type="zarr",
        return_probabilities=True, auto_get_mask=True,
    )  # fmt: skip
    written = out[given.slide] if isinstance(out, dict) else out
    probabilities = zarr.open(str(written), mode="r")["probabilities"][:]
    clock.mark("encode")
    tell("tiatoolbox", clock, len(probabilities), probabilities.mean(0).tolist())


if __name__ == "__main__":
    main()
