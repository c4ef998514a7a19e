"""The widget: a model on the slide that is open, and results of it that lie in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, Container, FileEdit, FloatSpinBox, Label, LineEdit, PushButton
from napari.layers import Image, Layer

from wsi_attention import Prediction, WsiAttentionError, load_model, open_slide, predict
from wsi_attention_napari.layers import prediction_layers

if TYPE_CHECKING:
    from napari.components import ViewerModel


class Classify(Container[Any]):
    """Runs a model on an open slide in a thread of its own, and adds what it found as layers.

    Attributes:
        slide: which of the open slides.
        model: a model folder; there is no default. "demo" is a demonstration, which knows painted slides only.
        mpp: µm per level-0 pixel where the file does not say; 0 takes the file's.
        results: a results folder to show the stored result from, instead of running a model.
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        self._viewer = napari_viewer
        self.slide = ComboBox(label="slide", choices=self._slides)
        self.model = LineEdit(label="model", value="")
        self.mpp = FloatSpinBox(label="µm per pixel", value=0.0, min=0.0, max=100.0, step=0.01)
        self.run = PushButton(text="Classify")
        self.results = FileEdit(label="results", mode=FileDialogMode.EXISTING_DIRECTORY)
        self.show_stored = PushButton(text="Show stored result")
        self.said = Label(value="")
        super().__init__(
            widgets=[self.slide, self.model, self.mpp, self.run, self.results, self.show_stored, self.said]
        )
        self.run.changed.connect(self.start)
        self.show_stored.changed.connect(self.show_result)
        for event in (napari_viewer.layers.events.inserted, napari_viewer.layers.events.removed):
            event.connect(self._layers_changed)

    def start(self) -> Any:
        """Start the model; return napari's worker."""
        from napari.qt.threading import create_worker

        known = self._known()
        if known is None:
            return None
        if not str(self.model.value).strip():
            self.said.value = "no model was given; write the folder that wsi-attention train wrote into the field"
            return None
        self.run.enabled, self.said.value = False, "running …"
        model, mpp = str(self.model.value), float(self.mpp.value) or None
        worker = create_worker(_outcome, known["path"], model, mpp, known["reader"])
        worker.returned.connect(self._took)
        worker.finished.connect(self._ended)
        worker.start()
        return worker

    def add(self, prediction: Prediction) -> None:
        """Add a prediction's layers, in place of those it had before."""
        for data, how, kind in prediction_layers(prediction):
            if how["name"] in self._viewer.layers:
                self._viewer.layers.remove(how["name"])
            self._viewer.add_layer(Layer.create(data, how, kind))
        notes = f" ({'; '.join(prediction.remarks)})" if prediction.remarks else ""
        self.said.value = f"{prediction.verdict}; {'' if prediction.calibrated else 'not '}calibrated{notes}"

    def show_result(self) -> None:
        """Show what a results folder has of the slide."""
        known = self._known()
        if known is None:
            return
        try:
            self.add(stored(str(self.results.value), known["path"]))
        except WsiAttentionError as error:
            self.said.value = str(error)

    def _known(self) -> dict[str, Any] | None:
        layer = self.slide.value
        if layer is None:
            self.said.value = "no slide is open; open one with the reader of wsi-attention"
            return None
        known: dict[str, Any] = layer.metadata["wsi_attention"]
        return known

    def _slides(self, _: Any = None) -> list[Image]:
        return [one for one in self._viewer.layers if "path" in one.metadata.get("wsi_attention", {})]

    def _layers_changed(self, _: Any = None) -> None:
        self.slide.reset_choices()

    def _took(self, outcome: Prediction | str) -> None:
        if isinstance(outcome, Prediction):
            self.add(outcome)
        else:
            self.said.value = outcome

    def _ended(self) -> None:
        self.run.enabled = True


def classified(path: str, model: str, mpp: float | None = None, reader: str = "auto") -> Prediction:
    """A model's prediction of a slide; safe in any thread."""
    with open_slide(path, reader=reader, mpp=mpp) as slide:
        return predict(slide, load_model(model))


def _outcome(path: str, model: str, mpp: float | None, reader: str) -> Prediction | str:
    """The prediction, or what went wrong where a person can do something about it; other errors go napari's own way."""
    try:
        return classified(path, model, mpp, reader)
    except WsiAttentionError as error:
        return str(error)


def stored(results: str, path: str) -> Prediction:
    """What a results folder has of a slide: the one with its content, under whatever name.

    Raises:
        InputError: no folder is given, or it has no result of this slide.
        ResultsError: the folder holds no results.
    """
    from wsi_attention.errors import InputError
    from wsi_attention.inference import stored_predictions

    if results in ("", ".") or not Path(results).is_dir():
        raise InputError(f"results {results!r}: no such folder; give the one that classify wrote")
    with open_slide(path) as slide:
        fingerprint = slide.fingerprint
    for _, prediction in stored_predictions(results):
        if prediction.provenance.get("fingerprint") == fingerprint:
            return prediction
    raise InputError(f"{results}: no result of {path} there: none of the classified slides has its content")
