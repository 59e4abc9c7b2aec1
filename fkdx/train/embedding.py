"""What a student learns of stored embeddings: centred or standardised, zero vectors marked."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from fkdx.labels import LabelFile

Norm = Literal["none", "centre", "standardise"]
NORMS = get_args(Norm)


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of a label file as targets.

    Attributes:
        sizes: D of each embedding of a crop.
        mean, divisor: (K,) float32 on the device, what each dimension is moved and divided by.
    """

    sizes: list[int]
    mean: Tensor
    divisor: Tensor

    @classmethod
    def of(cls, labels: LabelFile, norm: Norm, device: torch.device | str = "cpu") -> "Embeddings":
        """`centre` takes each dimension's mean away, `standardise` also divides by its standard deviation,
        over all crops of the file."""
        moments = labels.teachers_moments.values()
        mean = np.concatenate([each.mean for each in moments])
        divisor = np.concatenate([each.divisor for each in moments])
        mean = mean * (norm != "none")
        divisor = divisor if norm == "standardise" else np.ones_like(divisor)
        done = labels.standard  # what is stored may be standardised already
        numbers = (mean - done.mean) / done.divisor, divisor / done.divisor
        parts = (torch.from_numpy(part.astype(np.float32)).to(device) for part in numbers)
        return cls(list(labels.embeddings.values()), *parts)

    def target(self, stored: Tensor) -> Tensor:
        """(B, K) float32 of stored embeddings (B, K); NaN where one is a zero vector, so that neither it nor
        what is mixed with it is learned."""
        target = (stored - self.mean) / self.divisor
        absent = [
            (part == 0).all(dim=1, keepdim=True).expand_as(part) for part in stored.split(self.sizes, 1)
        ]
        return target.masked_fill(torch.cat(absent, dim=1), float("nan"))
