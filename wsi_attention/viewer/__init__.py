"""A local viewer of a results folder: the slide itself, with attention and the tiles that were read on top."""
