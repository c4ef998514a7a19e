"""`AttentionPredictor`: called as TIAToolbox's engines are called on whole slides, with outputs that its tools read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from tiatoolbox import logger
from tiatoolbox.models.engine.engine_abc import prepare_engines_save_dir
from tiatoolbox.wsicore.wsireader import VirtualWSIReader, WSIReader

from wsi_attention import Classifier, Prediction, Slide, load_model, open_slide, predict
from wsi_attention.errors import InputError, SlideError
from wsi_attention_tiatoolbox.masks import tissue_of
from wsi_attention_tiatoolbox.outputs import WRITERS, OutputType, arrays_of
from wsi_attention_tiatoolbox.reader import WsiAttentionReader
from wsi_attention_tiatoolbox.store import check_sqlite

Image = str | Path | WSIReader


class AttentionPredictor:
    """A slide's label with the regions it rests on, for many slides; beside `PatchPredictor` in a pipeline.

    Args:
        model: what `wsi_attention.load_model` gives, or what it takes, e.g. "demo" or a folder.
        batch_size: tiles read by one task.
        device: as in PatchPredictor, or "auto".
        verbose: says in the log where each output lies.

    Attributes:
        predictions: of the last run, by path.
        failures: one line for each slide of the last run that could not be classified.
    """

    def __init__(
        self, model: Classifier | str | Path, batch_size: int = 32, *, device: str = "cpu", verbose: bool = True
    ) -> None:
        self.model = model if isinstance(model, Classifier) else load_model(model)
        self.model.check_one_class("TIAToolbox")
        self.batch_size, self.device, self.verbose = batch_size, device, verbose
        self.predictions: dict[Path, Prediction] = {}
        self.failures: dict[Path, str] = {}

    def run(
        self,
        images: Sequence[Image],
        *,
        masks: Sequence[Any] | None = None,
        patch_mode: bool = False,
        save_dir: str | Path | None = None,
        overwrite: bool = False,
        output_type: str = "annotationstore",
        auto_get_mask: bool = True,
        wsireader_kwargs: Mapping[str, Any] | None = None,
        top: int = 5,
        **effort: Any,
    ) -> dict[Path, Any]:
        """Classify slides, one after the other; one that fails is told in the log and costs no other.

        Args:
            images: paths or readers.
            masks: where to look, one a slide: an image file or a GeoJSON, an array over the slide, or what
                `reader.tissue_mask()` gives; None for those without.
            patch_mode: must be False: attention needs whole slides.
            save_dir: a folder that does not exist yet, as for other engines.
            overwrite: removes the folder first.
            output_type: "annotationstore" (`<slide>.db`), "zarr", "qupath" (`<slide>.geojson`), or "dict".
            auto_get_mask: finds the tissue where no mask is given; False looks everywhere.
            wsireader_kwargs: `mpp`, for slides that do not say it.
            top: how many of the heaviest tiles become regions.
            **effort: `exact`, `tolerance`, `budget` and `snap` of `wsi_attention.predict`.

        Returns:
            What was written for each slide, or its arrays for "dict", by path; slides that failed are in `failures`.

        Raises:
            InputError: the call makes no sense: patches, two slides of one name, masks that are too few …
            SlideError: every slide failed; the last one's error.
            MissingExtraError: this Python cannot hold an annotation store.
        """
        kind = _output_type(output_type, save_dir, patch_mode=patch_mode)
        paths = [_path_of(image) for image in images]
        _check(paths, masks, kind)
        folder = prepare_engines_save_dir(save_dir, patch_mode=False, overwrite=overwrite) if save_dir else None
        self.predictions, self.failures = {}, {}
        found: dict[Path, Any] = {}
        for image, path, mask in zip(images, paths, masks or [None] * len(paths), strict=True):
            try:
                prediction = self._predict(image, mask, auto_get_mask, dict(wsireader_kwargs or {}), effort)
            except SlideError as error:
                self._failed(path, error, last=len(self.failures) + 1 == len(paths))
                continue
            self.predictions[path] = prediction
            found[path] = (
                arrays_of(prediction) if folder is None else WRITERS[kind](prediction, folder / path.stem, top)
            )
            if self.verbose and folder is not None:
                logger.info("Output file saved at %s.", found[path])
        return found

    def _predict(
        self, image: Image, mask: Any, auto_get_mask: bool, kwargs: dict[str, Any], effort: dict[str, Any]
    ) -> Prediction:
        with _slide_of(image, kwargs.get("mpp")) as slide:
            tissue = tissue_of(mask, slide.dimensions, everywhere=not auto_get_mask)
            return predict(slide, self.model, tissue=tissue, device=self.device, batch=self.batch_size, **effort)

    def _failed(self, path: Path, error: SlideError, *, last: bool) -> None:
        self.failures[path] = str(error)
        logger.error("%s", error)
        if last:
            raise error


def _output_type(asked: str, save_dir: str | Path | None, *, patch_mode: bool) -> str:
    kind, possible = asked.lower(), get_args(OutputType)
    if patch_mode:
        raise InputError(
            "patch_mode=True was asked; attention needs whole slides, give their paths and patch_mode=False"
        )
    if kind not in possible:
        raise InputError(f"output_type {asked!r} is unknown; possible: {', '.join(possible)}")
    if (save_dir is None) != (kind == "dict"):
        raise InputError(f"output_type {kind!r} {'needs' if save_dir is None else 'takes no'} save_dir")
    if kind == "annotationstore":
        check_sqlite()
    return kind


def _path_of(image: Image) -> Path:
    if isinstance(image, WSIReader):
        return Path(image.input_path or "array")
    if isinstance(image, str | Path):
        return Path(image)
    raise InputError(
        f"images are paths or readers of whole slides, got {type(image).__name__}; wrap arrays in a reader"
    )


def _check(paths: Sequence[Path], masks: Sequence[Any] | None, kind: str) -> None:
    if masks is not None and len(masks) != len(paths):
        raise InputError(
            f"{len(masks)} masks for {len(paths)} images; give one for each slide, None for slides without one"
        )
    stems = [path.stem for path in paths]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None and kind != "dict":
        raise InputError(f"two slides are called {twice!r} and would overwrite each other's output; run them apart")


def _slide_of(image: Image, mpp: Any) -> Slide:
    """The slide of a path or reader; its owner's handle stays open when this one is closed."""
    given = None if mpp is None else float(np.sqrt(np.prod(np.broadcast_to(mpp, 2))))
    if isinstance(image, WsiAttentionReader):
        slide = image.slide
        known = slide.mpp if slide.mpp_source == "given" else None
        return open_slide(str(image.input_path), reader=slide.reader, mpp=given or known)
    if isinstance(image, VirtualWSIReader) and image.input_path is None:
        return open_slide(np.ascontiguousarray(image.img), mpp=given or _manual_mpp(image))
    return open_slide(str(_path_of(image)), mpp=given)


def _manual_mpp(image: VirtualWSIReader) -> float | None:
    mpp = image.info.mpp
    return None if mpp is None else float(np.sqrt(np.prod(mpp)))
