"""Pixels out of files."""
