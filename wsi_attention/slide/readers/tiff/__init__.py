"""Tiled TIFF by its stored tiles: the index, one coding each, and requests of many regions."""
