"""Means and spreads of embeddings, collected while they are written and kept in the label file's header."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_DIGITS = 6
LEAST_SCALE = 0.01  # of the mean scale: a dimension that hardly varies is not blown up


@dataclass
class Moments:
    """Of the embeddings of `crops` crops, D values each; zero vectors are left out and counted.

    Attributes:
        crops: how many embeddings that are not zero.
        zeros: how many are zero in all their values.
        mean: (D,) float64.
        squares: (D,) float64, sums of squared distances from the mean.
    """

    crops: int
    zeros: int
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def none(cls, size: int) -> "Moments":
        return cls(0, 0, np.zeros(size), np.zeros(size))

    @classmethod
    def of(cls, values: np.ndarray) -> "Moments":
        """Those of (M, D) embeddings."""
        rows = values[values.any(axis=1)].astype(np.float64)
        if not len(rows):
            return cls(0, len(values), *np.zeros((2, values.shape[1])))
        mean = rows.mean(axis=0)
        return cls(len(rows), len(values) - len(rows), mean, np.square(rows - mean).sum(axis=0))

    def __add__(self, other: "Moments") -> "Moments":
        """Of both together (Chan, Golub and LeVeque, 1983)."""
        crops = self.crops + other.crops
        if crops == 0:
            return Moments(0, self.zeros + other.zeros, self.mean, self.squares)
        distance = other.mean - self.mean
        mean = self.mean + distance * (other.crops / crops)
        between = np.square(distance) * (self.crops * other.crops / crops)
        return Moments(crops, self.zeros + other.zeros, mean, self.squares + other.squares + between)

    @property
    def scale(self) -> np.ndarray:
        """(D,) float64: standard deviation of each dimension."""
        return np.sqrt(self.squares / max(self.crops, 1))

    @property
    def divisor(self) -> np.ndarray:
        """(D,) float64: what each dimension is divided by: its scale, but at least 1 % of the mean scale."""
        least = LEAST_SCALE * self.scale.mean()
        return np.maximum(self.scale, least if least > 0 else 1.0)

    def to_header(self) -> dict[str, Any]:
        return {
            "crops": self.crops,
            "zeros": self.zeros,
            "mean": rounded(self.mean),
            "scale": rounded(self.scale),
        }

    @classmethod
    def from_header(cls, entry: dict[str, Any]) -> "Moments":
        scale = np.array(entry["scale"], np.float64)
        return cls(entry["crops"], entry["zeros"], np.array(entry["mean"]), np.square(scale) * entry["crops"])


def moments_of(values: np.ndarray, sizes: Sequence[int]) -> list[Moments]:
    """The moments of each embedding, of values (M, sum of sizes)."""
    return [Moments.of(part) for part in np.split(values, np.cumsum(sizes)[:-1], axis=1)]


def rounded(numbers: np.ndarray) -> list[float]:
    """As a header keeps them: six digits."""
    return [float(f"{number:.{_DIGITS}g}") for number in numbers.tolist()]
