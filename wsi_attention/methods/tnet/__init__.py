"""TNet (Papadopoulos et al., NeurIPS 2021): docs/methods/tnet.md."""
