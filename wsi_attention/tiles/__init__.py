"""Coordinates to pixels."""
