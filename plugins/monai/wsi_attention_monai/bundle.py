"""Parts of the bundle: the slides of a folder, the network, and the evaluator that `monai.bundle run` starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsi_attention import Classifier, load_model, open_slide, predict
from wsi_attention.errors import InputError


class SlideNetwork(nn.Module):
    """A model of ours as the network of a bundle: paths of slides in, probabilities out.

    Attributes:
        classifier: the loaded model.
        model: its trainable part.
    """

    def __init__(self, model: str | Path, device: str | torch.device = "auto") -> None:
        """Load the model.

        Args:
            model: a model folder or a shipped name; there is no default.
            device: where it computes.

        Raises:
            InputError: no model is named.
            ModelError: no such model folder, or one that cannot be used.
        """
        super().__init__()
        if not str(model):
            raise InputError("no model was given; name the folder that wsi-attention train wrote: --model FOLDER")
        self.classifier: Classifier = load_model(model)
        self.classifier.check_one_class("a bundle of MONAI")
        self.model = self.classifier.model
        self.device = str(device)

    def forward(self, slides: str | Sequence[str]) -> Tensor:
        """Probabilities (b, classes) float32 of b slides, in the order of `classifier.classes`.

        Raises:
            SlideError: a slide cannot be opened or read, has no tissue, or does not say its mpp.
        """
        paths = [slides] if isinstance(slides, str) else slides
        return torch.stack([self._probabilities(path) for path in paths])

    def _probabilities(self, path: str) -> Tensor:
        with open_slide(path) as slide:
            found = predict(slide, self.classifier, device=self.device)
        return torch.from_numpy(found.probabilities).float()


class FolderEvaluator:
    """Classifies the slides of a data list into a results folder; a second run does what is missing.

    Attributes:
        report: what the last run came to; None before the first.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        network: SlideNetwork,
        output_dir: str | Path,
        what: Sequence[str] = ("geojson", "tiles", "heatmap"),
        workers: int = 1,
    ) -> None:
        """Start nothing.

        Args:
            data: items with `image`, a slide's path.
            network: the model.
            output_dir: predictions.csv, geojson/, tiles/, heatmaps/ and states/ go there.
            what: kinds of results to write.
            workers: slides side by side.
        """
        self.data, self.network, self.output_dir = data, network, Path(output_dir)
        self.what, self.workers = tuple(what), workers
        self.report: Any = None

    def run(self) -> Any:
        """Classify all slides; one that fails costs its own row.

        Returns:
            The report: how many slides are done, partial, failed, without tissue, and where the table is.

        Raises:
            InputError: there are no slides.
            ResultsError: the folder cannot be written, or holds results of another model.
        """
        from wsi_attention import classify

        paths = [item["image"] for item in self.data]
        self.report = classify(
            paths,
            self.output_dir,
            self.network.classifier,
            device=self.network.device,
            what=list(self.what),
            workers=self.workers,
        )
        return self.report


def slides_in(folder: str | Path) -> list[dict[str, str]]:
    """The slides of a folder as a MONAI data list: items with `image`, a path.

    Raises:
        InputError: no such folder, or no slide in it.
    """
    from wsi_attention.inference import find_slides

    if not Path(folder).exists():
        raise InputError(f"{folder}: no such folder; name the slides' folder with --dataset_dir")
    return [{"image": slide.path} for slide in find_slides([folder]).slides]
