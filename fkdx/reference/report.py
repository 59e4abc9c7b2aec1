"""What one pass over a label file counts."""

import math

import numpy as np


def label_statistics(ids, values, num_classes: int, truth: int | None) -> dict[str, float]:
    """Of one image: ids and probabilities (M, K) of its crops, and its class.

    Means of the largest probability and of entropy / log C (what lies outside the top K spread evenly over
    the other classes), their spread, the class that most crops name first (the smallest of several), and the
    parts of the crops that name it, and the image's own class, first.
    """
    largest, entropies, first = [], [], []
    for row, p in zip(np.asarray(ids).tolist(), np.asarray(values, float).tolist()):
        pairs = sorted(zip(p, row), key=lambda pair: -pair[0])
        largest.append(pairs[0][0])
        first.append(pairs[0][1])
        rest, others = max(1 - sum(p), 0), num_classes - len(p)
        spread = [rest / others] * others if others else []
        entropies.append(-sum(q * math.log(q) for q in [*p, *spread] if q > 0) / math.log(num_classes))
    majority = min(set(first), key=lambda c: (-first.count(c), c))
    return {
        "score": sum(largest) / len(largest),
        "spread": float(np.std(largest)),
        "lowest": min(largest),
        "highest": max(largest),
        "entropy": sum(entropies) / len(entropies),
        "majority": majority,
        "unity": first.count(majority) / len(first),
        "agreement": math.nan if truth is None else first.count(truth) / len(first),
    }
