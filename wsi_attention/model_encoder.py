"""The encoder of a model folder: inside it, or elsewhere with a pointer in config.json.

Many published encoders may be used but not given on. A model on such weights, frozen, keeps its own weights alone; the
encoder's are found where `wsi-attention encoders fetch` puts them, and are known by the sha256 of their tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from wsi_attention.encoders.encoder_weights import read_encoder
from wsi_attention.encoders.local_files import weights_of_folder
from wsi_attention.encoders.origin import Origin
from wsi_attention.encoders.places import SUFFIX, on_this_machine, snapshot
from wsi_attention.encoders.published import published
from wsi_attention.errors import InputError, ModelError
from wsi_attention.nn.encoders import Frozen
from wsi_attention.nn.filling import fill
from wsi_attention.protocols import contract_of

KEY = "encoder_weights"
"""Of config.json."""
OPTION = "encoder"
"""Of a method."""


@dataclass(frozen=True)
class EncoderPart:
    """What config.json says of the encoder's weights.

    Attributes:
        origin: where they come from.
        sha256: of their tensors, as `tensors_sha256` computes it.
        contained: whether the folder contains them.
    """

    origin: Origin
    sha256: str
    contained: bool

    @classmethod
    def of(cls, stored: object) -> EncoderPart | None:
        """Return the part from JSON; None for weights that nobody published."""
        said = stored if isinstance(stored, Mapping) else {}
        origin, sha256 = Origin.of(said), said.get("sha256")
        if not origin or not isinstance(sha256, str):
            return None
        return cls(origin, sha256, said.get("contained") is not False)

    def as_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {**self.origin.as_dict(), "sha256": self.sha256, "contained": self.contained}

    @property
    def sentences(self) -> tuple[str, ...]:
        """What to know about it, for people."""
        where = f" ({self.origin.repository}{f', {self.origin.revision}' * bool(self.origin.revision)})"
        first = f"The encoder is {self.origin.name}{where * bool(self.origin.repository)}: {self.origin.rights}."
        if not self.contained:
            return first, f"Its weights are not in this folder; `{self.origin.command}` gets them."
        return (first,) if self.origin.contained else (first, "Its weights are in this folder: do not give it on.")


def check_permitted(origin: Origin, frozen: bool) -> None:
    """Raise InputError where a model would contain weights that must not be given on, changed by training."""
    if origin.redistributable is False and not frozen:
        raise InputError(
            f"encoder {origin.name}: its licence ({origin.licence or 'not known'}) forbids giving on changed weights, "
            "and a model folder would contain them; set encoder_frozen = true under [model]"
        )


def named_encoder(options: Mapping[str, object]) -> str:
    """Return the name of the encoder in a method's options; empty where it has none."""
    given = options.get(OPTION)
    name = given.get("name") if isinstance(given, Mapping) else given
    return name if isinstance(name, str) else ""


def encoder_part(model: nn.Module, options: Mapping[str, object], origin: Origin) -> EncoderPart | None:
    """Return what config.json has to say of a model's encoder, None where nobody published its weights.

    Args:
        model: trained.
        options: of its method.
        origin: of the encoder's weights; where it is empty, that of the published encoder that the options name.

    Raises:
        InputError: the folder would contain weights that must not be given on.
    """
    encoder = contract_of(model).encoder
    origin = origin or published(named_encoder(options))
    if encoder is None or not origin:
        return None
    frozen = isinstance(encoder, Frozen)
    check_permitted(origin, frozen)
    cached = snapshot(origin.repository) if origin.repository and not origin.revision else None
    origin = replace(origin, revision=cached.name) if cached else origin
    return EncoderPart(origin, tensors_sha256(encoder.state_dict()), origin.contained or not frozen)


def own_weights(model: nn.Module, part: EncoderPart | None) -> dict[str, Tensor]:
    """Return the weights that a model folder contains: all of them, or all but the encoder's."""
    weights = dict(model.state_dict())
    outside = _names_of_encoder(model) if part and not part.contained else frozenset()
    return {name: value for name, value in weights.items() if name not in outside}


def fill_from_pointer(model: nn.Module, part: EncoderPart, folder: Path, start: object) -> dict[str, Tensor]:
    """Fill a model's encoder with the weights that its folder points to.

    Args:
        model: as its folder says, with any weights.
        part: the pointer.
        folder: the model's, for errors.
        start: `encoder_start` of its recipe: the file is used where it is still there.

    Returns:
        The encoder's part of the model's state dict.

    Raises:
        ModelError: the weights are not on this machine, or others are; the text says how to get the right ones.
    """
    encoder = contract_of(model).encoder
    if encoder is None:
        raise ModelError(f"{folder}: config.json points to an encoder, but the method has none; copy the folder again")
    tried = []
    for path in _places(part.origin, start):
        try:
            fill(encoder, read_encoder(path).tensors, str(path))
        except InputError as error:
            tried.append(str(error))
            continue
        sha256 = tensors_sha256(encoder.state_dict())
        if sha256 == part.sha256:
            names = _names_of_encoder(model)
            return {name: value for name, value in model.state_dict().items() if name in names}
        tried.append(
            f"{path} has sha256 {sha256[:12]}…, its config.json expects {part.sha256[:12]}…: others were trained on"
        )
    name, command = part.origin.name, part.origin.command
    if tried:
        raise ModelError(
            f"model {folder} cannot use the weights of {name} that are here ({tried[-1]}); get them with: {command}"
        )
    raise ModelError(
        f"model {folder} needs the weights of {name}, which it may not contain ({part.origin.rights}) and which are "
        f"not on this machine; get them with: {command}"
    )


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of tensors: names, kinds, shapes and bytes, whatever file held them."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _places(origin: Origin, start: object) -> Iterator[Path]:
    """Yield the files that may hold the weights: what training started from, then where they are fetched to."""
    path = Path(start) if isinstance(start, str) and start else None
    if path and path.suffix == SUFFIX and path.is_file():
        yield path
    elif path and path.is_dir():
        with suppress(InputError):
            yield weights_of_folder(path)
    yield from on_this_machine(origin)


def _names_of_encoder(model: nn.Module) -> frozenset[str]:
    """Return the names in a model's state dict of the tensors that its encoder has, wherever it stands in the model."""
    encoder = contract_of(model).encoder
    own = {id(value) for value in encoder.state_dict(keep_vars=True).values()} if encoder is not None else set()
    return frozenset(name for name, value in model.state_dict(keep_vars=True).items() if id(value) in own)
