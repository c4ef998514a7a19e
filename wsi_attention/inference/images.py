"""Labels of plain images, in the table that labels of slides have."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Generator, nn

from wsi_attention.checkpoint import Classifier, ClassifierLike, as_classifier
from wsi_attention.devices import device_of, placed
from wsi_attention.errors import InputError, SlideError
from wsi_attention.export.table import columns, figures, row
from wsi_attention.files import write_text
from wsi_attention.inference.predict import judged_of, number_of, seed_of, shown_of
from wsi_attention.inference.results.folder import TABLE, TEXTS
from wsi_attention.inference.results.state import FOLDER as STATES
from wsi_attention.plain_text import in_cell
from wsi_attention.structures import Output, Prediction, TissueMask
from wsi_attention.tiles.image_sources import MPP, channels_of, source_of
from wsi_attention.tiles.images import Images, fingerprint_of


def classify_images(
    images: str | Path,
    classifier: ClassifierLike,
    output: str | Path,
    *,
    mpp: float = MPP,
    device: str = "auto",
    told: Callable[[int, int], None] | None = None,
) -> dict[str, str]:
    """Write the folder's predictions.csv, a row an image; `evaluate` compares it with labels.

    Draws are seeded by an image's pixels and the weights, so the same image has the same label on every run.

    Args:
        images: what `tiles.images.Images` opens: a zarr array, or a folder of .npy, PNG or JPEG files.
        classifier: what `load_model` returns, or what it loads.
        output: the folder; an earlier table in it is replaced.
        mpp: µm per pixel of the images.
        device: as in `predict`.
        told: called with the number of images done, and of all.

    Returns:
        Image name -> why it has no label, of those that have none.

    Raises:
        InputError: there are no images, the model learnt from slides, the folder holds results of slides, or this
            machine has no such device.
        ModelError: the model cannot be loaded, or its logits are not finite.
        ResultsError: the table cannot be written.
    """
    found, known = Images(images), as_classifier(classifier)
    known.check_one_class("classify-images")
    _check(known, Path(output))
    model = placed(known.model, device_of(device))
    rows, failed = [], {}
    for done, name in enumerate(found.names, start=1):
        began, reason, told_of = time.perf_counter(), "", {}
        try:
            told_of = figures(_labelled(found, name, known, model, mpp))
        except SlideError as error:
            failed[name] = reason = str(error)
        rows.append(row(name, "failed" if reason else "done", time.perf_counter() - began, reason, told_of))
        if told:
            told(done, len(found.names))
    write_text(Path(output) / TABLE, _text(known, rows))
    return failed


def _check(known: Classifier, output: Path) -> None:
    """Raise InputError where the model knows slides alone, or the folder holds results of slides."""
    if not known.config.get("plain_images"):
        raise InputError(
            f"model {known.name} learnt from slides, whose tissue and µm per pixel are known, and a plain image has"
            " neither: train one with --images, or classify the slides"
        )
    if (output / STATES).exists():
        raise InputError(f"{output} holds results of slides, whose table would be lost: give another folder with -o")


def _labelled(images: Images, name: str, known: Classifier, model: nn.Module, mpp: float) -> Prediction:
    """Return what the model says of an image.

    Raises:
        SlideError: it cannot be read, or has other channels than the model takes.
        ModelError: the logits are not finite.
    """
    pixels, path = images.read(name), f"{images.path}, image {name}"
    source = source_of(pixels, channels_of(known.config["options"]), mpp, path)
    with torch.inference_mode():
        output: Output = model(source, Generator().manual_seed(seed_of(fingerprint_of(pixels), known.weights_sha256)))
    shown = shown_of(known, output.logits[0], path)
    judged = judged_of(output, known, shown)
    return Prediction(
        slide=path,
        extent=source.extent,
        mpp=mpp,
        bounds=(0, 0),
        classes=shown.classes,
        probabilities=judged.probabilities,
        spread=judged.spread,
        glimpses=output.glimpses[0],
        maps=output.maps[0],
        tissue=TissueMask(np.ones((1, 1), bool), float(max(source.extent)), "everywhere"),
        counters=source.counters,
        overview_pixels=source.counters.pixels,
        provenance={"weights_sha256": known.weights_sha256, "model": known.name},
        unread_mass=None if output.unread_mass is None else number_of(output.unread_mass),
        purpose=known.purpose,
        among=judged.among,
        called=shown.label,
    )


def _text(known: Classifier, rows: Sequence[Mapping[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(known.classes), restval="", lineterminator="\n")
    writer.writeheader()
    for one in rows:
        writer.writerow({**one, **{name: in_cell(one[name]) for name in TEXTS if name in one}})
    return text.getvalue()
