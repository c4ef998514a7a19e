"""The option that `train` and `classify` share: how large a feature store may become."""

from __future__ import annotations

from typing import Annotated

import typer

FeatureStoreGb = Annotated[
    float, typer.Option(help="Limit of the feature store in GB; slides used longest ago leave first; 0: keep nothing.")
]
