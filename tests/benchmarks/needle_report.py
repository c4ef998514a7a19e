"""The needle benchmark's table, and the picture of where every row looked on one slide."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

PANEL, GAP, HEAD = 392, 20, 58
"""Pixels of a panel's side, between panels, and of its title."""
COLUMNS = 4
HEADS = (
    *("row", "AUROC 5 %", "AUROC 1 % (95 %)", "AUROC 0.2 %", "tissue read", "hit", "pointing", "AUPRC"),
    *("s / slide", "MB", "training"),
)


def load(work: Path, row: str) -> dict[str, Any] | None:
    """A row's figures by tumour fraction; None where it was not measured."""
    path = work / "results" / f"{row}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def table(work: Path, rows: Sequence[str]) -> str:
    """Markdown: AUROC of every fraction, the rest at 1 %."""
    lines = [f"| {' | '.join(HEADS)} |", "|" + "---|" * len(HEADS)]
    for row in rows:
        found = load(work, row)
        if found is None:
            continue
        one = found["0.01"]
        low, high = one["interval"]
        seconds = work / "models" / row / "seconds.json"
        minutes = f"{json.loads(seconds.read_text()) / 60:.0f} min" if seconds.is_file() else "–"
        hit = "–" if math.isnan(one["hit"]) else f"{one['hit']:.2f}"
        lines.append(
            f"| {row} | {_auroc(found, '0.05')} | {one['auroc']:.3f} ({low:.3f}-{high:.3f}) | "
            f"{_auroc(found, '0.002')} | {one['tissue_read']:.1%} | {hit} | {one['pointing']:.2f} | "
            f"{one['auprc']:.3f} | {one['seconds']:.2f} | {one['megabytes']:.0f} | {minutes} |"
        )
    chance = next((f["0.01"]["chance"] for row in rows if (f := load(work, row))), math.nan)
    return "\n".join(
        [*lines, "", f"AUPRC of a constant map: {chance:.3f}. All but the first and third AUROC are at 1 %."]
    )


def _auroc(found: dict[str, Any], share: str) -> str:
    return f"{found[share]['auroc']:.3f}" if share in found else "–"


def draw(work: Path, rows: Sequence[str], slide: str | None = None) -> Path:
    """A panel a row: its map over the same slide in faint colours, the tumour outlined; the slide itself first."""
    from needle import classifier_of, exact_of
    from needle_measure import evidence_map, truth_of

    from wsi_attention.inference.predict import predict
    from wsi_attention.slide.slide import open_slide

    paths = sorted((work / "slides" / "test-0.01").glob("*.tiff"))
    positive = [path for path in paths if truth_of(path).label]
    path = next((one for one in positive if one.stem == slide), positive[0])
    truth = truth_of(path)
    panels = []
    for row in rows:
        with open_slide(str(path)) as opened:
            found = predict(opened, classifier_of(work, row), device="cpu", exact=exact_of(row))
        share = found.probabilities[1]
        cells = np.where(truth.tissue, evidence_map(found), np.nan)
        panels.append(_panel(path, row, f"tumour {share:.2f}", cells, truth.tumour))
    panels.insert(
        0, _panel(path, "slide", f"tumour in {truth.tumour.sum()} of {truth.tissue.sum()} tiles", None, truth.tumour)
    )
    out = work / "needle.png"
    _sheet(panels).save(out, optimize=True)
    return out


def _panel(
    path: Path, name: str, note: str, cells: NDArray[np.float64] | None, tumour: NDArray[np.bool_]
) -> Image.Image:
    import openslide

    from wsi_attention.export import legend as canvas

    with openslide.OpenSlide(path) as file:
        picture = np.asarray(file.get_thumbnail((PANEL, PANEL)).resize((PANEL, PANEL)).convert("RGB"), np.float32)
    side = PANEL // len(tumour)
    if cells is not None:
        rank = _ranks(cells).repeat(side, 0).repeat(side, 1)
        grey = picture.mean(axis=-1, keepdims=True) * 0.5 + 127
        colour = canvas.ramp(np.nan_to_num(rank))
        picture = np.where(np.isnan(rank)[..., None], grey, 0.25 * grey + 0.75 * colour)
    sheet = Image.new("RGB", (PANEL, PANEL + HEAD), canvas.PAPER)
    sheet.paste(Image.fromarray(picture.round().clip(0, 255).astype(np.uint8)), (0, HEAD))
    pen = ImageDraw.Draw(sheet)
    canvas.write(pen, (0, 4), name, 22)
    canvas.write(pen, (0, 32), note, 16, canvas.MUTED)
    _outline(pen, tumour, side)
    return sheet


def _ranks(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each cell's value as a share of the highest; maps differ too much in peakedness to share one scale."""
    top = np.nanmax(cells)
    return np.sqrt(cells / top) if top > 0 else cells * 0


def _outline(pen: ImageDraw.ImageDraw, tumour: NDArray[np.bool_], side: int) -> None:
    from wsi_attention.export import legend as canvas

    padded = np.pad(tumour, 1)
    for row, col in np.argwhere(tumour):
        x, y = col * side, row * side + HEAD
        edges = {
            (0, 1): ((x, y), (x, y + side)),
            (2, 1): ((x + side, y), (x + side, y + side)),
            (1, 0): ((x, y), (x + side, y)),
            (1, 2): ((x, y + side), (x + side, y + side)),
        }
        for (dx, dy), line in edges.items():
            if not padded[row + dy, col + dx]:
                pen.line(line, canvas.MARK, 3)


def _sheet(panels: Sequence[Image.Image]) -> Image.Image:
    rows = math.ceil(len(panels) / COLUMNS)
    size = COLUMNS * (PANEL + GAP) + GAP, rows * (PANEL + HEAD + GAP) + GAP
    sheet = Image.new("RGB", size, (255, 255, 255))
    for i, panel in enumerate(panels):
        sheet.paste(panel, (GAP + i % COLUMNS * (PANEL + GAP), GAP + i // COLUMNS * (PANEL + HEAD + GAP)))
    return sheet
