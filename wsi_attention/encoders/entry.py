"""What is known about one published encoder; a fact that nobody established is empty, and is never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

POOLINGS = ("cls", "mean", "cls+mean", "pooler", "own")
"""What a feature is: the class token, the mean of the patches' tokens, both, transformers' `pooler_output`, or what the
network itself returns."""
INTERPOLATIONS = ("", "bilinear", "bicubic")
NEAR = 0.05
"""How far a scale may be from one that the encoder was trained at, as a share."""


def _empty() -> Mapping[str, object]:
    return MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A published encoder. "" or None or an empty tuple means: not established.

    Attributes:
        name: how recipes call it, e.g. "uni2-h".
        title: how its authors call it.
        repository: "owner/model" on the hub.
        revision: commit of the repository for which the facts hold; any where empty.
        builder: "timm", "transformers", or the package of its authors.
        architecture: the network's name in that library.
        config: whether config.json of the repository completes architecture and arguments.
        arguments: of its constructor, as JSON has them; a Python class stands there by its full name.
        keys: pairs (pattern, replacement) that turn names of the published tensors into those of the network.
        leave_out: published modules and tensors that the network does not have.
        head: module behind the pooling that makes the feature; "visual_head" is KEEP's, none where empty.
        remote_code: whether transformers must run code from the repository.
        extra: what pip installs where the builder is a package of its authors; empty where none is to be had.
        input: side in pixels of what the network sees.
        resize: side in pixels to which a tile is scaled before its centre is cut out; None where none is.
        tile: side in pixels of the tiles that the authors read; `input` where None.
        interpolation: how a tile is scaled.
        patch: side in pixels of a transformer's patch; None for other networks.
        mpps: µm per pixel of the tiles that it was trained on.
        mean: per-channel mean in [0, 1] that it expects.
        std: per-channel standard deviation, likewise.
        prefix_tokens: tokens before those of the patches: class token and registers.
        pooling: one of `POOLINGS`.
        dim: length of the feature.
        precision: of the computation with which it is used: "32", "16" or "bf16".
        parameters: millions of them.
        licence: its name, as its authors write it.
        redistributable: whether others may pass on the weights.
        commercial: whether commercial use is permitted.
        gated: whether the hub asks for a login and consent.
        weights: file in the repository.
        note: what else to know.
    """

    name: str
    title: str = ""
    repository: str = ""
    revision: str = ""
    builder: str = ""
    architecture: str = ""
    config: bool = False
    arguments: Mapping[str, object] = field(default_factory=_empty)
    keys: tuple[tuple[str, str], ...] = ()
    leave_out: tuple[str, ...] = ()
    head: str = ""
    remote_code: bool = False
    extra: str = ""
    input: int | None = None
    resize: int | None = None
    tile: int | None = None
    interpolation: str = ""
    patch: int | None = None
    mpps: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    prefix_tokens: int | None = None
    pooling: str = ""
    dim: int | None = None
    precision: str = ""
    parameters: float | None = None
    licence: str = ""
    redistributable: bool | None = None
    commercial: bool | None = None
    gated: bool | None = None
    weights: str = ""
    note: str = ""

    @property
    def tile_size(self) -> int | None:
        """Side in pixels of the tiles to read where nobody says another."""
        return self.tile if self.tile and self.interpolation and self.resize else self.input

    @property
    def tile_sizes(self) -> tuple[int, ...]:
        """Sides of tiles that it takes: as its authors read them, or as the network sees them, in pixels."""
        scaled = {self.tile, self.resize} if self.interpolation and self.resize else set()
        sides = {one for one in {*scaled, self.input} if one}
        return tuple(sorted(sides, key=lambda side: (side != self.tile_size, side)))

    @property
    def tile_mpp(self) -> float | None:
        """µm per pixel to read tiles at where nobody says: the one it was trained at, 0.5 where it is among several."""
        if not self.mpps:
            return None
        return min(self.mpps, key=lambda mpp: abs(mpp - 0.5))

    def knows_scale(self, mpp: float, side: int | None = None) -> bool:
        """Return whether it was trained at a scale within 5 % of this one, or nobody knows at which.

        Args:
            mpp: µm per pixel of the tiles that are read.
            side: of these tiles in pixels. Where it is the one to which the authors scale theirs, tiles that show the
                same field are as good: 224 px at 0.571 µm/px in place of 256 px at 0.5.
        """
        scales = [*self.mpps]
        if self.tile and self.resize and side == self.resize:
            scales += [known * self.tile / self.resize for known in self.mpps]
        return not scales or any(abs(mpp / known - 1) <= NEAR for known in scales)
