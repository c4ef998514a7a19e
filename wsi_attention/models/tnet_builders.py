"""TNet ready to train on stained tissue."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from wsi_attention.models.options import one_of
from wsi_attention.models.tnet import TNet
from wsi_attention.nn.encoder_choice import build_encoder
from wsi_attention.nn.feature_map import FeatureAndMap
from wsi_attention.nn.glimpse_features import AddedPosition, FeatureMean, FeatureWeighting, JoinedPosition
from wsi_attention.nn.location import LocationModule
from wsi_attention.nn.preprocess import HE_MEAN, HE_STD, Normalise

POSITIONS = ("added", "joined")
POOLINGS = ("weighted", "mean")


def tnet(
    classes: int,
    *,
    base: int = 128,
    tile_mpp: float = 0.5,
    overview_mpp: float = 16.0,
    grid: int = 5,
    overlap: float = 0.25,
    attended: Sequence[int] = (4, 3, 2, 2),
    mean: Sequence[float] = HE_MEAN,
    std: Sequence[float] = HE_STD,
    encoder: str = "small",
    encoder_widths: Sequence[int] = (24, 48, 96, 128),
    features: int = 128,
    pool: str = "mean+max",
    encoder_frozen: bool = False,
    map_layer: str = "",
    location_width: int = 64,
    position: str = "added",
    pooling: str = "weighted",
    dropout: float = 0.25,
    selection: str = "without-replacement",
    logits: str = "plain",
    class_share: float = 0.7,
    reward_share: float = 0.3,
    policy_weight: float = 0.1,
    regularised_levels: int | None = None,
    contrast_weight: float = 0.0,
    baseline_kept: float = 0.98,
) -> TNet:
    """TNet for stained tissue: each level looks four times closer, and at most 4 + 12 + 24 + 48 regions are read.

    Arguments not listed here are `TNet`'s. Numbers that differ from the paper's: a label says less of one region of a
    slide than of one of a photograph, so the loss of single regions weighs less (the paper has class_share 0.05 to
    0.3); training sees one slide at a time, so the baseline moves more slowly.

    Args:
        classes: number of classes.
        base: pixels a side of the overview and of every region.
        tile_mpp: the finest µm per pixel that is read.
        overview_mpp: µm per pixel at which tissue is looked for.
        mean: of each channel, of 1.
        std: of each channel, of 1.
        encoder: a name that `nn.encoder_choice.build_encoder` knows.
        encoder_widths: channels of the small encoder's stages.
        features: length of the small encoder's feature.
        pool: "mean", "max" or "mean+max", of the small encoder.
        encoder_frozen: whether training leaves the encoder's weights as they are.
        map_layer: layer of the encoder whose output the location module sees; the encoder's own choice where empty.
        location_width: channels of the location module.
        position: "added" as for fMoW, CUB and NABirds; "joined" as for ImageNet.
        pooling: "weighted" by the feature weighting module as for CUB and NABirds; "mean" as for ImageNet and fMoW.
        dropout: share of the pooled feature's components left out in training.

    Raises:
        InputError: an argument is out of range or names nothing.
    """
    one_of("position", position, POSITIONS)
    one_of("pooling", pooling, POOLINGS)
    network = build_encoder(
        encoder, len(mean), widths=encoder_widths, features=features, pool=pool, frozen=encoder_frozen
    )
    seen = FeatureAndMap(network, map_layer, len(mean), base)
    dim = int(network.dim)
    return TNet(
        network,
        seen,
        LocationModule(seen.map_shape[0], location_width),
        AddedPosition(dim, projected=encoder_frozen) if position == "added" else JoinedPosition(dim),
        FeatureWeighting(dim) if pooling == "weighted" else FeatureMean(),
        nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, classes)),
        Normalise(mean, std),
        base=base,
        tile_mpp=tile_mpp,
        overview_mpp=overview_mpp,
        grid=grid,
        overlap=overlap,
        attended=attended,
        selection=selection,
        logits=logits,
        class_share=class_share,
        reward_share=reward_share,
        policy_weight=policy_weight,
        regularised_levels=regularised_levels,
        contrast_weight=contrast_weight,
        baseline_kept=baseline_kept,
    )
