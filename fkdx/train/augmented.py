"""Batches of random crops augmented by timm: RandAugment, repeated augmentation, erasing, Mixup and CutMix.

The transforms, the sampler and the mixing are timm's own. Every image and every batch seeds the generators
that they draw from, so that here too the pixels are a function of (seed, epoch, step), whatever the number
of workers, and a run that was cut off goes on exactly.
"""

import io
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from timm.data import Mixup, create_transform
from timm.data.distributed_sampler import RepeatAugSampler
from timm.data.loader import fast_collate
from timm.data.random_erasing import RandomErasing
from timm.utils import random_seed
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fkdx.batch import prepare
from fkdx.loader import Batch
from fkdx.loader.pool import default_threads
from fkdx.loader.slots import send
from fkdx.stores import Store, check_random_access, class_numbers
from fkdx.system import start_method
from fkdx.train.distributed import World
from fkdx.train.recipe import Recipe


class AugmentedLoader:
    """Batches whose images are (B, 3, size, size) float32, normalised, mixed and erased, on the device.

    Targets are the classes as timm mixes and smooths them, (B, C). A pass shows as many crops as there are
    images; with `aug_repeats` r these are r crops each of a random r-th part of them, and where several
    processes run each sees another crop of the same image. An unreadable image raises OSError with its path.
    """

    crops_per_image = 1

    def __init__(
        self, recipe: Recipe, store: Store, classes: list[str], world: World, device: torch.device
    ) -> None:
        check_random_access(store)
        self.store = store
        self._recipe, self._device = recipe, device
        _, self._class_of = class_numbers(self.store, classes)
        self._images = _AugmentedImages(self.store, recipe)
        self._sampler = RepeatAugSampler(
            self._images, world.size, world.rank, num_repeats=recipe.aug_repeats, selected_round=0
        )
        self._rows = recipe.batch_size // world.size
        self._first, self._stride = world.rank, world.size
        self._workers = default_threads() if recipe.threads is None else recipe.threads
        self._erase = RandomErasing(recipe.random_erasing, mode="pixel", device=device)
        self._mixup = Mixup(
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix,
            prob=recipe.mixup_prob,
            switch_prob=recipe.mixup_switch_prob,
            label_smoothing=recipe.smoothing,
            num_classes=len(classes),
        )
        self._epoch = self._start = 0

    def __len__(self) -> int:
        """Steps of an epoch, the same on every rank."""
        return len(self._sampler) // self._rows

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with batch `step` of `epoch`."""
        self._epoch, self._start = state["epoch"], state["step"]

    def __iter__(self) -> Iterator[Batch]:
        """The batches from the current step to the end of the epoch."""
        recipe, pinned = self._recipe, self._device.type == "cuda"
        off = recipe.mixup_off_epoch and self._epoch >= recipe.mixup_off_epoch
        self._mixup.mixup_enabled = not off and recipe.mixup + recipe.cutmix > 0
        shown = DataLoader(
            self._images,
            batch_sampler=self._plan(),
            num_workers=self._workers,
            multiprocessing_context=start_method() if self._workers else None,
            collate_fn=fast_collate,
            pin_memory=pinned,
        )
        for step, (pixels, images) in enumerate(_one_line(shown), self._start):
            crops = pixels.to(self._device, non_blocking=True).permute(0, 2, 3, 1)
            seed_generators(recipe.seed, self._epoch, step, self._first)
            yield self._deliver(prepare(crops, recipe.mean, recipe.std), images)

    def _plan(self) -> list[list[tuple[int, tuple[int, ...]]]]:
        """For every row of every batch its image and what seeds its augmentation."""
        seed, epoch = self._recipe.seed, self._epoch
        self._sampler.set_epoch(seed * 1_000_003 + epoch)
        order = list(self._sampler)
        rows = [(image, (seed, epoch, self._first + turn * self._stride)) for turn, image in enumerate(order)]
        return [rows[step * self._rows : (step + 1) * self._rows] for step in range(self._start, len(self))]

    def _deliver(self, pixels: Tensor, images: Tensor) -> Batch:
        (classes,) = send((torch.from_numpy(self._class_of[images].astype(np.int64)),), self._device)
        mixed, target = self._mixup(self._erase(pixels), classes)
        keys = [self.store.keys[image] for image in images.tolist()]
        return Batch(mixed, target, classes, keys, torch.zeros_like(images))


class _AugmentedImages(Dataset):
    """Random crops through timm's transforms: item (image, seeds) -> ((3, size, size) uint8, image)."""

    def __init__(self, store: Store, recipe: Recipe) -> None:
        self._source = store
        self._transform = create_transform(
            recipe.size,
            is_training=True,
            use_prefetcher=True,  # uint8: what follows is done on the device
            scale=tuple(recipe.scale),
            ratio=tuple(recipe.ratio),
            color_jitter=recipe.color_jitter or None,
            auto_augment=recipe.auto_augment or None,
            interpolation=recipe.interpolation,
            mean=tuple(recipe.mean),
        )

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, item: tuple[int, tuple[int, ...]]) -> tuple[Tensor, int]:
        image, seeds = item
        try:
            pixels = Image.open(io.BytesIO(self._source.encoded(image))).convert("RGB")
        except OSError as error:
            raise OSError(f"train: cannot read an image ({error}), {self._source.place(image)[0]}") from error
        seed_generators(*seeds)
        return self._transform(pixels), image


def _one_line(batches: DataLoader) -> Iterator[list[Tensor]]:
    """The batches; what went wrong in a worker is said in one line, without the worker's traceback."""
    try:
        yield from batches
    except OSError as error:
        raise OSError(str(error).strip().splitlines()[-1].removeprefix("OSError: ")) from error


def seed_generators(*numbers: int) -> None:
    """Set the generators of Python, numpy and torch, from which timm draws, to a state of their own."""
    words = [number % 2**64 for number in numbers]
    random_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))
