"""Numbers about numbers: scores, curves and their intervals, on plain arrays; nothing here knows of slides."""
