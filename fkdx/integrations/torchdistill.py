"""Stored labels in torchdistill: one YAML with a label file where its teacher would be.

A configuration that names this module among its `dependencies` may use

    datasets:           !import_call {key: fkdx.integrations.torchdistill.StoredCrops, init: {kwargs: ...}}
    collate_fn:         fkdx_batch, with `batch_size: 1, num_workers: 0`: a batch comes whole
    pre_epoch_process:  fkdx_epoch
    criterion:          SoftCrossEntropy, wrapped in torchdistill's SimpleLossWrapper

as examples/torchdistill/stored_labels.yaml does. Losses on features, with their hooks and auxiliary modules,
stay torchdistill's; they may stand beside this one.

Raises RuntimeError on import if torchdistill is missing or of an unknown version.
"""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torchvision  # noqa: F401 (torchdistill looks for it among the modules that are loaded)
from torch import Tensor, distributed, nn
from torch.utils.data import Dataset, get_worker_info

from fkdx.batch import IMAGENET_MEAN, IMAGENET_STD
from fkdx.labels import LabelFile
from fkdx.labels.comparable import check_class_labels
from fkdx.loader import CropLoader
from fkdx.loss import soft_cross_entropy
from fkdx.loss.target import SparseTarget
from fkdx.models.machine import pick_device


def check_version() -> None:
    """RuntimeError unless the torchdistill that is installed is one whose registries this module knows."""
    advice = "run: pip install 'torchdistill>=1.1,<1.2'"
    try:
        found = version("torchdistill")
    except PackageNotFoundError:
        raise RuntimeError(f"torchdistill: not installed; {advice}") from None
    if not found.startswith("1.1."):
        raise RuntimeError(f"torchdistill: version, got {found}, expected 1.1.x; {advice}")


check_version()

from torchdistill.core.interfaces.pre_epoch_proc import (  # noqa: E402
    default_pre_epoch_process_with_teacher,
    default_pre_epoch_process_without_teacher,
)
from torchdistill.core.interfaces.registry import register_pre_epoch_proc_func  # noqa: E402
from torchdistill.datasets.registry import register_collate_func, register_dataset  # noqa: E402
from torchdistill.losses.registry import register_low_level_loss  # noqa: E402

Item = tuple[Tensor, SparseTarget | Tensor]


@register_dataset
class StoredCrops(Dataset):
    """A data set whose items are whole batches of a CropLoader: (images, target).

    Images are (B, 3, size, size) float32, normalised and mixed; targets are a `SparseTarget` of B rows, or
    probabilities (B, C) of dense labels; see `Batch.prepared`. The index of an item does not matter: the
    loader knows the order, and divides every batch among the processes. A pass shows `crops_per_image` crops
    of every image.

    Args:
        root, labels, batch_size: as for CropLoader; the batch is that of all processes.
        mean, std: of the pixels, in units of [0, 1].
        device: where batches are made: cuda, cpu, or auto (cuda if there is a GPU).
        teacher_temperature: divides stored logits, of kind dense_logits or topk_logits.
        (others): as for CropLoader.

    Raises:
        ValueError: embeddings, a temperature of labels that are probabilities, what CropLoader refuses.
        RuntimeError: in a worker process of a DataLoader; the crop loader has threads of its own.
    """

    def __init__(
        self,
        root: str,
        labels: str | Sequence[str],
        batch_size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        device: str = "auto",
        teacher_temperature: float = 1.0,
        **others: Any,
    ) -> None:
        if distributed.is_initialized():
            others = {"rank": distributed.get_rank(), "world_size": distributed.get_world_size(), **others}
        several = [labels] if isinstance(labels, str) else labels
        bare = {LabelFile(path).kind for path in several} == {"dense_logits"}
        own, self._temperature = (1.0, teacher_temperature) if bare else (teacher_temperature, 1.0)
        own = {"teacher_temperature": own, "device": pick_device(device)}
        self.loader = CropLoader(root, labels, batch_size, **own, **others)
        check_class_labels("StoredCrops", *self.loader.teachers)
        self._mean, self._std = mean, std
        self._batches = iter(())

    def set_epoch(self, epoch: int) -> None:
        """Begin a pass anew; passes count from 0."""
        first = epoch * self.loader.crops_per_image
        self.loader.load_state_dict({**self.loader.state_dict(), "epoch": first, "step": 0})
        self._batches = iter(())

    def __len__(self) -> int:
        """Batches of a pass times processes, as torchdistill's DistributedSampler divides them again."""
        return len(self.loader) * self.loader.world_size

    def __getitem__(self, _: int) -> Item:
        if get_worker_info() is not None:
            raise RuntimeError("StoredCrops: num_workers, got a worker process, expected num_workers: 0")
        batch = next(self._batches, None)
        if batch is None:
            self._batches = iter(self.loader)
            batch = next(self._batches)
        return batch.prepared(self._mean, self._std, teacher_temperature=self._temperature)


@register_collate_func(key="fkdx_batch")
def only_batch(items: list[tuple]) -> tuple:
    """The one item, which is a batch already. ValueError if there are more."""
    if len(items) != 1:
        raise ValueError(f"fkdx_batch: batches, got {len(items)}, expected one: batch_size: 1 in the YAML")
    return items[0]


@register_pre_epoch_proc_func(key="fkdx_epoch")
def set_epoch(box: Any, epoch: int = 0, **more: Any) -> None:
    """torchdistill's own preparations, and the epoch for StoredCrops, so that a resumed run goes on."""
    taught = hasattr(box, "teacher_model")
    before = default_pre_epoch_process_with_teacher if taught else default_pre_epoch_process_without_teacher
    before(box, epoch=epoch, **more)
    dataset = box.train_data_loader.dataset
    getattr(dataset, "org_dataset", dataset).set_epoch(epoch)


@register_low_level_loss
class SoftCrossEntropy(nn.Module):
    """`fkdx.soft_cross_entropy` of (logits, target), the mean over rows; no (B, C) target is made."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, logits: Tensor, target: SparseTarget | Tensor) -> Tensor:
        return soft_cross_entropy(logits, target, self.temperature)
