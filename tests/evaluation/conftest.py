"""Predictions of two models for slides of several patients, and their labels."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

Write = Callable[..., "Study"]


@dataclass(frozen=True)
class Study:
    """Files of a study, and what is in them.

    Attributes:
        first: results folder of a good model.
        second: of a worse one; its table lists the slides in another order.
        labels: slide,label,patient,split,site.
        shares: (n, classes) of the first model, in the order of `names`.
        truth: (n,) class indices.
        parts: (n,) of the column split.
        names: of the slides.
    """

    first: Path
    second: Path
    labels: Path
    shares: NDArray[np.float64]
    truth: NDArray[np.int64]
    parts: NDArray[np.str_]
    names: tuple[str, ...]


def table(folder: Path, classes: Sequence[str], names: Sequence[str], shares: NDArray[np.float64], note: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide", "status", *(f"prob_{name}" for name in classes), "notes"])
        for name, row in zip(names, shares, strict=True):
            writer.writerow([name, "done", *(f"{share:.9f}" for share in row), note])


@pytest.fixture
def study(tmp_path: Path) -> Write:
    def write(
        classes: Sequence[str] = ("normal", "tumour"),
        patients: int = 30,
        parts: Sequence[str] = ("val", "test", "test"),
        note: str = "",
    ) -> Study:
        rng = np.random.default_rng(7)
        own = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
        truth = own % len(classes)
        shared = rng.normal(size=(patients, len(classes)))[own]
        names = tuple(f"s{number:03d}" for number in range(len(own)))
        found = []
        for gap, noise in ((2.2, 0.5), (1.0, 1.2)):
            logits = shared + noise * rng.normal(size=shared.shape) + gap * np.eye(len(classes))[truth]
            found.append(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
        split = np.array(parts)[(own // len(classes)) % len(parts)]
        table(tmp_path / "first", classes, names, found[0], note)
        table(tmp_path / "second", classes[::-1], names[::-1], found[1][::-1, ::-1], "")
        with (tmp_path / "labels.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["Slide", "label", "patient", "split", "Site"])
            for name, label, patient, part in zip(names, truth, own, split, strict=True):
                site = ("Graz", "Leeds", "")[patient // 4 % 3]
                writer.writerow([f"{name}.svs", classes[label], f"p{patient}", part, site])
        return Study(
            tmp_path / "first", tmp_path / "second", tmp_path / "labels.csv", found[0].round(9), truth, split, names
        )

    return write
