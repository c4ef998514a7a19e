"""One paper, one file, its own loss included."""
