"""The numbers of Zoom-In: what each means, what it may be, and where its default comes from.

docs/methods/zoom_in.md explains the method; "Zoom-In eq." are equations of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsi_attention.errors import InputError
from wsi_attention.methods.overview import OverviewOptions
from wsi_attention.methods.zoom_in.estimator import ESTIMATES, NOISE
from wsi_attention.nn.encoders import TileEncoder
from wsi_attention.nn.overview_colours import OverviewPixelOptions
from wsi_attention.options import option

INFERENCE = ("top", "sample", "as-released")
TOLERANCE = 0.05
"""How far the side of a cell may be from a whole number of the network's own cells, as a share."""


@dataclass(frozen=True, kw_only=True)
class ZoomOptions(OverviewOptions):
    """The numbers of Zoom-In, whatever the networks."""

    tile_size: int = option(
        256, "side of a sub-tile in pixels; only sub-tiles are read at full resolution", low=1, high=8192
    )
    tile_mpp: float = option(0.5, "µm per pixel of the sub-tiles", low=0.02, high=50)
    overview_mpp: float = option(
        16.0, "µm per pixel of the overview, which the first step looks at", low=0.02, high=1000
    )
    view_mpps: tuple[float, ...] = option(
        (4.0,),
        "µm per pixel of the views that the further steps look at, one number a step; more numbers are more steps",
        low=0.02,
        high=1000,
    )
    draws: int = option(32, "N, draws per slide; at most this many sub-tiles are read", low=1, high=100_000)
    gradient: str = option(
        "unbiased",
        'how the gradient reaches attention. "centred" has less noise and a small bias and needs two draws or more; '
        '"as-released" is biased and reproduces the released code',
        "Zoom-In eq. 9; docs/methods/zoom_in.md §4",
        choices=tuple(ESTIMATES),
    )
    noise: str = option(
        "log",
        'what random draws of sub-tiles put Gumbel noise on: log β, or with "as-released" β itself, which is biased',
        "docs/methods/zoom_in.md §6",
        choices=NOISE,
    )
    inference: str = option(
        "sample",
        'what training and prediction estimate. "sample": Φ, from random draws. "top": the mean over regions by N·α '
        'rounded and their sub-tiles with the highest attention; nothing is random then. "as-released": trained as '
        '"sample", but prediction draws regions from rescaled attention and takes their highest sub-tiles',
        "docs/methods/zoom_in.md §6",
        choices=INFERENCE,
    )
    entropy_weight: float = option(
        1e-5, "λ of the loss; above 0 it pushes every attention towards uniform", "docs/methods/zoom_in.md §5"
    )
    floor: float = option(
        1e-4,
        "share of each attention that is spread evenly over the tissue, so that 1/α stays bounded",
        "docs/methods/ats.md §2.1",
        low=0,
        high=0.999,
    )
    background: int | None = option(
        None,
        "index of the class of tissue without a finding, which the contrastive pass needs; training finds it by its "
        "name. Nothing: the first of two classes; with more classes there is no contrastive pass",
        "docs/methods/zoom_in.md §5",
        low=0,
    )
    contrastive_weight: float = option(
        1.0, "factor on the contrastive loss; 0 leaves the pass out", "docs/methods/zoom_in.md §5", low=0
    )
    contrastive_share: float = option(
        0.5,
        "share of the tissue, the part with the lowest attention, in which the contrastive pass looks",
        "docs/methods/zoom_in.md §5",
        low=1e-9,
        high=1,
    )
    warm_up: int = option(10, "epochs before the contrastive pass begins", "docs/methods/zoom_in.md §5", low=0)

    def check(self) -> None:
        """Raise InputError where options do not go together."""
        if self.gradient == "centred" and self.draws == 1:
            raise InputError("gradient 'centred' is always 0 with draws 1; take 2 or more, or gradient 'unbiased'")

    @property
    def mpps(self) -> tuple[float, ...]:
        """µm per pixel of what each step looks at, the overview's first."""
        return (self.overview_mpp, *self.view_mpps)


@dataclass(frozen=True, kw_only=True)
class ZoomInOptions(ZoomOptions, OverviewPixelOptions):
    """Zoom-In for stained tissue: regions of 512 µm are seen at 4 µm/px, in them sub-tiles of 128 µm at 0.5 µm/px."""

    cells_um: tuple[float, ...] = option(
        (512.0, 128.0),
        "side in µm of the cells of every step, one number more than view_mpps: the regions that are viewed, then the "
        "sub-tiles. Each a whole number of times 2^(number of attention_widths) pixels of its view",
        low=0.02,
        high=1e6,
    )
    encoder: TileEncoder = option(TileEncoder(), "the network that turns a sub-tile into a feature")
    attention_widths: tuple[int, ...] = option(
        (24, 48, 64), "channels of the attention networks' stages, each halving the view", low=1, high=65_536
    )
    context: int = option(
        7, "side of the attention networks' depthwise kernel, in the networks' own cells", low=1, high=8192
    )

    def check(self) -> None:
        """Raise InputError where options do not go together."""
        super().check()
        if len(self.cells_um) != len(self.mpps):
            raise InputError(
                f"cells_um needs {len(self.mpps)} sides, one for the overview and one for each of view_mpps, "
                f"not {list(self.cells_um)}"
            )
        for um, mpp, side in zip(self.cells_um, self.mpps, self.sides, strict=True):
            own = self._pixels * mpp
            if abs(um / (side * own) - 1) > TOLERANCE:
                raise InputError(
                    f"a cell of {um:g} µm is no whole number of the network's own {own:g} µm ({self._pixels} pixels of "
                    f"{mpp:g} µm); take {side * own:g}"
                )

    @property
    def sides(self) -> tuple[int, ...]:
        """How many of the attention network's own cells lie along a cell of each step."""
        return tuple(max(1, round(um / (self._pixels * mpp))) for um, mpp in zip(self.cells_um, self.mpps, strict=True))

    @property
    def _pixels(self) -> int:
        """Side of an attention network's own cell in pixels of the view."""
        return int(2 ** len(self.attention_widths))
