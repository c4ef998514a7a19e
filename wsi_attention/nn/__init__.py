"""Trainable blocks; parts are passed in."""
