"""A tile encoder in int8 that `quantise` has put into the model folder: read, checked, compiled. Used only where asked.

Numbers of eight bits are faster on processors that multiply them, and change every feature a little: what that costs a
model is measured on its own slides before it is believed (docs/how-to/int8.md). Nothing here is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from torch import nn

from wsi_attention.checkpoint import Classifier
from wsi_attention.errors import InputError
from wsi_attention.feature_store.kind import weights_sha256
from wsi_attention.inference.compiled import NotCompiledError, Shape, settings, without_telemetry
from wsi_attention.nn.encoders import bare
from wsi_attention.protocols import contract_of

if TYPE_CHECKING:
    from openvino import CompiledModel

FOLDER, MODEL, WEIGHTS, ABOUT = "int8", "encoder.xml", "encoder.bin", "about.json"
"""The folder inside the model folder, and its files: OpenVINO's own format, and what is known of it."""
INT8: Final = "int8"
"""The name of the precision."""


@dataclass(frozen=True)
class Quantised:
    """An encoder in int8.

    Attributes:
        model: the layers, OpenVINO's XML.
        weights: OpenVINO's numbers.
        shape: (c, h, w) of a tile.
        encoder_sha256: of the weights that it was made from.
        tiles: it was calibrated on.
        slides: they came from.
        likeness: mean cosine between its features and those in float32, on tiles that it was not calibrated on.
        openvino: its version.
        nncf: the version of what quantised.
    """

    model: bytes
    weights: bytes
    shape: Shape
    encoder_sha256: str
    tiles: int
    slides: int
    likeness: float
    openvino: str
    nncf: str

    @property
    def sha256(self) -> str:
        """Return the sha256 (hex) of layers and weights."""
        return hashlib.sha256(self.model + self.weights).hexdigest()

    @property
    def why(self) -> str:
        """Return what a result says of it."""
        return (
            f"int8 as asked, {self.sha256[:12]}, calibrated on {self.tiles} tiles of {self.slides} slides; on others"
            f" the cosine with float32 is {self.likeness:.4f}"
        )

    def files(self) -> dict[str, bytes]:
        """Return the files to write, the one that speaks of the others last."""
        names = ("encoder_sha256", "tiles", "slides", "likeness", "openvino", "nncf")
        about = {name: getattr(self, name) for name in names} | {"shape": list(self.shape), "sha256": self.sha256}
        return {MODEL: self.model, WEIGHTS: self.weights, ABOUT: (json.dumps(about, indent=2) + "\n").encode()}

    def compiled(self, encoder: nn.Module, shape: Shape) -> CompiledModel:
        """Compile it for tiles (c, h, w); the encoder itself is not asked.

        Raises:
            NotCompiledError: it is for tiles of another size, or OpenVINO cannot read it.
        """
        del encoder
        if shape != self.shape:
            raise NotCompiledError(f"the int8 encoder takes tiles of {' x '.join(map(str, self.shape))}")
        core = without_telemetry().Core()
        try:
            return core.compile_model(core.read_model(self.model, self.weights), "CPU", settings())
        except RuntimeError as error:
            raise NotCompiledError(f"OpenVINO cannot read the int8 encoder: {error}") from error


def quantised(classifier: Classifier) -> Quantised:
    """Return the int8 encoder of a model's folder.

    Raises:
        InputError: there is none, it is damaged, or it was made from other weights.
    """
    encoder = contract_of(classifier.model).encoder
    if classifier.folder is None or encoder is None:
        raise InputError(f"precision int8: model {classifier.name} has no folder, or no tile encoder; give 32, or auto")
    again = f"make it with: wsi-attention quantise -m {classifier.folder} -i TRAINING_SLIDES"
    folder = classifier.folder / FOLDER
    try:
        found = _read(folder, (folder / ABOUT).stat().st_mtime_ns)
    except FileNotFoundError:
        raise InputError(f"precision int8: {folder} has no int8 encoder; {again}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"precision int8: {folder} is damaged ({error}); remove it and {again}") from error
    if found.encoder_sha256 != weights_sha256(bare(encoder)):
        raise InputError(f"precision int8: {folder} was made from other weights than the model has now; {again}")
    return found


@lru_cache(maxsize=4)
def _read(folder: Path, written: int) -> Quantised:
    """Read the folder's files, once for each time they are written.

    Raises:
        ValueError: the files do not belong together.
    """
    del written
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    found = Quantised(
        (folder / MODEL).read_bytes(),
        (folder / WEIGHTS).read_bytes(),
        tuple(int(side) for side in about["shape"]),
        str(about["encoder_sha256"]),
        int(about["tiles"]),
        int(about["slides"]),
        float(about["likeness"]),
        str(about["openvino"]),
        str(about["nncf"]),
    )
    if found.sha256 != about["sha256"]:
        raise ValueError(f"{MODEL} and {WEIGHTS} are not those that {ABOUT} speaks of")
    return found


def settings_of(classifier: Classifier, precision: str) -> Mapping[str, object]:
    """Return what results in int8 depend on besides the model; nothing for other precisions. Errors as above."""
    return {"int8_sha256": quantised(classifier).sha256} if precision == INT8 else {}


def named_with(classifier: Classifier, precision: str) -> str:
    """Return a precision as stored features name it: of int8, which one. Errors as in `quantised`."""
    return f"{INT8} {quantised(classifier).sha256}" if precision == INT8 else precision
