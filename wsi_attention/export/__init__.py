"""A `Prediction` as files other programs read."""
