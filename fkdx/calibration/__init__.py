"""Surgical calibration of stored labels (FerKD: Shen, ICCV 2023, section 3.2).

`rule` says what becomes of a crop, `survey` reads all labels once and decides, `statistics` counts what was
done, `view` is the label file that is left: a `LabelFile` like any other, to be trained on or to be written.
"""

from fkdx.calibration.rule import Calibration
from fkdx.calibration.statistics import Statistics
from fkdx.calibration.survey import calibrated
from fkdx.calibration.view import CalibratedLabels

__all__ = ["CalibratedLabels", "Calibration", "Statistics", "calibrated"]
