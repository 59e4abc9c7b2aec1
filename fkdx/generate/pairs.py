"""Which crop of which other image a crop is mixed with, and how, before the teacher sees it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from fkdx.batch.mix import StoredMix
from fkdx.batch.mix import random_boxes as cutmix_boxes
from fkdx.generate.draw import RandomCrops
from fkdx.image import decode_crops, image_size
from fkdx.image.random_boxes import crop_stream, random_boxes
from fkdx.labels import Mixes
from fkdx.labels.layout import CUTMIX, MIXUP
from fkdx.stores.sources import Source

Shape = tuple[int, str]  # size, interpolation

RUN = 8  # neighbouring crops of an image that share a partner image, so that it is decoded once for them
TRIES = 100  # partners that cannot be read, one after the other
PARTNER_BOX, PARAMETERS, PARTNER = 1, 2, 3  # streams of random numbers beside that of the crops themselves


@dataclass(frozen=True)
class Pairs:
    """Mixup and CutMix across images, every crop by one of those that are on.

    `mixup` and `cutmix` are the parameter a of Beta(a, a) that lambda is drawn from; 0: off. `partner` draws
    the partners' crops; `size` is the side of the mixed crops. Everything depends on (seed, key, crop index)
    alone, given the list of images.
    """

    mixup: float
    cutmix: float
    partner: RandomCrops
    size: int

    def parameters(self, key: str, crops: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Operations (M,), lambdas (M,) float32 and CutMix boxes (M, 4) of an image's crops."""
        stream = crop_stream(self.partner.seed, key, PARAMETERS)
        operations = np.zeros(crops, np.int64)
        lambdas, boxes = np.ones(crops, np.float32), np.zeros((crops, 4), np.int64)
        for crop in range(crops):
            rng = np.random.default_rng([stream, crop])
            on = [name for name in (MIXUP, CUTMIX) if (self.mixup, self.cutmix)[name - 1] > 0]
            operations[crop] = on[rng.integers(len(on))]
            alpha = self.mixup if operations[crop] == MIXUP else self.cutmix
            lam = rng.beta(alpha, alpha, 1)
            if operations[crop] == MIXUP:
                lambdas[crop] = lam[0]
            else:
                boxes[crop] = cutmix_boxes(lam, self.size, self.size, rng)[0]
        return operations, lambdas, boxes

    def runs(self, key: str, image: int, images: int, crops: int) -> Iterator[tuple[range, Iterator[int]]]:
        """Neighbouring crops, and the images to take their partner from: the first that can be read."""
        stream = crop_stream(self.partner.seed, key, PARTNER)
        for number, first in enumerate(range(0, crops, RUN)):
            shift = int(np.random.default_rng([stream, number]).integers(images - 1))
            others = ((image + 1 + (shift + i) % (images - 1)) % images for i in range(images - 1))
            yield range(first, min(first + RUN, crops)), others

    def cut(self, source: Source, image: int, pixels: dict[Shape, np.ndarray]) -> Mixes:
        """How the crops of an image are mixed; `pixels[shape]` (M, size, size, 3) get their partners' crops.

        ValueError where no partner can be read.
        """
        key, crops = source.keys[image], len(next(iter(pixels.values())))
        operations, lambdas, mix_boxes = self.parameters(key, crops)
        boxes, flips, partners = np.zeros((crops, 4), np.int32), np.zeros(crops, bool), []
        for run, others in self.runs(key, image, len(source), crops):
            part = slice(run.start, run.stop)
            own = {shape: rows[part] for shape, rows in pixels.items()}
            partner, boxes[part], flips[part] = self._cut_partner(source, key, run, others, own)
            partners += [partner] * len(run)
        return Mixes(partners, boxes, flips, operations, lambdas, mix_boxes)

    def _cut_partner(
        self, source: Source, key: str, run: range, others: Iterator[int], pixels: dict[Shape, np.ndarray]
    ) -> tuple[str, np.ndarray, np.ndarray]:
        for other in islice(others, TRIES):
            try:
                data = source.encoded(other)
                boxes, flips = self._draw(key, image_size(data), run)
                for shape, rows in pixels.items():
                    rows[:] = decode_crops(data, boxes, flips, *shape)
            except (OSError, ValueError):
                continue  # told where it is the image itself
            return source.keys[other], boxes, flips
        raise ValueError(f"none of {TRIES} images to mix it with can be read")

    def _draw(self, key: str, partner_size: tuple[int, int], run: range) -> tuple[np.ndarray, np.ndarray]:
        draw = self.partner
        ranges = {"scale": draw.scale, "ratio": draw.ratio, "flip": draw.flip}
        return random_boxes(
            partner_size, draw.seed, key, len(run), first=run.start, epoch=PARTNER_BOX, **ranges
        )

    def provenance(self) -> dict:
        ranges = {"scale": self.partner.scale, "ratio": self.partner.ratio, "flip": self.partner.flip}
        return {"mixup": self.mixup, "cutmix": self.cutmix, "partners": ranges}


def stored_mix(mixes: list[Mixes | None], crops: int) -> StoredMix:
    """How so many crops, image after image, are mixed with others in the same order; None: not at all."""
    each = crops // len(mixes)
    unmixed = Mixes([None] * each, *(np.zeros((each, *shape)) for shape in ((4,), (), (), (), (4,))))
    told = [mix or unmixed for mix in mixes]
    return StoredMix(
        np.arange(crops),
        np.concatenate([mix.operations for mix in told]).astype(np.int64),
        np.concatenate([mix.lambdas for mix in told]).astype(np.float32),
        np.concatenate([mix.mix_boxes for mix in told]).astype(np.int64),
    )
