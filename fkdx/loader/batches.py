"""What every loader yields, and how a global batch is divided among processes."""

from dataclasses import dataclass

import torch

from fkdx.batch.mix import Mix
from fkdx.loss.target import SparseTarget


@dataclass(frozen=True)
class Batch:
    """What one step trains or evaluates on: B rows.

    Attributes:
        images: (B, size, size, 3) uint8, on the loader's device; (B, 3, size, size) float32, normalised and
            mixed, if the trainer lets timm augment them.
        target: SparseTarget of B rows, on the loader's device; (B, C) float32, as stored, for the dense label
            kinds; None from a ValidationLoader.
        classes: (B,) int64 ground truth; -1 where unknown.
        keys: B keys of the images.
        crops: (B,) int64, which of its image's stored crops each row is.
        mix: how the crops are mixed with those of other images, on the loader's device: an argument of
            `fkdx.batch.prepare`. None if they are not mixed.
    """

    images: torch.Tensor
    target: SparseTarget | torch.Tensor | None
    classes: torch.Tensor
    keys: list[str]
    crops: torch.Tensor
    mix: Mix | None = None


def check_shares(batch_size: int, crops_per_image: int, rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"loader: rank, got {rank} of world_size {world_size}, expected 0..{world_size - 1}")
    if crops_per_image < 1 or batch_size < 1 or batch_size % (crops_per_image * world_size):
        raise ValueError(
            f"loader: batch_size, got {batch_size}, expected a multiple of crops_per_image x world_size "
            f"({crops_per_image} x {world_size}): it counts the crops of the global batch"
        )
