"""Embeddings that are stored standardised: of each dimension its mean is taken away, and it is divided by its
deviation, so that int8 rounds all dimensions alike."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fkdx.labels.moments import Moments, rounded


@dataclass(frozen=True)
class Standard:
    """What was done to the embeddings of a crop, K values in all; `sizes` are theirs.

    mean, divisor: (K,) float64; stored = (the teacher's - mean) / divisor. Zero vectors stay zero.
    """

    sizes: tuple[int, ...]
    mean: np.ndarray
    divisor: np.ndarray

    @classmethod
    def none(cls, sizes: Iterable[int]) -> "Standard":
        """Nothing was done."""
        sizes = tuple(sizes)
        return cls(sizes, np.zeros(sum(sizes)), np.ones(sum(sizes)))

    @classmethod
    def from_header(cls, entry: Mapping[str, Mapping[str, Any]], embeddings: Mapping[str, int]) -> "Standard":
        """Of a header's `standardised`, which names some of the embeddings. KeyError, TypeError or ValueError
        where it is none."""
        parts = {name: (np.zeros(size), np.ones(size)) for name, size in embeddings.items()}
        for name, numbers in entry.items():
            mean, divisor = (np.array(numbers[word], np.float64) for word in ("mean", "divisor"))
            right = mean.shape == divisor.shape == (embeddings[name],) and (divisor > 0).all()
            if not (right and np.isfinite([mean, divisor]).all()):
                raise ValueError(f"{name}, expected {embeddings[name]} means and positive divisors")
            parts[name] = mean, divisor
        means, divisors = zip(*parts.values())
        return cls(tuple(embeddings.values()), np.concatenate(means), np.concatenate(divisors))

    def stored(self, values: np.ndarray) -> np.ndarray:
        """(M, K) float32 as it is stored, of a teacher's (M, K)."""
        return self._moved(values, lambda part, mean, divisor: (part - mean) / divisor)

    def teachers(self, stored: np.ndarray) -> np.ndarray:
        """(M, K) float32 as the teacher gave it, of stored (M, K)."""
        return self._moved(stored, lambda part, mean, divisor: part * divisor + mean)

    def _moved(self, values: np.ndarray, move: Callable[..., np.ndarray]) -> np.ndarray:
        ends = np.cumsum(self.sizes)[:-1]
        split = (np.split(each, ends, axis=-1) for each in (values, self.mean, self.divisor))
        moved = [np.where(part.any(-1, keepdims=True), move(part, *by), 0) for part, *by in zip(*split)]
        return np.concatenate(moved, axis=-1).astype(np.float32)


def standard_header(moments: Mapping[str, Moments]) -> dict[str, dict[str, list[float]]]:
    """The header's `standardised` for embeddings of these moments."""
    return {
        name: {"mean": rounded(each.mean), "divisor": rounded(each.divisor)} for name, each in moments.items()
    }
