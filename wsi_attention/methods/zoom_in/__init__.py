"""Zoom-In (Kong and Henao, CVPR 2022): docs/methods/zoom_in.md."""
