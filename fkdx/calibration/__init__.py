"""Calibration of stored labels (FerKD: Shen, ICCV 2023, section 3.2).

`rule` decides what happens to a crop, `survey` reads all labels once and applies the rule, `statistics`
counts what was done, and `view` is the result, which is used like any other `LabelFile`, to train on or to
write.
"""

from fkdx.calibration.rule import Calibration
from fkdx.calibration.statistics import Statistics
from fkdx.calibration.survey import calibrated
from fkdx.calibration.view import CalibratedLabels

__all__ = ["CalibratedLabels", "Calibration", "Statistics", "calibrated"]
