"""Stored labels in timm's own training loop: a loader of (images, target) pairs and a task that takes them.

timm's `train.py` asks its task for the loss of every batch of its loader. Give it these two:

    loader = TimmLoader(fkdx.CropLoader(...), mean, std, dtype)
    task = StoredLabelTask(model, device=device)
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from timm.task import ClassificationTask
from torch import Tensor, nn

from fkdx.batch import IMAGENET_MEAN, IMAGENET_STD
from fkdx.labels.comparable import check_class_labels
from fkdx.loader import CropLoader
from fkdx.loss import soft_cross_entropy
from fkdx.loss.target import SparseTarget


class StoredLabelTask(ClassificationTask):
    """timm's classification task with soft cross-entropy against stored labels; no teacher, no dense target.

    `task(images, target)` takes a `SparseTarget` or (B, C) probabilities, and returns {"loss", "output"}.
    `temperature` divides the student's logits; other arguments are timm's.
    """

    def __init__(self, model: nn.Module, temperature: float = 1.0, **timm_arguments: Any) -> None:
        super().__init__(model, partial(soft_cross_entropy, temperature=temperature), **timm_arguments)


class _Passes:
    """The epochs of a CropLoader as timm counts them: one a pass, however many crops it shows of an image."""

    def __init__(self, loader: CropLoader) -> None:
        self._loader = loader

    def set_epoch(self, epoch: int) -> None:
        """Choose the next pass; passes count from 0."""
        self._loader.set_epoch(epoch * self._loader.crops_per_image)


class TimmLoader:
    """A CropLoader as timm's loop wants its loaders: pairs (images, target), see `Batch.prepared`.

    An epoch of timm's is a pass, in which every image is shown `crops_per_image` times:
    `loader.sampler.set_epoch(n)` chooses pass n.

    mean, std, dtype: of the images; teacher_temperature: divides stored logits of kind dense_logits; for
    topk_logits it is an argument of the CropLoader.
    """

    def __init__(
        self,
        loader: CropLoader,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        dtype: torch.dtype = torch.float32,
        teacher_temperature: float = 1.0,
    ) -> None:
        check_class_labels("TimmLoader", *getattr(loader, "teachers", ()))
        self.loader, self._inputs = loader, (mean, std, dtype, None, teacher_temperature)
        self.sampler = _Passes(loader)  # timm calls loader.sampler.set_epoch

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, SparseTarget | Tensor]]:
        for batch in self.loader:
            yield batch.prepared(*self._inputs)
