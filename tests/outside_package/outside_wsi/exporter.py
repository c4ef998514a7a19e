"""The tiles that were read as lines of text: x, y, w, h in level-0 pixels and the weight."""

from __future__ import annotations

from pathlib import Path

from wsi_attention import Prediction


class BoxesExporter:
    """One text file a slide."""

    suffix = "boxes/{slide}.txt"

    def __call__(self, prediction: Prediction, path: Path) -> None:
        lines = [f"# {prediction.label}"]
        lines += [f"# {prediction.probabilities.max():.6f} {prediction.extent[0]}x{prediction.extent[1]}"]
        for glimpse in prediction.glimpses:
            for (x, y, w, h), weight in zip(glimpse.tiles.boxes[0], glimpse.weights, strict=True):
                lines.append(f"{x} {y} {w} {h} {weight:.6f}")
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
