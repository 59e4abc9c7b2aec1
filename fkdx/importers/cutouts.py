"""Rectangles of one colour that were painted over crops in place of a flip (`CutoutPIL`, ImageNet-21K).

LPLD and LPQLD store them as float32 (B, 7): centre, height and width as fractions of the crop, and colour.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fkdx._C import FormatError
from fkdx.errors import refuse
from fkdx.image.steps import Step

_refuse = partial(refuse, "read_batch", error=FormatError)


def are_cutouts(flips: Any) -> bool:
    """Whether part 1 of a batch is cutouts instead of flips."""
    return isinstance(flips, np.ndarray) and flips.ndim == 2


def check_cutouts(cutouts: np.ndarray, rows: int, partners: Any, path: Path) -> None:
    """FormatError for another shape or type, and for crops that were mixed too."""
    if cutouts.shape != (rows, 7) or cutouts.dtype.kind != "f":
        _refuse("cutout", f"{cutouts.dtype} {cutouts.shape}", f"an array of shape ({rows}, 7)", path)
    if partners is not None:
        _refuse("partners", "crops that were cut out and mixed", "one of both", path)


def cutout_steps(cutouts: np.ndarray, size: int) -> list[list[Step]]:
    """The rectangles that were painted over crops of `size` pixels, as steps of `fkdx.image.augment`.

    Pillow's rectangle includes its last row and column. FormatError if a number is no whole pixel.
    """
    numbers = cutouts * np.array([size] * 4 + [1] * 3, np.float64)
    whole = np.rint(numbers).astype(np.int64)
    if not (np.abs(numbers - whole) < 0.01).all() or whole.min(initial=0) < 0:
        _refuse("cutout", "fractions of a pixel", f"whole pixels of {size} (--mix-size)", "part 1")
    centre, half, colours = whole[:, :2], whole[:, 2:4] // 2, whole[:, 4:]
    begin = np.clip(centre - half, 0, size)
    extent = np.minimum(np.clip(centre + half, 0, size) + 1, size) - begin
    edges = np.concatenate([begin, extent], axis=1) / size
    return [[["erase", *edge, *colour]] for edge, colour in zip(edges.tolist(), colours.tolist())]
