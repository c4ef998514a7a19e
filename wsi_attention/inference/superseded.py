"""Which files of a slide a newer result makes obsolete: exports of every kind, compressed or not."""

from __future__ import annotations

from functools import cache

from wsi_attention import registry
from wsi_attention.inference.job import exporter_of

GZIP = ".gz"
"""What `export --gzip` puts behind a name."""


def twin(export: str) -> str:
    """Return the name of the same export in its other form: compressed, or not."""
    return export.removesuffix(GZIP) if export.endswith(GZIP) else f"{export}{GZIP}"


def every_export(slide: str) -> set[str]:
    """Return all that any installed exporter may have written for a slide, relative to the results folder."""
    plain = {suffix.format(slide=slide) for suffix in _suffixes()}
    return plain | set(map(twin, plain))


@cache
def _suffixes() -> tuple[str, ...]:
    found = []
    for name in registry.names(registry.EXPORTERS):
        try:
            found.append(str(exporter_of(name).suffix))
        except Exception:  # an outside package that cannot be imported has written nothing here
            continue
    return tuple(found)
