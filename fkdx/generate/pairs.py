"""Which crop of which other image a crop is mixed with, and how, before the teacher sees it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from fkdx.batch.mix import StoredMix, cutmix_boxes
from fkdx.generate.cut import Cutter, Pixels
from fkdx.generate.draw import RandomCrops
from fkdx.image.random_boxes import Draws, crop_stream
from fkdx.labels import Mixes
from fkdx.labels.layout import CUTMIX, MIXED, MIXUP
from fkdx.loader.pool import Work

RUN = 8  # neighbouring crops of an image that share a partner image, so that it is decoded once for them
TRIES = 100  # partners that cannot be read, one after the other


@dataclass(frozen=True)
class Pairs:
    """Mixup and CutMix across images, every crop by one of those that are on.

    `mixup` and `cutmix` are the parameter a of Beta(a, a) that lambda is drawn from; 0: off. `partner` draws
    the partners' crops; `size` is the side of the mixed crops. Everything depends on (seed, key, crop index)
    alone, given the list of images. Raises ValueError for a negative parameter.
    """

    mixup: float
    cutmix: float
    partner: RandomCrops
    size: int

    def __post_init__(self) -> None:
        if min(self.mixup, self.cutmix) < 0 or not (self.mixup or self.cutmix):
            raise ValueError(
                f"mixup and cutmix, got {self.mixup} and {self.cutmix}, expected none below 0 and one above"
            )

    def parameters(self, key: str, crops: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Operations (M,), lambdas (M,) float32 and CutMix boxes (M, 4) of an image's crops."""
        stream = crop_stream(self.partner.seed, key, Draws.MIX_PARAMETERS)
        alphas = {MIXUP: self.mixup, CUTMIX: self.cutmix}
        on = [operation for operation, alpha in alphas.items() if alpha > 0]
        operations = np.zeros(crops, np.int64)
        lambdas, boxes = np.ones(crops, np.float32), np.zeros((crops, 4), np.int64)
        for crop in range(crops):
            rng = np.random.default_rng([stream, crop])
            operations[crop] = on[rng.integers(len(on))]
            alpha = alphas[operations[crop]]
            lam = rng.beta(alpha, alpha, 1)
            if operations[crop] == MIXUP:
                lambdas[crop] = lam[0]
            else:
                boxes[crop] = cutmix_boxes(lam, self.size, self.size, rng)[0]
        return operations, lambdas, boxes

    def runs(self, key: str, image: int, images: int, crops: int) -> Iterator[tuple[range, Iterator[int]]]:
        """Neighbouring crops, and the images to take their partner from: the first that can be read."""
        stream = crop_stream(self.partner.seed, key, Draws.PARTNERS)
        for number, first in enumerate(range(0, crops, RUN)):
            shift = int(np.random.default_rng([stream, number]).integers(images - 1))
            yield range(first, min(first + RUN, crops)), _others(image, images, shift)

    def work(self, key: str, partners: list[int], runs: list[range]) -> Work:
        """How a pool cuts what the crops `runs` of an image are mixed with, one partner a run."""
        crops = sum(map(len, runs))
        return Work(
            images=partners,
            counts=list(map(len, runs)),
            boxes=np.empty((crops, 4), np.int32),
            flips=np.empty(crops, np.uint8),
            streams=[crop_stream(self.partner.seed, key, Draws.PARTNER_CROPS)] * len(runs),
            first_crops=[run.start for run in runs],
        )

    def begin(self, cutter: Cutter, image: int, pixels: Pixels) -> "PairedImage":
        """Start to fill `pixels` with the crops that those of an image are mixed with."""
        return PairedImage(self, cutter, image, pixels)

    def provenance(self) -> dict:
        ranges = {"scale": self.partner.scale, "ratio": self.partner.ratio, "flip": self.partner.flip}
        return {"mixup": self.mixup, "cutmix": self.cutmix, "partners": ranges}


def _others(image: int, images: int, shift: int) -> Iterator[int]:
    """All images but this one, from a place on."""
    return ((image + 1 + (shift + step) % (images - 1)) % images for step in range(images - 1))


class PairedImage:
    """The partners of one image's crops under way; a partner that cannot be read gives way to the next."""

    def __init__(self, pairs: Pairs, cutter: Cutter, image: int, pixels: Pixels) -> None:
        self._pairs, self._cutter, self._pixels = pairs, cutter, pixels
        self._key = cutter.source.keys[image]
        crops = len(next(iter(pixels.values())))
        operations, lambdas, boxes = pairs.parameters(self._key, crops)
        self.mix = StoredMix(np.arange(crops), operations, lambdas, boxes)
        self._runs = list(pairs.runs(self._key, image, len(cutter.source), crops))
        self._partners = [next(others) for _, others in self._runs]
        work = pairs.work(self._key, self._partners, [run for run, _ in self._runs])
        self._cut = cutter.begin(pairs.partner.view, work, pixels)

    def finish(self) -> Mixes:
        """How the crops are mixed, once the partners' crops are there. ValueError where none can be read."""
        errors, work = self._cut.finish(), self._cut.work
        for number in errors:
            self._replace(number, work)
        return Mixes(
            partners=[
                self._cutter.source.keys[partner]
                for partner, (run, _) in zip(self._partners, self._runs)
                for _ in run
            ],
            boxes=work.boxes,
            flips=work.flips.view(bool),
            operations=self.mix.operations,
            lambdas=self.mix.lambdas,
            mix_boxes=self.mix.boxes,
        )

    def _replace(self, number: int, work: Work) -> None:
        """Give a run of crops another partner; the run's boxes and flips go into `work`."""
        run, others = self._runs[number]
        part = slice(run.start, run.stop)
        pixels = {shape: rows[part] for shape, rows in self._pixels.items()}
        for other in islice(others, TRIES - 1):
            one = self._pairs.work(self._key, [other], [run])
            cut = self._cutter.begin(self._pairs.partner.view, one, pixels, urgent=True)
            if not cut.finish():
                self._partners[number] = other
                work.boxes[part], work.flips[part] = cut.work.boxes, cut.work.flips
                return
        raise ValueError(f"none of {TRIES} images to mix it with can be read")


def joined(mixes: list[StoredMix | None], crops: int) -> StoredMix:
    """How images with `crops` crops each are mixed, whose partners have as many rows; None: not at all."""
    plain = StoredMix(
        rows=np.zeros(crops, np.int64),
        operations=np.zeros(crops, np.int64),
        lambdas=np.ones(crops, np.float32),
        boxes=np.zeros((crops, 4), np.int64),
    )
    each = [mix or plain for mix in mixes]
    return StoredMix(
        rows=np.concatenate([mix.rows + place * crops for place, mix in enumerate(each)]),
        operations=np.concatenate([mix.operations for mix in each]),
        lambdas=np.concatenate([mix.lambdas for mix in each]),
        boxes=np.concatenate([mix.boxes for mix in each]),
    )


def part_of(mix: StoredMix, first: int, last: int) -> tuple[StoredMix, slice]:
    """The crops first ... last - 1 of `mix`, and which rows of the partners they need."""
    crops = slice(first, last)
    used = mix.rows[crops][(mix.operations[crops] & MIXED) > 0]
    start, stop = (int(used.min()), int(used.max()) + 1) if len(used) else (0, 0)
    part = StoredMix(
        rows=mix.rows[crops] - start,
        operations=mix.operations[crops],
        lambdas=mix.lambdas[crops],
        boxes=mix.boxes[crops],
    )
    return part, slice(start, stop)
