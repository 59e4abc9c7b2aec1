"""Slow, obvious twins of everything fast in fkdx. They import nothing of fkdx and judge all of it.

One section a room, in the order of docs/design.md.
"""

import numpy as np

# ---- image: boxes cut, resized and flipped exactly as Pillow does ----------------------------------------


# ---- labels: a second reader of the label file, written from docs/format.md alone -------------------------


# ---- crops: random boxes and flips ------------------------------------------------------------------------


# ---- sampler: which image and crop at which step ----------------------------------------------------------


# ---- loss: targets and soft cross-entropy, dense ----------------------------------------------------------


def dense_target(ids, values, num_classes: int, kind: str) -> np.ndarray:
    """(B, C) float64 targets from top-K labels, one row and one class after the other."""
    dense = np.zeros((len(ids), num_classes))
    for row, row_ids, row_values in zip(dense, ids, np.asarray(values, np.float64)):
        if kind in ("hard", "smoothing"):
            best = int(np.argmax(row_values))
            row_ids, row_values = row_ids[best : best + 1], row_values[best : best + 1]
        if kind == "hard":
            row_values = np.ones(1)
        base = 0.0
        if kind == "marginal_renorm":
            row_values = row_values / max(row_values.sum(), 1e-12)
        elif kind != "hard" and len(row_ids) < num_classes:
            base = (1.0 - row_values.sum()) / (num_classes - len(row_ids))
        row += base
        for class_id, value in zip(row_ids, row_values):
            row[class_id] += value - base
    return dense


def soft_cross_entropy(logits, target, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Loss of every row (B,) and d loss[b] / d logits[b] (B, C), float64; target (B, C), 0 * log 0 = 0."""
    t = np.asarray(logits, np.float64) / temperature
    t = t - t.max(1, keepdims=True)
    total = np.exp(t).sum(1, keepdims=True)
    # log(total) keeps its digits near 0 when the largest terms, which are 1, are counted apart
    ties = (t == 0).sum(1, keepdims=True)
    log_total = np.log(ties) + np.log1p(np.where(t == 0, 0.0, np.exp(t)).sum(1, keepdims=True) / ties)
    with np.errstate(invalid="ignore"):
        terms = np.where(target == 0, 0.0, target * (log_total - t))
    grad = (target.sum(1, keepdims=True) * np.exp(t) / total - target) / temperature
    return terms.sum(1), grad


def binary_cross_entropy(logits, target) -> tuple[np.ndarray, np.ndarray]:
    """Mean over classes of -y log s - (1 - y) log(1 - s), s = sigmoid(logits), and its gradient, float64."""
    z = np.asarray(logits, np.float64)
    loss = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - target * z
    sigmoid = np.where(z < 0, np.exp(-np.abs(z)), 1.0) / (1.0 + np.exp(-np.abs(z)))
    return loss.mean(1), (sigmoid - target) / z.shape[1]


# ---- batch: images on the device --------------------------------------------------------------------------


def prepare(images, mean, std, partners=None, boxes=None, blend=None) -> np.ndarray:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float64, normalised; inside its box a row blends with another."""
    pixels = np.asarray(images, np.float64)
    mixed = pixels.copy()
    if partners is not None:
        for row, (top, left, height, width) in enumerate(boxes):
            cut = (slice(top, top + height), slice(left, left + width))
            other = pixels[partners[row]][cut]
            mixed[row][cut] = (1 - float(blend[row])) * pixels[row][cut] + float(blend[row]) * other
    return ((mixed / 255 - np.asarray(mean)) / np.asarray(std)).transpose(0, 3, 1, 2)
