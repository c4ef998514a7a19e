"""Whole slides and the attention of wsi-attention in napari.

napari's world is the slide's level 0, in (y, x): the centre of its first pixel is at (0, 0), its corner at (-½, -½).
"""
