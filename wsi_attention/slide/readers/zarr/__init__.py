"""OME-Zarr by its stored chunks."""
