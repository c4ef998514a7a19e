"""A published encoder as a tile encoder: prepared as its authors do, then features of length 1."""

from __future__ import annotations

from torch import Tensor, nn

from wsi_attention.encoders.encoder_weights import EncoderWeights
from wsi_attention.encoders.entry import Entry
from wsi_attention.encoders.hub_files import entry_weights
from wsi_attention.encoders.networks import OWN, asked, features_of, network_of, text_of
from wsi_attention.encoders.resizing import centre, resized
from wsi_attention.encoders.table import entry_of
from wsi_attention.errors import InputError
from wsi_attention.nn.blocks import Encoder, UnitNorm
from wsi_attention.nn.transparent import hide_wrapper


class KnownEncoder(Encoder):
    """A published network, with the resize and the crop of its authors before it; `raw` gives the features they take.

    Tiles come normalised by the entry's colours. A tile of the network's own side goes in as it is, and so
    does every tile where the network takes all sizes. Any other that the
    entry names is turned back into 8-bit pixels, scaled as Pillow does and cropped, as its authors do, and normalised.

    Args:
        entry: what is known of it.
        channels: channels of the tiles.

    Attributes:
        entry: what is known of it.
        name: builds the same network anywhere, without the hub.
        mean: per-channel mean in [0, 1] that it expects; empty where not established.
        std: per-channel standard deviation, likewise.
        dim: length of the feature.
    """

    def __init__(self, entry: Entry, channels: int = 3) -> None:
        super().__init__()
        if entry.mean and len(entry.mean) != channels:
            raise InputError(f"encoder {entry.name!r} takes {len(entry.mean)} channels, not {channels}")
        if entry.dim is None or (entry.input is None and entry.builder != OWN):
            raise InputError(f"encoder {entry.name!r}: its input or the length of its features is not established")
        if not entry.pooling:
            raise InputError(f"encoder {entry.name!r}: how a feature is made of its tokens is not established")
        self.network, self.unit, self.entry = network_of(entry, channels), UnitNorm(), entry
        self.dim, self.mean, self.std = int(getattr(self.network, "dim", entry.dim)), entry.mean, entry.std
        self.name = text_of(entry, entry_of(entry.name))
        self.classifiers, self.renamed = (*_classifiers(self.network), *entry.leave_out), entry.keys
        hide_wrapper(self)

    def forward(self, tiles: Tensor) -> Tensor:
        """Return the features (m, d) of tiles (m, c, h, w), rows of length 1.

        Raises:
            InputError: tiles of this size are not what the encoder was made for.
        """
        features: Tensor = self.unit(self.raw(tiles))
        return features

    def raw(self, tiles: Tensor) -> Tensor:
        """Return the features as its authors take them, (m, d), of any length; arguments as for `forward`."""
        return features_of(self.network, self.prepared(tiles), self.entry)

    def prepared(self, tiles: Tensor) -> Tensor:
        """Return what the network sees of normalised tiles (m, c, h, w): (m, c, input, input)."""
        entry, (height, width) = self.entry, tiles.shape[-2:]
        if entry.input is None or height == width == entry.input:
            return tiles
        if height != width or width not in entry.tile_sizes or entry.resize is None or entry.input is None:
            possible = " or ".join(map(str, entry.tile_sizes))
            raise InputError(f"encoder {entry.name!r} takes tiles of {possible} px, not of {width} x {height} px")
        mean, std = (tiles.new_tensor(values).view(-1, 1, 1) for values in (entry.mean, entry.std))
        pixels = (tiles * std + mean).mul(255).round().clamp(0, 255)
        seen = centre(resized(pixels, entry.resize, entry.interpolation), entry.input)
        return ((seen - 255 * mean) / (255 * std)).to(tiles.dtype)

    def published_weights(self) -> EncoderWeights:
        """Return the weights that its authors publish, downloaded once; only safetensors are read.

        Raises:
            InputError: none are published as safetensors, or they cannot be downloaded.
            MissingExtraError: the hub's package is not installed.
        """
        entry = self.entry
        return EncoderWeights(entry_weights(entry), entry.mean, entry.std)


def known_encoder(name: str, channels: int = 3) -> KnownEncoder:
    """Return a published encoder with fresh weights, by its name in the table.

    Raises:
        InputError: there is none, or it cannot be built here.
        MissingExtraError: a package is not installed.
    """
    return KnownEncoder(asked(name), channels)


def _classifiers(network: nn.Module) -> tuple[str, ...]:
    told = getattr(network, "pretrained_cfg", None) or {}
    heads = told.get("classifier") or getattr(network, "classifiers", None) or ()
    return (heads,) if isinstance(heads, str) else tuple(map(str, heads))
