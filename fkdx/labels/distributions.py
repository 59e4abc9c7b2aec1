"""Stored labels as distributions over classes: probabilities, how sure the teacher was, means and unions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike

from fkdx.labels.file import ImageLabels

Score = Literal["max", "truth"]
SCORES = get_args(Score)
Tail = Literal["smoothing", "renorm"]
TAILS = get_args(Tail)


class Labels(Protocol):
    """What is read here of a LabelFile, or of one that was calibrated."""

    kind: str
    num_classes: int
    k: int

    def gather(
        self, images: ArrayLike, crops: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]: ...

    def gather_tails(self, images: ArrayLike, crops: ArrayLike) -> np.ndarray: ...


def gather_with_tails(
    labels: Labels, images: ArrayLike, crops: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Boxes, flips, ids, values and tails (None unless the kind is `topk_logits`); see `LabelFile.gather`."""
    tails = labels.gather_tails(images, crops) if labels.kind == "topk_logits" else None
    return (*labels.gather(images, crops), tails)


def probabilities(kind: str, values: np.ndarray, tails: np.ndarray | None = None) -> np.ndarray:
    """(..., K) probabilities of the kept classes at temperature 1, in the dtype of `values` (..., K).

    Logits go through a softmax over the kept classes and the tail (...), which is the log of the sum of exp
    over all others. Values of the other kinds are probabilities already.
    """
    if not kind.endswith("logits"):
        return values
    top = values.max(axis=-1, keepdims=True)
    if tails is not None:
        tails = tails[..., None].astype(values.dtype)
        top = np.maximum(top, tails)
    exps = np.exp(values - top)
    total = exps.sum(axis=-1, keepdims=True)
    if tails is not None:
        total += np.exp(tails - top)
    return exps / total


def tempered(
    values: np.ndarray, tails: np.ndarray, others: int, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (..., K) and tails (...) of `topk_logits`, divided by a temperature.

    What the tail's classes have together does not say how much each of the `others` has; they count as equal,
    as in marginal smoothing, so that the distribution y becomes y**(1 / temperature), normalised. A tail of
    no probability stays one (marginal re-normalisation).
    """
    if temperature == 1:
        return values, tails
    count = np.log(max(others, 1)).astype(tails.dtype)
    scale = tails.dtype.type(temperature)
    with np.errstate(over="ignore"):  # of a tail of no probability
        return values / scale, count + (tails - count) / scale


def scores(
    labels: Labels,
    score: Score,
    ids: np.ndarray,
    values: np.ndarray,
    tails: np.ndarray | None,
    truth: np.ndarray,
) -> np.ndarray:
    """How sure the teacher was of crops, (n, m) float64 in [0, 1].

    Args:
        score: "max", the largest probability, or "truth", that of the image's class; a class outside the
            stored top K gets an even share of the probability that the K leave.
        ids, values, tails: (n, m, K), (n, m, K) and (n, m), as `gather_with_tails` gives them.
        truth: (n,) the images' classes.
    """
    if score == "max" and labels.kind in ("topk", "smoothing"):
        return values[..., 0].astype(np.float64)  # the largest comes first
    values = probabilities(labels.kind, values.astype(np.float64), tails)
    if score == "max":
        return values.max(axis=2)
    if labels.kind.startswith("dense"):
        return np.take_along_axis(values, truth[:, None, None], axis=2)[..., 0]
    is_truth = ids == truth[:, None, None]
    others = labels.num_classes - labels.k
    rest = np.maximum(1 - values.sum(axis=2), 0) / max(others, 1)
    return np.where(is_truth.any(axis=2), (values * is_truth).sum(axis=2), rest)


@dataclass(frozen=True, slots=True)
class Distributions:
    """M distributions over C classes: `values` (M, K) float64 at `ids` (M, K), `base` (M,) at every other
    class."""

    ids: np.ndarray
    values: np.ndarray
    base: np.ndarray
    num_classes: int

    def at(self, ids: np.ndarray) -> np.ndarray:
        """Probabilities (M, U) of classes (M, U)."""
        if self.ids.shape[1] == self.num_classes:
            dense = np.empty_like(self.values)
            np.put_along_axis(dense, self.ids, self.values, axis=1)
            return np.take_along_axis(dense, ids, axis=1)
        same = ids[:, :, None] == self.ids[:, None, :]
        kept = np.einsum("muk,mk->mu", same, self.values)
        return np.where(same.any(axis=2), kept, self.base[:, None])


def recover(labels: Labels, image: ImageLabels, tail: Tail = "smoothing") -> Distributions:
    """The distributions that an image's labels stand for.

    `tail` says what the classes outside the top K get: `smoothing`, equal shares of the remaining probability
    (marginal smoothing, FKD section 3.2); `renorm`, nothing, and the top K are scaled to sum to 1 (marginal
    re-normalisation). Logits become probabilities at temperature 1 first.
    """
    ids, values = image.ids.astype(np.int64), image_probabilities(labels, image)
    if labels.kind.startswith("dense"):
        ids = np.broadcast_to(np.arange(labels.num_classes), values.shape)
    sums = values.sum(axis=1)
    others = labels.num_classes - values.shape[1]
    if tail == "renorm" or others == 0:
        base = np.zeros(len(ids))
        return Distributions(ids, values / np.maximum(sums, 1e-12)[:, None], base, labels.num_classes)
    return Distributions(ids, values, np.maximum(1 - sums, 0) / others, labels.num_classes)


def image_probabilities(labels: Labels, image: ImageLabels) -> np.ndarray:
    """(M, K) float64 probabilities of the kept classes of an image's crops."""
    return probabilities(labels.kind, image.values.astype(np.float64), image.tails)


def union(distributions: Sequence[Distributions]) -> tuple[np.ndarray, np.ndarray]:
    """All classes that any of the distributions names: ids (M, U), and a mask (M, U), True where an id comes
    first."""
    num_classes = distributions[0].num_classes
    if any(one.ids.shape[1] == num_classes for one in distributions):
        ids = np.broadcast_to(np.arange(num_classes), (len(distributions[0].ids), num_classes))
        return ids, np.ones(ids.shape, bool)
    ids = np.sort(np.concatenate([one.ids for one in distributions], axis=1), axis=1)
    first = np.ones(ids.shape, bool)
    first[:, 1:] = ids[:, 1:] != ids[:, :-1]
    return ids, first
