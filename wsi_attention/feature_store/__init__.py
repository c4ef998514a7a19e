"""What encoders said of tiles, kept on disk, so that no tile is read and encoded twice: by slide, encoder and place.

`store` is the folder with its limit, `shelf` the features of one slide, `shards` the files, `kind` what tells two
encoders apart.
"""
