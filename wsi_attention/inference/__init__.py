"""Slides and a model to predictions, one or many."""
