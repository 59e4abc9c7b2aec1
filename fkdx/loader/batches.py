"""What every loader yields, and how a global batch is divided among processes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import torch

from fkdx.batch import IMAGENET_MEAN, IMAGENET_STD, prepare
from fkdx.batch.mix import Mix
from fkdx.errors import refuse, whole
from fkdx.loss.target import SparseTarget


@dataclass(frozen=True, repr=False)
class Batch:
    """What one step trains or evaluates on: B rows.

    Attributes:
        images: (B, size, size, 3) uint8, on the loader's device; (B, 3, size, size) float32, normalised and
            mixed, if the trainer lets timm augment them.
        target: SparseTarget of B rows, on the loader's device; (B, C) float32, as stored, for the dense label
            kinds, and embeddings (B, K); None from a ValidationLoader.
        classes: (B,) int64 ground truth; -1 where unknown.
        keys: B keys of the images.
        crops: (B,) int64, which of its image's stored crops each row is.
        mix: how the crops are mixed with those of other images, on the loader's device: an argument of
            `fkdx.batch.prepare`. None if they are not mixed.
        bare: whether the target is a teacher's logits, not probabilities.
    """

    images: torch.Tensor
    target: SparseTarget | torch.Tensor | None
    classes: torch.Tensor
    keys: list[str]
    crops: torch.Tensor
    mix: Mix | None = None
    bare: bool = False

    def __repr__(self) -> str:
        target = tuple(self.target.shape) if isinstance(self.target, torch.Tensor) else self.target
        images = f"{tuple(self.images.shape)} {self.images.dtype} of {len(set(self.keys))} images"
        return f"Batch({images}{', mixed' if self.mix is not None else ''}, target {target})"

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""

        def moved(part):
            return part if part is None else part.to(device, non_blocking=non_blocking)

        parts = {name: moved(getattr(self, name)) for name in ("images", "target", "classes", "mix")}
        return replace(self, **parts)

    def prepared(
        self,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        dtype: torch.dtype = torch.float32,
        mix: Mix | None = None,
        teacher_temperature: float | None = 1.0,
    ) -> tuple[torch.Tensor, SparseTarget | torch.Tensor]:
        """The network's input and its target, with all that the batch holds applied to both.

        Args:
            mean, std, dtype: of the input, as for `fkdx.batch.prepare`.
            mix: further mixing, from `Mixer.draw`.
            teacher_temperature: divides a teacher's bare logits, which become probabilities; None: they stay
                logits, for `soft_cross_entropy(..., teacher_temperature=...)`.

        Returns:
            Images (B, 3, size, size) of `dtype`, and a SparseTarget of B rows or probabilities (B, C).

        Raises:
            ValueError: more mixing of crops that are mixed already, mixing of targets that are logits, or a
                teacher's temperature for labels that are probabilities.
        """
        if mix is not None and self.mix is not None:
            raise ValueError("Batch.prepared: mix, got one for crops that are mixed already, expected None")
        if mix is not None and self.bare and teacher_temperature is None:
            raise ValueError("Batch.prepared: mix, got one for bare logits, expected a teacher_temperature")
        if not self.bare and teacher_temperature not in (None, 1):
            got = f"got {teacher_temperature} for labels that are probabilities, expected 1"
            raise ValueError(f"Batch.prepared: teacher_temperature, {got}")
        if self.target is None:
            raise ValueError("Batch.prepared: this batch has no target; use fkdx.prepare for its images")
        mix, images, target = mix or self.mix, self.images, self.target
        if not images.is_floating_point():
            images = prepare(images, mean, std, dtype, mix)
        if isinstance(target, torch.Tensor) and self.bare and teacher_temperature is not None:
            target = torch.softmax(target / teacher_temperature, dim=1)
        return images, target if mix is None else mix.of(target)


def refuse_copy(loader: object) -> NoReturn:
    """Raises TypeError, which `pickle` and `copy` pass on."""
    name = type(loader).__name__
    raise TypeError(f"{name}: a loader has threads and cannot be pickled or copied; make one in each process")


def check_word(where: str, name: str, word: str, expected: tuple[str, ...]) -> None:
    if word not in expected:
        refuse(where, name, f"'{word}'", f"one of {', '.join(expected)}")


def check_shares(batch_size: int, crops_per_image: int, rank: int, world_size: int) -> None:
    given = {"batch_size": batch_size, "crops_per_image": crops_per_image, "rank": rank}
    for name, number in (given | {"world_size": world_size}).items():
        whole("loader", name, number)
    if not 0 <= rank < world_size:
        raise ValueError(f"loader: rank, got {rank} of world_size {world_size}, expected 0..{world_size - 1}")
    if crops_per_image < 1 or batch_size < 1 or batch_size % (crops_per_image * world_size):
        raise ValueError(
            f"loader: batch_size, got {batch_size}, expected a multiple of crops_per_image x world_size "
            f"({crops_per_image} x {world_size}): it counts the crops of the global batch"
        )
