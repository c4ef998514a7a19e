"""Opens a slide in napari with what a model found on it: python example.py SLIDE MODEL."""

from __future__ import annotations

import sys

import napari
from wsi_attention_napari.layers import prediction_layers, slide_layer

from wsi_attention import load_model, open_slide, predict


def show(path: str, model: str) -> napari.Viewer:
    """A viewer with the slide, its attention and the tiles that were read."""
    slide = open_slide(path)
    viewer = napari.Viewer()
    for data, how, kind in [slide_layer(slide), *prediction_layers(predict(slide, load_model(model)))]:
        viewer.add_layer(napari.layers.Layer.create(data, how, kind))
    return viewer


if __name__ == "__main__":
    show(*sys.argv[1:3])
    napari.run()
