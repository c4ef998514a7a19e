"""How far to believe a label: calibrated probabilities, sets of labels, and slides unlike those of the training.

All of it is fitted on predictions of slides with known labels, kept in the model's folder, and applied at prediction;
`docs/uncertainty.md` has the mathematics.
"""

from wsi_attention.certainty.calibration import Calibration, fit_calibration

__all__ = ["Calibration", "fit_calibration"]
