"""`AttentionClassify` and `AttentionClassifyd`: a slide's path in, its label and the regions it rests on out."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

from wsi_attention import Classifier, Prediction, TissueMask, load_model, open_slide, predict
from wsi_attention.errors import InputError

RESULTS = ("label", "purpose", "probabilities", "spread", "unread_mass", "boxes", "weights", "attention")
"""What `AttentionClassify` gives, in this order; `AttentionClassifyd` puts the key and `_` in front."""


class AttentionClassify(Transform):
    """Classifies a slide by the few tiles its attention asks for.

    The same slide and model give the same result on every run. The model is loaded on first use; where the transform
    goes to another process, it is loaded again there.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012  # MONAI's own transforms declare it so

    def __init__(
        self,
        model: str | Path | Classifier,
        *,
        mpp: float | None = None,
        device: str = "auto",
        batch: int = 32,
    ) -> None:
        """Load nothing yet.

        Args:
            model: a model folder, a shipped name, or what `load_model` gives.
            mpp: µm per level-0 pixel, for slides that do not say it.
            device: where the model computes, such as "cpu" or "cuda:0"; "auto" is the first GPU, else the CPU.
            batch: tiles read by one task.
        """
        super().__init__()
        self.model, self.mpp, self.device, self.batch = model, mpp, device, batch
        self._classifier: Classifier | None = None

    @property
    def classifier(self) -> Classifier:
        """The loaded model.

        Raises:
            ModelError: no such model folder, or one that cannot be used.
        """
        if isinstance(self.model, Classifier):
            return self.model
        if self._classifier is None:
            self._classifier = load_model(self.model)
        return self._classifier

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_classifier": None}

    def predict(self, data: Any, tissue: TissueMask | None = None) -> Prediction:
        """The `Prediction` that the result is made of, for our exporters.

        Args:
            data: as for a call.
            tissue: where to look; found on the overview where None.

        Raises:
            InputError: no path.
            SlideError: the slide cannot be opened or read, has no tissue, or does not say its mpp.
        """
        self.classifier.check_one_class("a transform of MONAI")
        with open_slide(path_of(data), mpp=self.mpp) as slide:
            return predict(slide, self.classifier, tissue=tissue, device=self.device, batch=self.batch)

    def __call__(self, data: Any, tissue: TissueMask | None = None) -> dict[str, Any]:
        """Classify one slide.

        Args:
            data: the slide's path, or a `MetaTensor` that a reader of MONAI made of it.
            tissue: where to look; found on the overview where None.

        Returns:
            label: name of the class.
            purpose: "demonstration" where the label means nothing on real tissue, else "".
            probabilities: (classes,) float32, sum 1.
            spread: standard error of the winning probability under the sampling of tiles; NaN where nothing was drawn.
            unread_mass: share of the attention on tiles that were not read; NaN where attention is over no tiles.
            boxes: (n, 4) int64, x, y, w, h in level-0 pixels of the tiles read; n is 0 for models that read none.
            weights: (n,) float32, what each tile counted for.
            attention: (1, rows, cols) float32 `MetaTensor`, NaN where there is no tissue; its affine takes (row, col)
                to (y, x) in level-0 pixels.

        Raises:
            InputError: no path.
            SlideError: the slide cannot be opened or read, has no tissue, or does not say its mpp.
        """
        return results_of(self.predict(data, tissue))


class AttentionClassifyd(MapTransform):
    """Dictionary twin of `AttentionClassify`: for the key "image" it adds "image_label", "image_probabilities" …"""

    backend = AttentionClassify.backend

    def __init__(
        self,
        keys: KeysCollection,
        model: str | Path | Classifier,
        *,
        mpp: float | None = None,
        mpp_key: str | None = "mpp",
        device: str = "auto",
        batch: int = 32,
        allow_missing_keys: bool = False,
    ) -> None:
        """Load nothing yet.

        Args:
            keys: keys whose values are slide paths.
            model: as in `AttentionClassify`.
            mpp: µm per level-0 pixel, for slides that do not say it.
            mpp_key: key of an item's own µm per level-0 pixel, looked at where `mpp` is None.
            device: as in `AttentionClassify`.
            batch: tiles read by one task.
            allow_missing_keys: leave items alone that lack a key.
        """
        super().__init__(keys, allow_missing_keys)
        self.mpp_key = mpp_key
        self.classify = AttentionClassify(model, mpp=mpp, device=device, batch=batch)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with a result beside each key. Errors as in `AttentionClassify`."""
        found = dict(data)
        own = data.get(self.mpp_key) if self.mpp_key else None
        classify = self.classify
        if own is not None and classify.mpp is None:
            classify = AttentionClassify(
                classify.classifier, mpp=float(own), device=classify.device, batch=classify.batch
            )
        for key in self.key_iterator(found):
            for name, value in classify(found[key]).items():
                found[f"{key}_{name}"] = value
        return found


AttentionClassifyDict = AttentionClassifyd


def path_of(data: Any) -> str:
    """The path of a slide, from a path or from what MONAI's readers keep in their metadata.

    Raises:
        InputError: something else.
    """
    if isinstance(data, str | os.PathLike):
        return os.fspath(data)
    meta = getattr(data, "meta", None)
    name = meta.get("filename_or_obj", meta.get("path")) if isinstance(meta, Mapping) else None
    if isinstance(name, str | os.PathLike):
        return os.fspath(name)
    raise InputError(f"a slide's path is needed, found {type(data).__name__}; put this transform before LoadImage")


def results_of(prediction: Prediction) -> dict[str, Any]:
    """A prediction as `AttentionClassify` gives it."""
    read = [(one.tiles.boxes[0][one.valid], one.weights[one.valid]) for one in prediction.glimpses]
    boxes = np.concatenate([np.empty((0, 4), np.int64), *(one for one, _ in read)])
    weights = np.concatenate([np.empty(0), *(one for _, one in read)])
    values = (
        prediction.label,
        prediction.purpose,
        torch.from_numpy(prediction.probabilities.astype(np.float32)),
        _number(prediction.spread),
        _number(prediction.unread_mass),
        torch.from_numpy(boxes),
        torch.from_numpy(weights.astype(np.float32)),
        _attention(prediction),
    )
    return dict(zip(RESULTS, values, strict=True))


def _number(value: float | None) -> float:
    """NaN for None, which collating into batches refuses."""
    return math.nan if value is None else value


def _attention(prediction: Prediction) -> MetaTensor:
    """The first map, which covers the whole slide; (1, 0, 0) where a model has none."""
    meta = {"filename_or_obj": prediction.slide, "spatial_unit": "level-0 pixels (y, x)", "mpp": prediction.mpp}
    if not prediction.maps:
        return MetaTensor(torch.empty(1, 0, 0), meta=meta)
    found = prediction.maps[0]
    affine = torch.eye(4, dtype=torch.float64)
    affine[0, 0], affine[1, 1] = found.grid.step[1], found.grid.step[0]
    affine[0, 3], affine[1, 3] = found.grid.origin[1], found.grid.origin[0]
    values = torch.from_numpy(np.array(found.values, np.float32))[None]
    return MetaTensor(values, affine=affine, meta={**meta, "name": found.name})
