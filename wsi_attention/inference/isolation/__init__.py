"""Slides done in worker processes that the batch can lose: what takes a process down costs one slide."""
