"""Features without a classifier."""

import math

import numpy as np


def knn_votes(known, classes, row, k: int, temperature: float = 0.07) -> dict[int, float]:
    """The votes of the k nearest of known features (N, D) for the classes of a feature (D,)."""
    cosines = [float(one @ row / np.linalg.norm(one) / np.linalg.norm(row)) for one in known]
    votes: dict[int, float] = {}
    for place in sorted(range(len(known)), key=lambda i: -cosines[i])[:k]:
        votes[classes[place]] = votes.get(classes[place], 0.0) + math.exp(cosines[place] / temperature)
    return votes
