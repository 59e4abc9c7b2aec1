"""What storing embeddings as int8 changes: measured where they are written."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fkdx.labels.moments import Moments
from fkdx.labels.similarity import cosines

SAMPLE = 4096  # crops that are looked at at a time
FEW = 32  # crops of which no deviations are taken
LOWEST, MOST = 0.998, 0.01  # a cosine below, a change of the gradient above which there is a warning


@dataclass(frozen=True)
class Change:
    """Of the embeddings of `crops` crops.

    cosine: the lowest between what the teacher said and what is stored.
    gradient: the mean share by which the gradient of the cosine loss differs once all dimensions are
        standardised, as they are for a student. It is |a - b| of the two unit vectors, sqrt(2 - 2 cosine).
    """

    crops: int
    cosine: float
    gradient: float

    @property
    def small(self) -> bool:
        return self.cosine >= LOWEST and self.gradient <= MOST

    def __str__(self) -> str:
        return (
            f"int8: cosine to the teacher's embeddings at least {self.cosine:.5f}; the gradient of the "
            f"cosine loss, dimensions standardised, is {self.gradient:.1%} off"
        )


def change(exact: np.ndarray, stored: np.ndarray, sizes: Sequence[int]) -> Change | None:
    """Between embeddings (M, K) and what is stored of them; None for too few crops."""
    ends, found = np.cumsum(sizes)[:-1], []
    for a, b in zip(np.split(exact, ends, axis=1), np.split(stored, ends, axis=1)):
        rows = a.any(axis=1)
        if rows.sum() < FEW:
            continue
        a, b, moments = a[rows].astype(np.float64), b[rows].astype(np.float64), Moments.of(a)
        turned = cosines((a - moments.mean) / moments.divisor, (b - moments.mean) / moments.divisor)
        off = np.sqrt(np.maximum(2 - 2 * turned, 0))
        found.append(Change(int(rows.sum()), float(cosines(a, b).min()), float(np.nanmean(off))))
    return together(found)


def together(changes: Iterable[Change]) -> Change | None:
    """Of all of them; None if there are none."""
    changes = list(changes)
    if not changes:
        return None
    crops = sum(each.crops for each in changes)
    mean = sum(each.gradient * each.crops for each in changes) / crops
    return Change(crops, min(each.cosine for each in changes), mean)
