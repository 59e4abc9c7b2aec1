"""Slow, obvious twins of everything fast in fkdx: one file for each room that has them.

They import nothing of fkdx but each other, and judge all of it.
"""

from fkdx.reference import batch, calibration, generate, image, labels, loader, loss, report, stores, train

__all__ = [
    "batch",
    "calibration",
    "generate",
    "image",
    "labels",
    "loader",
    "loss",
    "report",
    "stores",
    "train",
]
