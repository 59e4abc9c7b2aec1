"""The plan of a batch: which crops to cut from which images, and what else belongs to them."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from fkdx.image.steps import Step
from fkdx.loader.partners import Partners
from fkdx.loader.pool import Work
from fkdx.loss.target import SparseTarget

Target = SparseTarget | torch.Tensor


@dataclass
class Plan:
    """n images with m crops each: rows `i * m ... i * m + m - 1` of the batch are the crops of image i.

    Attributes:
        work: what the threads have to read, decode and cut.
        crops: (n, m) int64, which of an image's crops they are.
        classes: (n,) int64 ground truth; -1 if unknown.
        recover: computes the target of a plan.
        answers: ids and values, (n, m, K) each, and tails (n, m) or None, of every teacher; empty for hard
            labels.
        partners: what the crops are mixed with; None if nothing is mixed.
        steps: the augmentation of each of the n m crops; None if there is none.
        temperature: divides stored logits of the K largest before they become probabilities.
    """

    work: Work
    crops: np.ndarray
    classes: np.ndarray
    recover: Callable[["Plan"], Target]
    answers: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]
    partners: Partners | None = None
    steps: list[list[Step]] | None = None
    temperature: float = 1.0
    _target: Target | None = field(default=None, init=False)

    @property
    def row_classes(self) -> torch.Tensor:
        """(n m,) int64, the ground truth of every row."""
        return torch.from_numpy(np.repeat(self.classes, self.crops.shape[1]))

    def target(self) -> Target:
        """The targets of all rows: a SparseTarget, or (n m, C) float32 for the dense label kinds. Computed
        once, and again after `replace`."""
        if self._target is None:
            self._target = self.recover(self)
        return self._target

    def replace(self, i: int, other: "Plan") -> None:
        """Replaces image i by the only image of `other`."""
        self._target = None
        self.work.images[i] = other.work.images[0]
        self.crops[i], self.classes[i] = other.crops[0], other.classes[0]
        for answer, other_answer in zip(self.answers, other.answers, strict=True):
            for part, other_part in zip(answer, other_answer, strict=True):
                if part is not None:
                    part[i] = other_part[0]
        if self.partners:
            self.partners.replace(i, other.partners)
        if self.steps:
            m = len(other.steps)
            self.steps[i * m : (i + 1) * m] = other.steps
