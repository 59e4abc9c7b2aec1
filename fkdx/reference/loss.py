"""Targets, cross-entropies and losses against a teacher, dense and in float64."""

import math

import numpy as np


def _softmax(logits, temperature: float) -> np.ndarray:
    return np.exp(_log_softmax(logits, temperature))


def _log_softmax(logits, temperature: float = 1.0) -> np.ndarray:
    """Divergences start from logarithms, in which the least likely class keeps its digits."""
    powers = (np.asarray(logits, np.float64) - np.max(logits)) / temperature
    return powers - math.log(np.exp(powers).sum())


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


def tempered_target(ids, logits, tail, num_classes: int, kind: str, temperature: float) -> np.ndarray:
    """(B, C) float64 targets at a temperature from the K largest logits of every row; `tail` is the log of
    what exp of the others adds up to, of which each has an equal share."""
    dense = np.zeros((len(ids), num_classes))
    for row, row_ids, row_logits, row_tail in zip(dense, ids, np.asarray(logits, np.float64), tail):
        every = np.full(num_classes, -np.inf)
        if len(row_ids) < num_classes:
            every[:] = float(row_tail) - math.log(num_classes - len(row_ids))
        every[row_ids] = row_logits
        row[:] = _softmax(every, temperature)
    kept = np.take_along_axis(dense, np.asarray(ids), axis=1)
    return dense_target(ids, kept, num_classes, kind)


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


# ---- losses against a teacher's logits, row by row and class by class -------------------------------------


def _log_sum(logs) -> float:
    """The logarithm of a sum, from the logarithms of what is added."""
    return float(np.max(logs)) + math.log(np.exp(logs - np.max(logs)).sum())


def _kl(t, s) -> float:
    """Kullback-Leibler divergence of two distributions, from the logarithms of their probabilities."""
    return sum(math.exp(a) * (a - b) for a, b in zip(t, s))


def kl(student, teacher, temperature: float) -> list[float]:
    """Kullback-Leibler divergence of every row's softmaxes, times the temperature squared."""
    return [
        temperature**2 * _kl(_log_softmax(t, temperature), _log_softmax(s, temperature))
        for s, t in zip(student, teacher)
    ]


def bkl(student, teacher, temperature: float) -> list[float]:
    """The mean over classes of KL between Bernoulli(softmax of the teacher) and Bernoulli(sigmoid)."""
    rows = []
    for s, t in zip(np.asarray(student) / temperature, teacher):
        t = _log_softmax(t, temperature)
        teachers = [(t[c], _log_sum(np.delete(t, c))) for c in range(len(t))]
        students = [(-np.logaddexp(0, -x), -np.logaddexp(0, x)) for x in s]  # sigmoid(x) and sigmoid(-x)
        terms = [_kl(a, b) for a, b in zip(teachers, students)]
        rows.append(temperature**2 * sum(terms) / len(terms))
    return rows


def dkd(student, teacher, classes, temperature: float, alpha: float, beta: float) -> list[float]:
    """T**2 * (alpha * KL of the true class against the rest + beta * KL among the rest, renormalised).

    What is left beside a sure class is added up from the others: 1 - p would be rounding alone.
    """
    rows = []
    for s, t, true in zip(student, teacher, classes):
        t, s = _log_softmax(t, temperature), _log_softmax(s, temperature)
        others = [np.delete(p, true) for p in (t, s)]
        binary = [(p[true], _log_sum(rest)) for p, rest in zip((t, s), others)]
        among = [_log_softmax(rest) for rest in others]
        rows.append(temperature**2 * (alpha * _kl(*binary) + beta * _kl(*among)))
    return rows


def dist(student, teacher, temperature: float, beta: float, gamma: float) -> list[float]:
    """T**2 * (beta * (1 - correlation of a row) + gamma * (1 - mean correlation of the columns))."""
    s = np.array([_softmax(row, temperature) for row in student])
    t = np.array([_softmax(row, temperature) for row in teacher])
    intra = np.mean([_correlation(s[:, c], t[:, c]) for c in range(s.shape[1])])
    inter = [_correlation(a, b) for a, b in zip(s, t)]
    return [temperature**2 * (beta * (1 - r) + gamma * (1 - intra)) for r in inter]


def mse_gt(student, teacher, classes, temperature: float, gamma: float) -> list[float]:
    """MSE and GT of G-VBSM: squared differences of logits, their mean over the classes, and cross-entropy.

    The temperature makes no difference.
    """
    losses = []
    for s, t, true in zip(student, teacher, classes):
        squares = [(a - b) ** 2 for a, b in zip(s, t)]
        losses.append(sum(squares) / len(squares) - gamma * _log_softmax(s)[true])
    return losses


def _correlation(a, b) -> float:
    """Pearson's, and less where values hardly differ: a length below 1e-8 counts as 1e-8."""
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / (max(np.linalg.norm(a), 1e-8) * max(np.linalg.norm(b), 1e-8)))


# ---- losses against embeddings ----------------------------------------------------------------------------


def cosine_gradient(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Of 1 - cosine, for the student; both (n, D) float64."""
    length = np.linalg.norm(student, axis=1, keepdims=True)
    s, t = student / length, teacher / np.linalg.norm(teacher, axis=1, keepdims=True)
    return -(t - (s * t).sum(1, keepdims=True) * s) / length


def embedding_loss(student, teacher, loss: str, temperature: float = 1.0, teacher_temperature: float = 1.0):
    """Of one projection and one embedding, (D,) each, in float64."""
    s, t = np.asarray(student, np.float64), np.asarray(teacher, np.float64)
    if loss == "cosine":
        return 1 - float(s @ t) / math.sqrt(float(s @ s) * float(t @ t))
    if loss == "mse":
        return float(np.mean((s - t) ** 2))
    if loss == "smooth_l1":
        return float(np.mean([d * d / 2 if d < 1 else d - 0.5 for d in np.abs(s - t).tolist()]))
    p = np.exp(t / teacher_temperature - np.max(t / teacher_temperature))
    q = s / temperature
    return -float(p / p.sum() @ (q - q.max() - math.log(np.exp(q - q.max()).sum())))
