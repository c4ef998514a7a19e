"""One library a file; each is a `SlideReader`."""
