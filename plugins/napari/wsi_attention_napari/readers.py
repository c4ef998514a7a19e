"""napari's readers: a path in, a function that reads it out, or None where it is not ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from wsi_attention import WsiAttentionError, open_slide
from wsi_attention_napari.layers import LayerData, prediction_layers, slide_layer

Paths = str | Sequence[str]
Read = Callable[[Paths], list[LayerData]]

SLIDES = {".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide"}
"""Endings that nothing but slides have: such a file is ours, and if it is broken the reason is told."""

STATES = "states"
"""The folder of a results folder that remembers each slide."""


def slide_reader(path: Paths) -> Read | None:
    """Read slides; other files and folders only where they open as a brightfield slide."""
    one = one_path(path)
    if one is None or _results_of(one) is not None:
        return None
    if one.suffix.lower() not in SLIDES:
        try:
            open_slide(one).close()
        except WsiAttentionError:
            return None
    return _read_slide


def results_reader(path: Paths) -> Read | None:
    """Read the result of one slide: its file in `states/`, or a results folder of one slide."""
    one = one_path(path)
    return _read_results if one is not None and _results_of(one) is not None else None


def _read_slide(path: Paths) -> list[LayerData]:
    return [slide_layer(open_slide(_given(path)))]


def _read_results(path: Paths) -> list[LayerData]:
    from wsi_attention.inference import stored_predictions

    one = _given(path)
    folder = _results_of(one) or one
    names = [] if one == folder else [one.relative_to(folder / STATES).as_posix().removesuffix(".json")]
    found = list(stored_predictions(folder, names))
    if len(found) != 1:
        known = ", ".join(name for name, _ in found[:5]) or "none"
        raise ValueError(
            f"{folder}: results of {len(found)} slides ({known}); open one, {STATES}/NAME.json, or use the widget"
        )
    return prediction_layers(found[0][1])


def _results_of(path: Path) -> Path | None:
    """The results folder that a path is, or is a state in; None where it is neither."""
    if path.is_dir():
        return path if (path / STATES).is_dir() and (path / "predictions.csv").is_file() else None
    above = [folder for folder in path.parents if folder.name == STATES and _results_of(folder.parent) is not None]
    return above[0].parent if above and path.suffix == ".json" else None


def one_path(path: Paths) -> Path | None:
    """The path that napari gave; None where it gave several."""
    return Path(path) if isinstance(path, str) else Path(path[0]) if len(path) == 1 else None


def _given(path: Paths) -> Path:
    found = one_path(path)
    if found is None:
        raise ValueError(f"{len(path)} paths as one stack; open slides one by one")
    return found
