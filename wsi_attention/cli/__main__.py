"""`python -m wsi_attention.cli`: the command line without the console script."""

from wsi_attention.cli import main

main()
