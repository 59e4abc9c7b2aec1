"""Features without a classifier."""

import math

import numpy as np


def knn_class(known, classes, row, k: int, temperature: float = 0.07) -> int:
    """The class of a feature (D,) by the votes of its k nearest among known ones (N, D)."""
    cosines = [float(one @ row / np.linalg.norm(one) / np.linalg.norm(row)) for one in known]
    votes: dict[int, float] = {}
    for place in sorted(range(len(known)), key=lambda i: -cosines[i])[:k]:
        votes[classes[place]] = votes.get(classes[place], 0.0) + math.exp(cosines[place] / temperature)
    return max(votes, key=votes.__getitem__)
