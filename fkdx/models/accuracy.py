"""Top-1 and top-5: how often the true class is a model's first guess, or among its first five."""

import torch
from torch import Tensor


def guesses(logits: Tensor) -> Tensor:
    """The most probable classes of each row of (n, C), the first guess first: (n, min(5, C)) int64."""
    return logits.topk(min(5, logits.shape[1]), dim=1).indices


def count_right(right: Tensor) -> Tensor:
    """Counts of rows by which guesses are right, (n, at most 5) bool: int64 [first, any, rows]."""
    return torch.stack([right[:, :1].sum(), right.any(1).sum(), right.new_ones(len(right)).sum()])


def accuracy_text(score: dict[str, float]) -> str:
    """What `as_percentages` found, in words."""
    return "top-1 {top1:.2f}%, top-5 {top5:.2f}% of {images} images".format(**score)


def as_percentages(counts: list[float]) -> dict[str, float]:
    """{"top1", "top5" in percent, "images"} of summed counts. ZeroDivisionError if there is no image."""
    first, five, images = counts
    return {"top1": 100 * first / images, "top5": 100 * five / images, "images": int(images)}
