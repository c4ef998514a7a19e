"""Labelled slides to a model folder."""
