"""Make an int8 version of a model's tile encoder, calibrated on the tiles that the model itself takes from slides."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from wsi_attention.checkpoint import SHIPPED, Classifier, ClassifierLike, as_classifier
from wsi_attention.devices import openvino_version, placed
from wsi_attention.errors import InputError, ModelError
from wsi_attention.extras import how_to_install
from wsi_attention.feature_store.kind import weights_sha256
from wsi_attention.files import results_errors, write_folder
from wsi_attention.inference.compiled import NotCompiledError, Shape, inferred, traced, without_telemetry
from wsi_attention.inference.engine import hindrance
from wsi_attention.inference.predict import predict
from wsi_attention.inference.quantised import FOLDER, MODEL, WEIGHTS, Quantised
from wsi_attention.nn.encoders import bare
from wsi_attention.protocols import contract_of
from wsi_attention.slide.slide import open_slide
from wsi_attention.tiles.source import SlideSource

if TYPE_CHECKING:
    from openvino import Model

TILES = 300
"""Tiles to calibrate on; what NNCF takes where nothing is said."""
LEAST = 8
"""Fewer tiles say too little of a layer's range."""
OTHERS = 5
"""One in so many tiles is not calibrated on, but compared."""


def quantise(
    classifier: ClassifierLike,
    slides: Sequence[str | Path],
    *,
    tiles: int = TILES,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> Path:
    """Quantise a model's tile encoder to int8 after training, and put it into the model's folder.

    Activations' ranges are measured on tiles that the model reads of the slides; weights are quantised channel by
    channel, biases corrected (Nagel et al., "Data-Free Quantization", ICCV 2019, as NNCF does it). `predict` and
    `classify` take it where `precision` is "int8" and nowhere else.

    Args:
        classifier: a model folder, or what `load_model` returned of one.
        slides: of the training set; labels play no part.
        tiles: to calibrate on, evenly from all slides.
        told: called with how many slides are done, of how many.

    Returns:
        The folder that it lies in, inside the model folder.

    Raises:
        InputError: the packages are missing, the model has no tile encoder or no folder of its own, or the slides have
            too few tiles.
        ModelError: OpenVINO or NNCF cannot do it.
        SlideError: a slide cannot be read.
        ResultsError: the folder cannot be written.
    """
    model = as_classifier(classifier)
    _check(model, slides)
    pixels = torch.cat([_tiles_of(model, path, -(-tiles // len(slides))) for path in _each(slides, told)])
    if len(pixels) < LEAST:
        raise InputError(f"{len(slides)} slides have {len(pixels)} tiles, too few to calibrate on; give more slides")
    assert model.folder is not None
    folder = model.folder / FOLDER
    made = quantised_from(model, pixels, len(slides))
    with results_errors(folder):
        write_folder(folder, made.files())
    return folder


def _each(slides: Sequence[str | Path], told: Callable[[int, int], None]) -> Iterable[str | Path]:
    for number, path in enumerate(slides):
        told(number, len(slides))
        yield path
    told(len(slides), len(slides))


def _check(model: Classifier, slides: Sequence[str | Path]) -> None:
    if not openvino_version() or not _nncf_version():
        raise InputError(f"quantising needs the package nncf; {how_to_install('int8')}")
    if model.folder is None or model.folder.is_relative_to(SHIPPED):
        raise InputError(f"model {model.name} has no folder of its own to write to; copy or save it, and give the copy")
    if reason := hindrance(model, contract_of(model.model).encoder):
        raise InputError(f"model {model.name} cannot be quantised: {reason}")
    if not slides:
        raise InputError("no slides to calibrate on; give some of the training set")


def _nncf_version() -> str:
    try:
        return version("nncf")
    except PackageNotFoundError:
        return ""


def _tiles_of(model: Classifier, path: str | Path, most: int) -> Tensor:
    """Return tiles that the model reads of a slide, (n, 3, h, w) uint8, evenly from those it read."""
    with open_slide(path) as slide:
        read = predict(slide, model, device="cpu", precision="32").glimpses[-1].tiles
        chosen = np.unique(np.linspace(0, len(read) - 1, min(most, len(read))).astype(int))
        batch = SlideSource(slide).read(read.select(chosen))
    return batch.pixels[0][batch.valid[0]]


def quantised_from(model: Classifier, pixels: Tensor, slides: int) -> Quantised:
    """Return a model's encoder in int8.

    Args:
        model: with a tile encoder.
        pixels: (n, 3, h, w) uint8, tiles of its size; one in five is kept for the comparison.
        slides: that they came from, to be remembered.

    Raises:
        ModelError: OpenVINO or NNCF cannot do it.
    """
    contract = contract_of(placed(model.model, torch.device("cpu")))
    encoder = contract.encoder
    assert encoder is not None
    others = torch.arange(len(pixels)) % OTHERS == OTHERS - 1
    with torch.inference_mode():
        shown = [contract.preprocess(one[None]).contiguous().numpy() for one in pixels[~others]]
        kept = contract.preprocess(pixels[others]).contiguous()
    shape: Shape = tuple(kept.shape[1:])
    try:
        layers, weights = _written(_int8(encoder, shape, shown))
    except NotCompiledError as error:
        raise ModelError(f"model {model.name} cannot be quantised: {error}") from error
    sha, versions = weights_sha256(bare(encoder)), (openvino_version(), _nncf_version())
    made = Quantised(layers, weights, shape, sha, len(shown), slides, 0.0, *versions)
    return Quantised(layers, weights, shape, sha, len(shown), slides, _likeness(made, encoder, kept), *versions)


def _int8(encoder: nn.Module, shape: Shape, shown: list[np.ndarray]) -> Model:
    model = traced(encoder, shape)
    with redirect_stdout(sys.stderr):  # it shows its progress
        nncf = without_telemetry("nncf")
        try:
            nncf.set_log_level(logging.ERROR)
            return nncf.quantize(model, nncf.Dataset(shown), subset_size=len(shown))
        except Exception as error:  # it raises whatever it meets in a network
            raise NotCompiledError(f"NNCF: {error}") from error


def _written(model: Model) -> tuple[bytes, bytes]:
    from openvino import serialize

    with TemporaryDirectory() as folder:
        layers, weights = Path(folder) / MODEL, Path(folder) / WEIGHTS
        serialize(model, layers, weights)
        return layers.read_bytes(), weights.read_bytes()


def _likeness(made: Quantised, encoder: nn.Module, tiles: Tensor) -> float:
    """Return the mean cosine between features (m, d) in int8 and in float32."""
    request = made.compiled(encoder, made.shape).create_infer_request()
    with torch.inference_mode():
        pairs = [(inferred(request, part), encoder(part)) for part in tiles.split(16)]
    return float(torch.cat([torch.cosine_similarity(one, other) for one, other in pairs]).mean())
