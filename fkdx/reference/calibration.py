"""Which crops are shown, with which targets."""

import numpy as np


def calibrated_image(
    teachers, truth: int, low: float, middle: float, top: float, epsilon: float, score: str, least: int
) -> list[tuple[int, list[np.ndarray]]]:
    """The crops of one image that are left, and what each teacher's target of them becomes.

    `teachers` holds each teacher's probabilities (M, C) of the same M crops.
    """
    shown, gone = [], []
    for crop, rows in enumerate(zip(*teachers)):
        scores = [row.max() if score == "max" else row[truth] for row in rows]
        beyond = max(max(low - s, s - top, 0) for s in scores)
        (gone if beyond > 0 else shown).append((beyond, crop))
    missing = max(0, least - len(shown))
    crops = sorted(crop for _, crop in shown + sorted(gone)[:missing])
    result = []
    for crop in crops:
        targets = []
        for probabilities in teachers:
            row = probabilities[crop]
            if low < middle and (row.max() if score == "max" else row[truth]) < middle:
                row = np.full(len(row), epsilon / (len(row) - 1))
                row[truth] = 1 - epsilon
            targets.append(row)
        result.append((crop, targets))
    return result
