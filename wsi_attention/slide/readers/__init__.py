"""Readers of slides, a file or folder for each library; every one is a `SlideReader`."""
