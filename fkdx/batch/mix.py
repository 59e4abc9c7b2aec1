"""Mixup, CutMix and SelfMix as parameters of a batch's rows; `fkdx.batch.prepare` mixes the pixels.

Images and targets mix alike: ``images = prepare(pixels, ..., mix=mix)`` and ``target = mix.of(target)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fkdx.errors import refuse
from fkdx.labels.layout import CUTMIX, MIXUP
from fkdx.loss.target import SparseTarget


@dataclass(frozen=True, eq=False)
class Mix:
    """Row b becomes itself outside its box, and ``(1 - blend) * itself + blend * partner`` inside.

    partners: (B,) int64, rows of the batch, or of `others`
    boxes:    (B, 4) int32 top, left, height, width in pixels of the crop
    blend:    (B,) float32, 1 for CutMix and SelfMix
    lam:      (B,) float32, share of the row's own target: 1 - blend * area of the box / area of the crop;
              None where the labels are those of the mixed crops already
    others:   (P, H, W, 3) uint8 crops outside the batch; None: partners are rows of the batch
    """

    partners: Tensor
    boxes: Tensor
    blend: Tensor
    lam: Tensor | None
    others: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Mix:
        """The same parameters on another device."""
        return self.mapped(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Mix:
        """The same parameters in page-locked memory, from which `to` copies without waiting."""
        return self.mapped(Tensor.pin_memory)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Mix:
        """The same parameters with every tensor changed."""
        return replace(self, **{name: change(part) for name, part in vars(self).items() if part is not None})

    def of(self, target: SparseTarget | Tensor) -> SparseTarget | Tensor:
        """The targets of the mixed rows; a dense target (B, C) holds probabilities. ValueError for others."""
        if self.lam is None:
            return target
        if isinstance(target, SparseTarget):
            return target.mix(self.partners, self.lam)
        if target.ndim != 2 or len(target) != len(self.partners) or not target.is_floating_point():
            got, rows = (tuple(target.shape), target.dtype), len(self.partners)
            refuse("Mix.of", "target", got, f"a SparseTarget (from_classes), or probabilities ({rows}, C)")
        lam = self.lam.to(target.dtype)[:, None]
        return lam * target + (1 - lam) * target[self.partners]


@dataclass(frozen=True, eq=False)
class StoredMix:
    """How B crops of a label file were mixed with P others; see docs/format.md.

    rows:       (B,) integers, which of the others; any where nothing is mixed
    operations: (B,) integers, the sum of MIXUP and CUTMIX, or 0
    lambdas:    (B,) float32, the crop's own weight in Mixup
    boxes:      (B, 4) integers, top, left, height, width in pixels of the crop
    """

    rows: np.ndarray
    operations: np.ndarray
    lambdas: np.ndarray
    boxes: np.ndarray

    def apply(self, crops: np.ndarray, others: np.ndarray) -> Mix | None:
        """CutMix crops (B, S, S, 3) uint8 in place with others (P, S, S, 3); give the Mixup, for `prepare`.

        None where there is none. Mixup comes first in the format and here last, without a difference: it
        leaves a pixel alone that is its partner's already.
        """
        for crop in np.flatnonzero(self.operations & CUTMIX):
            top, left, height, width = self.boxes[crop]
            inside = slice(top, top + height), slice(left, left + width)
            crops[crop][inside] = others[self.rows[crop]][inside]
        mixed = (self.operations & MIXUP) > 0
        if not mixed.any():
            return None
        whole = [0, 0, *crops.shape[1:3]]
        return Mix(
            torch.from_numpy(np.where(mixed, self.rows, 0).astype(np.int64)),
            torch.from_numpy(np.where(mixed[:, None], whole, 0).astype(np.int32)),
            torch.from_numpy(np.where(mixed, np.float32(1) - self.lambdas, 0).astype(np.float32)),
            lam=None,
            others=torch.from_numpy(others),
        )


@dataclass(frozen=True)
class Mixer:
    """Which mixing a recipe wants, and how strong; draws the parameters of one batch at a time.

    mixup, cutmix, selfmix: the parameter a of Beta(a, a), from which the strength of every row is drawn; 0
        is off. One of those that are on is taken for the whole batch.
    probability: of mixing a batch at all (timm's mixup_prob)
    switch_probability: of CutMix or SelfMix where Mixup is on as well (timm's mixup_switch_prob). CutMix and
        SelfMix share it evenly where both are on.

    Mixup is Zhang et al., ICLR 2018; CutMix Yun et al., ICCV 2019; SelfMix, CutMix among crops of one image,
    is FerKD (Shen, ICCV 2023). ValueError for a parameter below 0 or infinite, a probability outside [0, 1].

    Example:
        >>> import fkdx
        >>> import numpy as np
        >>> import torch
        >>> crops = torch.randint(256, (4, 32, 32, 3), dtype=torch.uint8)
        >>> target = fkdx.SparseTarget.from_classes(torch.tensor([0, 1, 2, 1]), num_classes=3)
        >>> mix = fkdx.Mixer(mixup=0.2, cutmix=1.0).draw(4, 32, 32, np.random.default_rng(0))
        >>> images, target = fkdx.prepare(crops, mix=mix), mix.of(target)
        >>> tuple(images.shape), len(target)
        ((4, 3, 32, 32), 4)
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    selfmix: float = 0.0
    probability: float = 1.0
    switch_probability: float = 0.5

    def __post_init__(self) -> None:
        if not all(0 <= strength < math.inf for strength in (self.mixup, self.cutmix, self.selfmix)):
            raise ValueError(f"Mixer: got {self}, expected mixup, cutmix and selfmix of at least 0")
        if not (0 <= self.probability <= 1 and 0 <= self.switch_probability <= 1):
            raise ValueError(f"Mixer: got {self}, expected every probability between 0 and 1")

    def draw(
        self, rows: int, height: int, width: int, rng: np.random.Generator, crops_per_image: int = 1
    ) -> Mix | None:
        """Parameters for a batch of crops of this size, or None where it stays unmixed.

        crops_per_image: so many neighbouring rows are crops of one image (SelfMix). ValueError where it does
        not divide `rows`, or is 1 with SelfMix on: then no crop has a partner.
        """
        kind = self._kind(crops_per_image, rng)
        if kind is None:
            return None
        lam = rng.beta(getattr(self, kind), getattr(self, kind), rows)
        if kind == "mixup":
            boxes = np.tile([0, 0, height, width], (rows, 1))
            return _mix(rng.permutation(rows), boxes, 1 - lam, height * width)
        boxes = cutmix_boxes(lam, height, width, rng)
        partners = neighbours(rows, crops_per_image, rng) if kind == "selfmix" else rng.permutation(rows)
        return _mix(partners, boxes, np.ones(rows), height * width)

    def _kind(self, crops_per_image: int, rng: np.random.Generator) -> str | None:
        if self.selfmix and crops_per_image < 2:
            raise ValueError(
                f"Mixer: selfmix, got {crops_per_image} crop of an image, expected at least 2 to mix"
            )
        cuts = [name for name in ("cutmix", "selfmix") if getattr(self, name)]
        if not (cuts or self.mixup) or rng.random() >= self.probability:
            return None
        if self.mixup and not (cuts and rng.random() < self.switch_probability):
            return "mixup"
        return cuts[rng.integers(len(cuts))]


def cutmix_boxes(lam: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """CutMix boxes (B, 4) around uniform centres, of share 1 - lam before they are clipped at the edges."""
    side = np.sqrt(1 - lam)
    ends = []
    for length in (height, width):
        half = (length * side).astype(np.int64) // 2
        centre = rng.integers(0, length, len(lam))
        ends.append((np.clip(centre - half, 0, length), np.clip(centre + half, 0, length)))
    (top, bottom), (left, right) = ends
    return np.stack([top, left, bottom - top, right - left], axis=1)


def neighbours(rows: int, crops_per_image: int, rng: np.random.Generator) -> np.ndarray:
    """A partner for every row among the other crops of its image, of which there are at least two."""
    if rows % crops_per_image:
        raise ValueError(f"Mixer: crops_per_image, got {crops_per_image}, expected a divisor of {rows} rows")
    first = np.arange(rows) // crops_per_image * crops_per_image
    turn = np.repeat(rng.integers(1, crops_per_image, rows // crops_per_image), crops_per_image)
    return first + (np.arange(rows) - first + turn) % crops_per_image


def _mix(partners: np.ndarray, boxes: np.ndarray, blend: np.ndarray, area: int) -> Mix:
    blend = blend.astype(np.float32)
    lam = 1 - blend * (boxes[:, 2] * boxes[:, 3] / area)
    return Mix(
        torch.from_numpy(partners.astype(np.int64)),
        torch.from_numpy(boxes.astype(np.int32)),
        torch.from_numpy(blend),
        torch.from_numpy(lam.astype(np.float32)),
    )
